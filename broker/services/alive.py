"""Signs of life in Redis, each with its own expiry. Read by `selectors/health.py`."""

from __future__ import annotations

import redis

from broker.services import nudges

EVERY_S = 3.0
EXPIRES_S = 12
KEY = "deskyard:alive:{part}"


def sign(part: str, who: str) -> None:
    """Say that a part is alive now. Dropped when Redis is away, which health reports by itself."""
    try:
        nudges.connection().set(KEY.format(part=part), who, ex=EXPIRES_S)
    except redis.RedisError:
        return
