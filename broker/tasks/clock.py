"""The clock's tasks: ticks that expire. A lost tick loses nothing."""

from __future__ import annotations

from celery import shared_task

from broker.services import clock, housekeeping
from broker.tasks.database import with_database


@shared_task(name="deskyard.tick")
@with_database
def tick() -> None:
    clock.tick()


@shared_task(name="deskyard.housekeeping")
@with_database
def tidy() -> None:
    housekeeping.tidy()
