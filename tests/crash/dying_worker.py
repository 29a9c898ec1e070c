"""Celery's worker that dies at a boundary: `python -m tests.crash.dying_worker …` with DESKYARD_DIE_AT set."""

from __future__ import annotations

import os
import sys

from celery.__main__ import main
from celery.signals import worker_init


def arm_from_environment(**_: object) -> None:
    from broker.services import clock, inventory, pump
    from tests.crash.boundaries import arm

    # Shorter than in production, so that the next worker need not wait long for what a dead one held or claimed, and
    # that a slice ends while there is still something to build.
    pump.LEASE_S, pump.CALL_S, pump.SLICE_S = 5.0, 3.0, 2.0
    inventory.LEASE_S, inventory.CALL_S = 8.0, 6.0
    clock.RECONCILE_EVERY_S = 2
    arm(os.environ["DESKYARD_DIE_AT"])


if __name__ == "__main__":
    worker_init.connect(arm_from_environment)
    sys.exit(main())
