"""Slows down whoever guesses passwords: counts failures in Redis by account and address. Nothing is locked for good.

Ten wrong passwords for one account from one address, fifty for one account, or a hundred from one address within a
quarter of an hour are answered with "wait" until it is over. While Redis is away, this process counts for itself.
"""

from __future__ import annotations

import hashlib
import time

import redis
import structlog

from broker.selectors.pulse import connection

log = structlog.get_logger()

WINDOW_S = 15 * 60
LIMITS = {"pair": 10, "account": 50, "address": 100}

_own: dict[str, tuple[float, int]] = {}
"""Key -> (when the window ends, failures): only while Redis does not answer."""
OWN_LIMIT = 10_000


def _keys(username: str, address: str) -> dict[str, str]:
    account = hashlib.sha256(username.casefold().encode()).hexdigest()[:24]
    return {
        "pair": f"deskyard:guess:pair:{account}:{address}",
        "account": f"deskyard:guess:account:{account}",
        "address": f"deskyard:guess:address:{address}",
    }


def wait_s(*, username: str, address: str) -> int:
    """How many seconds this account must not be tried from this address; 0 if it may."""
    keys = _keys(username, address)
    try:
        pipeline = connection().pipeline(transaction=False)
        for key in keys.values():
            pipeline.get(key)
            pipeline.ttl(key)
        found = pipeline.execute()
    except redis.RedisError:
        return max(_own_wait(key, LIMITS[what]) for what, key in keys.items())
    counts = zip(keys, found[0::2], found[1::2], strict=True)
    return max(max(int(left), 1) if int(count or 0) >= LIMITS[what] else 0 for what, count, left in counts)


def note_failure(*, username: str, address: str) -> None:
    """A wrong password. The window begins with the first one."""
    keys = _keys(username, address)
    log.warning("sign_in.failed", address=address)
    try:
        pipeline = connection().pipeline(transaction=False)
        for key in keys.values():
            pipeline.incr(key)
            pipeline.expire(key, WINDOW_S, nx=True)
        pipeline.execute()
    except redis.RedisError:
        for key in keys.values():
            _own_note(key)


def note_success(*, username: str, address: str) -> None:
    """The right password: the person's own slips are forgotten, an attack on the account from elsewhere is not."""
    key = _keys(username, address)["pair"]
    _own.pop(key, None)
    try:
        connection().delete(key)
    except redis.RedisError:
        return


def _own_wait(key: str, limit: int) -> int:
    end, count = _own.get(key, (0.0, 0))
    left = end - time.monotonic()
    return int(left) + 1 if left > 0 and count >= limit else 0


def _own_note(key: str) -> None:
    now = time.monotonic()
    if len(_own) > OWN_LIMIT:
        _own.clear()
    end, count = _own.get(key, (0.0, 0))
    _own[key] = (end, count + 1) if end > now else (now + WINDOW_S, 1)
