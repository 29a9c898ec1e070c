"""Signs of life: written by worker and beat, read by `selectors/health.py`."""

from __future__ import annotations

import redis

from broker.selectors import pulse


def sign(part: str, who: str) -> None:
    """Say that a part is alive now. Dropped when Redis is away, which health reports by itself."""
    try:
        pulse.connection().set(pulse.key(part), who, ex=pulse.EXPIRES_S)
    except redis.RedisError:
        return
