"""Fixtures that every test may ask for. Each is lazy, lasts for the run, and fails (never skips) where the machine lacks a part.

Sockets are closed except loopback, UNIX sockets and the laboratory's own networks (10.77.0.0/16): `--allow-hosts` in
pyproject.toml. Django's fixtures stand in the conftest files of the folders that need them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.prerequisites import MissingPrerequisite


@contextmanager
def _clear_errors() -> Iterator[None]:
    """A missing prerequisite is an error of one line instead of a stack trace."""
    try:
        yield
    except MissingPrerequisite as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """DATABASE_URL of a private PostgreSQL cluster."""
    from tests.support.postgres import private_postgres

    with _clear_errors(), private_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """REDIS_URL of a private server. A test that kills its server takes `tests.support.redis.private_redis` instead."""
    from tests.support.redis import private_redis

    with _clear_errors(), private_redis() as server:
        yield server.url
