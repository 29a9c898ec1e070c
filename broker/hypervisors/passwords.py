"""Passwords for accounts in guests: random, and of a shape that guests' policies take."""

from __future__ import annotations

import secrets

RANDOM_BYTES = 24
"""Drawn for each: 32 characters of letters, digits, - and _."""


def fresh() -> str:
    """A password that was never anybody's, with a small letter, a capital and a digit, as Windows' policy wants it."""
    while True:
        password = secrets.token_urlsafe(RANDOM_BYTES)
        if is_mixed(password):
            return password


def is_mixed(password: str) -> bool:
    return all(any(map(kind, password)) for kind in (str.islower, str.isupper, str.isdigit))
