"""Celery's worker that dies once at a boundary: `python -m tests.crash.dying_worker …` with DESKYARD_DIE_AT set."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from celery.__main__ import main
from celery.signals import worker_init


def arm_from_environment(**_: object) -> None:
    from broker.services import inventory, pump
    from tests.crash.boundaries import arm

    # A shorter lease than in production, so that the next worker need not wait long for a dead one's.
    pump.LEASE_S, pump.CALL_S = 5.0, 3.0
    inventory.LEASE_S, inventory.CALL_S = 8.0, 6.0
    name, _colon, passage = os.environ["DESKYARD_DIE_AT"].partition(":")
    arm(name, int(passage or 1), Path(os.environ["DESKYARD_DATA"]) / f"died at {name}")


if __name__ == "__main__":
    worker_init.connect(arm_from_environment)
    sys.exit(main())
