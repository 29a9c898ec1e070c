"""Secrets at rest: encrypted with Fernet keys, newest first, so that keys can be rotated.

Nothing here logs, and nothing outside `broker/hypervisors` and the services that store a secret calls it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class SecretsLocked(RuntimeError):
    """None of the configured keys opens this secret."""


def _keys() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.VAULT_KEYS])


def seal(secrets: Mapping[str, str | int]) -> bytes:
    """Encrypt a small mapping with the newest key."""
    return _keys().encrypt(json.dumps(dict(secrets)).encode())


def unseal(sealed: bytes | memoryview[int]) -> dict[str, str]:
    """The mapping again; an empty one for nothing. Raises `SecretsLocked`."""
    if not sealed:
        return {}
    with _told_if_locked():
        opened: dict[str, str] = json.loads(_keys().decrypt(bytes(sealed)))
    return opened


def reseal(sealed: bytes | memoryview[int]) -> bytes:
    """The same secrets under the newest key. Raises `SecretsLocked`."""
    with _told_if_locked():
        return _keys().rotate(bytes(sealed)) if sealed else b""


@contextmanager
def _told_if_locked() -> Iterator[None]:
    try:
        yield
    except InvalidToken:
        raise SecretsLocked(
            "The secrets were encrypted with a key that is not configured. Restore DESKYARD_VAULT_KEYS."
        ) from None
