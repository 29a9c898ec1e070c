"""Hints to the workers that there is something to do. Messages are hints, rows are the truth.

A nudge that can't be delivered is dropped within 0.2 s: the clock finds the row.
"""

from __future__ import annotations

import json
from functools import cache, partial
from uuid import UUID

import redis
import structlog
from celery import current_app
from django.conf import settings
from django.db import transaction
from kombu.exceptions import OperationalError

from broker.selectors.pulse import connection

log = structlog.get_logger()

PUMP = "deskyard.pump"
INVENTORY = "deskyard.inventory"
RECONCILE = "deskyard.reconcile"

LIVE_CHANNEL = "deskyard:live"
"""Where changes are announced to open pages (SSE) and relays."""


@cache
def waiting_connection() -> redis.Redis:
    """A Redis connection that may wait (BLPOP), for pumps."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=40, socket_connect_timeout=1, retry=None)


def _send(task: str, argument: str) -> None:
    """Queue a task unless one for the same thing is queued and not yet taken up."""
    key = f"deskyard:nudge:{task}:{argument}"
    try:
        pipeline = connection().pipeline(transaction=False)
        pipeline.lpush(key, "1")
        pipeline.expire(key, 2)
        if pipeline.execute()[0] == 1:
            current_app.send_task(task, args=[argument], expires=30, retry=False, producer=None, ignore_result=True)
    except (redis.RedisError, OSError, OperationalError) as error:
        log.warning("nudge.dropped", task=task, reason=type(error).__name__)


def nudge(task: str, argument: UUID | str) -> None:
    """Hint once the current transaction has committed; at once outside of one."""
    transaction.on_commit(partial(_send, task, str(argument)))


def taken(task: str, argument: UUID | str) -> None:
    """Whoever takes a hint up says so; hints from now on count again."""
    try:
        connection().delete(f"deskyard:nudge:{task}:{argument}")
    except redis.RedisError:
        return


def wait(task: str, argument: UUID | str, timeout_s: float) -> bool:
    """Sleep until the next hint, at most `timeout_s`. True if there was one. Raises redis.RedisError."""
    return waiting_connection().blpop([f"deskyard:nudge:{task}:{argument}"], timeout=max(timeout_s, 0.05)) is not None


def _announce(payload: str) -> None:
    try:
        connection().publish(LIVE_CHANNEL, payload)
    except redis.RedisError:
        return


def announce(noun: str, **facts: str) -> None:
    """Tell open pages and relays that something of this noun changed, once committed."""
    transaction.on_commit(partial(_announce, json.dumps({"noun": noun, **facts})))
