"""The movers' tasks, in a queue of their own: a long copy keeps no pump waiting."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_shutting_down

from broker.services import movers, moving, nudges
from broker.tasks.database import with_database


@shared_task(name=nudges.MOVE)
@with_database
def move(run_id: str) -> None:
    """Any run: the best one that waits, whichever was hinted at, and then the next."""
    nudges.taken(nudges.MOVE, run_id)
    moving.work_on()


@worker_shutting_down.connect
def mover_ends(**_: Any) -> None:
    movers.stop()


__all__ = ["mover_ends"]
