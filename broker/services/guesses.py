"""Slows down whoever guesses passwords or tickets: counts failures in Redis by account and address. Nothing is locked
for good.

Ten wrong passwords for one account from one address, fifty for one account, or a hundred from one address within a
quarter of an hour are answered with "wait" until it is over. While Redis is away, this process counts for itself.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time

import redis
import structlog

from broker.selectors.pulse import connection

log = structlog.get_logger()

WINDOW_S = 15 * 60
LIMITS = {"pair": 10, "account": 50, "address": 100}
TICKET_LIMIT = 30
"""Tickets that are not good, from one address: guessing one is hopeless, so this is against noise."""

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


def ticket_wait_s(*, address: str) -> int:
    """How many seconds no ticket is taken from this address; 0 if one is."""
    key = _ticket_key(address)
    try:
        pipeline = connection().pipeline(transaction=False)
        pipeline.get(key)
        pipeline.ttl(key)
        count, left = pipeline.execute()
    except redis.RedisError:
        return _own_wait(key, TICKET_LIMIT)
    return max(int(left), 1) if int(count or 0) >= TICKET_LIMIT else 0


def note_bad_ticket(*, address: str) -> int:
    """A ticket that is not good. Returns the how manieth it is of its address in the window."""
    key = _ticket_key(address)
    try:
        pipeline = connection().pipeline(transaction=False)
        pipeline.incr(key)
        pipeline.expire(key, WINDOW_S, nx=True)
        count, _ = pipeline.execute()
    except redis.RedisError:
        return _own_note(key)
    return int(count)


def _ticket_key(address: str) -> str:
    """Whoever has one address of IPv6 has the other 2^64 of its network too."""
    found = ipaddress.ip_address(address)
    net = str(ipaddress.IPv6Network((int(found), 64), strict=False)) if found.version == 6 else address
    return f"deskyard:guess:ticket:{net}"


def _own_wait(key: str, limit: int) -> int:
    end, count = _own.get(key, (0.0, 0))
    left = end - time.monotonic()
    return int(left) + 1 if left > 0 and count >= limit else 0


def _own_note(key: str) -> int:
    now = time.monotonic()
    if len(_own) > OWN_LIMIT:
        _own.clear()
    end, count = _own.get(key, (0.0, 0))
    _own[key] = (end, count + 1) if end > now else (now + WINDOW_S, 1)
    return _own[key][1]
