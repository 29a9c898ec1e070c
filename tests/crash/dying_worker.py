"""Celery's worker that dies once at a boundary: `python -m tests.crash.dying_worker …` with DESKYARD_DIE_AT set."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from celery.__main__ import main
from celery.signals import worker_init


def arm_from_environment(**_: object) -> None:
    from tests.crash.boundaries import arm

    name, _, passage = os.environ["DESKYARD_DIE_AT"].partition(":")
    arm(name, int(passage or 1), Path(os.environ["DESKYARD_DATA"]) / f"died at {name}")


if __name__ == "__main__":
    worker_init.connect(arm_from_environment)
    sys.exit(main())
