"""Hints to the workers that there is something to do. Messages are hints, rows are the truth.

A nudge that can't be delivered is dropped within 0.2 s: the clock finds the row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
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
SCHEDULE = "deskyard.schedule"
MOVE = "deskyard.move"
FAILOVER = "deskyard.failover"
PUBLICATION = "deskyard.publication"
LEASE = "deskyard.lease"
MAIL = "deskyard.mail"
SESSIONS = "deskyard.sessions"
READINESS = "deskyard.readiness"

PENDING_S = 2
"""A hint that nobody has taken up for so long is given again."""

LIVE_CHANNEL = "deskyard:live"
"""Where changes are announced to open pages (SSE) and relays."""


@cache
def waiting_connection() -> redis.Redis:
    """A Redis connection that may wait (BLPOP), for pumps."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=40, socket_connect_timeout=1, retry=None)


@dataclass
class Hints:
    """What one transaction has to say once it has committed: all of it in one exchange with Redis."""

    nudges: list[tuple[str, str]] = field(default_factory=list)
    """(task, argument)"""
    announcements: list[str] = field(default_factory=list)

    def __call__(self) -> None:
        _deliver(self)


def _deliver(hints: Hints) -> None:
    """Queue each task unless one for the same thing is queued and not yet taken up; publish the announcements."""
    wanted = list(dict.fromkeys(hints.nudges))
    try:
        pipeline = connection().pipeline(transaction=False)
        for task, argument in wanted:
            pipeline.lpush(_key(task, argument), "1")
            # Counted from the first hint: one that was lost on its way to the worker must not be kept alive by those
            # that follow it, or nothing would ever be sent again.
            pipeline.expire(_key(task, argument), PENDING_S, nx=True)
        for payload in dict.fromkeys(hints.announcements):
            pipeline.publish(LIVE_CHANNEL, payload)
        lengths = pipeline.execute()[: 2 * len(wanted) : 2]
        for (task, argument), length in zip(wanted, lengths, strict=True):
            if length == 1:
                current_app.send_task(task, args=[argument], expires=30, retry=False, producer=None, ignore_result=True)
    except (redis.RedisError, OSError, OperationalError, ValueError) as error:
        # ValueError: redis-py reads on from a buffer that another thread has closed with its broken connection. The
        # rows are committed, so whoever asked must not be told that it failed.
        if wanted:
            log.warning("nudge.dropped", tasks=sorted({task for task, _ in wanted}), reason=type(error).__name__)


def _key(task: str, argument: UUID | str) -> str:
    return f"deskyard:nudge:{task}:{argument}"


def _say(nudges: list[tuple[str, str]], announcements: list[str]) -> None:
    """Add to what the current transaction says; at once outside of one. What is rolled back says nothing."""
    database = transaction.get_connection()
    here = set(database.savepoint_ids)
    for savepoints, hook, _ in database.run_on_commit:
        if isinstance(hook, Hints) and savepoints == here:
            hook.nudges += nudges
            hook.announcements += announcements
            return
    transaction.on_commit(Hints(nudges, announcements))


def nudge(task: str, argument: UUID | str) -> None:
    """Hint once the current transaction has committed; at once outside of one."""
    _say([(task, str(argument))], [])


def taken(task: str, argument: UUID | str) -> None:
    """Whoever takes a hint up says so; hints from now on count again."""
    try:
        connection().delete(_key(task, argument))
    except redis.RedisError:
        return


def wait(task: str, argument: UUID | str, timeout_s: float) -> bool:
    """Sleep until the next hint, at most `timeout_s`. True if there was one. Raises redis.RedisError."""
    return waiting_connection().blpop([_key(task, argument)], timeout=max(timeout_s, 0.05)) is not None


def announce(noun: str, **facts: str) -> None:
    """Tell open pages and relays that something of this noun changed, once committed."""
    _say([], [json.dumps({"noun": noun, **facts})])
