"""Signs of life: written by worker and beat, read by `selectors/health.py`."""

from __future__ import annotations

import redis

from broker.selectors import pulse


def need_mover(*, on: bool) -> None:
    """Whether a mover that does not run is to be missed. Said anew every minute, should Redis forget it."""
    try:
        if on:
            pulse.connection().set(pulse.NEEDS_MOVER, "1")
        else:
            pulse.connection().delete(pulse.NEEDS_MOVER)
    except redis.RedisError:
        return


def sign(part: str, who: str) -> None:
    """Say that a part is alive now. Dropped when Redis is away, which health reports by itself."""
    try:
        pulse.connection().set(pulse.key(part), who, ex=pulse.EXPIRES_S)
    except redis.RedisError:
        return
