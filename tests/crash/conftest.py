"""An estate on the instant hypervisor, in a PostgreSQL database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.doubles.instant.world import World
from tests.support.redis import RedisServer, private_redis
from tests.support.scratch import scratch_directory
from tests.support.stack import Stack, database, stack


@dataclass
class Estate:
    """A database and an instant hypervisor's world."""

    stack: Stack
    world: World


@pytest.fixture(scope="session")
def private_server() -> Iterator[RedisServer]:
    with private_redis() as server:
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_directory("crash") as path:
        yield path


@pytest.fixture(scope="session")
def migrated(postgres_url: str, private_server: RedisServer) -> Iterator[str]:
    """Name of a migrated database to copy."""
    name = f"migrated_{uuid4().hex[:12]}"
    with (
        scratch_directory("crash") as folder,
        database(postgres_url, name) as url,
        stack(folder, url, private_server, django_settings="tests.settings"),
    ):
        yield name


@pytest.fixture
def estate(
    folder: Path, postgres_url: str, migrated: str, private_server: RedisServer, django_db_blocker: pytest.Item
) -> Iterator[Estate]:
    world = World.make(folder / "world")
    name = f"crash_{uuid4().hex[:12]}"
    with (
        database(postgres_url, name, template=migrated) as url,
        stack(folder, url, private_server, django_settings="tests.settings", is_migrated=True) as made,
        django_db_blocker.unblock(),  # type: ignore[attr-defined]
        made.rows(),
    ):
        yield Estate(made, world)
    world.close()
