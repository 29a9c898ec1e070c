"""What every bench stands on: a PostgreSQL as Debian sets it up, a Redis, a migrated schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.postgres import SETTINGS, private_postgres
from tests.support.redis import RedisServer, private_redis
from tests.support.scratch import scratch_directory

AS_IN_PRODUCTION = {
    **SETTINGS,
    # A claim counts once it would survive a power cut.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_utility": "off",
    "pg_stat_statements.track": "top",
}


@dataclass(frozen=True, slots=True)
class Ground:
    database_url: str
    redis: RedisServer
    folder: Path
    """The installation's own data directory."""
    is_small: bool = False
    """Only what can be counted, on smaller estates: for the tests that pin counts."""


@contextmanager
def broker_ready(*, is_small: bool = False) -> Iterator[Ground]:
    """Django is set up on fresh servers while the block lasts; child processes find them by the environment."""
    with (
        private_postgres(AS_IN_PRODUCTION) as database_url,
        private_redis() as redis,
        scratch_directory("bench") as data,
    ):
        os.environ.update(
            DJANGO_SETTINGS_MODULE="tests.settings",
            DESKYARD_DATA=str(data),
            DESKYARD_LOG_LEVEL="WARNING",
            DATABASE_URL=database_url,
            REDIS_URL=redis.url,
        )
        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        call_command("migrate", verbosity=0)
        with connections["default"].cursor() as cursor:
            cursor.execute("CREATE EXTENSION pg_stat_statements")
        try:
            yield Ground(database_url, redis, data, is_small)
        finally:
            connections.close_all()
