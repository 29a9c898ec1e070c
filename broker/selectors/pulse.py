"""Signs of life of worker, beat and mover in Redis, each with its own expiry. `services/alive.py` writes them."""

from __future__ import annotations

from functools import cache

import redis
from django.conf import settings

EVERY_S = 3.0
EXPIRES_S = 12
PARTS = ("worker", "beat", "mover")


@cache
def connection() -> redis.Redis:
    """A Redis connection that gives up after 0.2 s."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.2, socket_connect_timeout=0.2, retry=None)


def key(part: str) -> str:
    return f"deskyard:alive:{part}"


NEEDS_MOVER = "deskyard:needs:mover"
"""Set while there is a vault: pages ask it here, at the price of no statement."""


def signs() -> dict[str, bool]:
    """Which parts gave a sign of life lately, and whether a mover is needed at all ("needs_mover").

    Raises redis.RedisError when Redis is away.
    """
    names = (*PARTS, "needs_mover")
    found = connection().mget([*(key(part) for part in PARTS), NEEDS_MOVER])
    return {name: bool(sign) for name, sign in zip(names, found, strict=True)}
