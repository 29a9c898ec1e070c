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


def signs() -> dict[str, bool]:
    """Which parts gave a sign of life lately. Raises redis.RedisError when Redis is away."""
    found = connection().mget([key(part) for part in PARTS])
    return {part: bool(sign) for part, sign in zip(PARTS, found, strict=True)}
