"""A real installation on production settings, real KVM hosts in namespaces, a real browser: what journeys are made of.

One installation and one browser serve a whole module. Nothing here is a double of anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser

from tests.journeys.browsers import PASSWORD, Album, Person, chromium
from tests.support.kvm_hosts import KvmHost, KvmHosts
from tests.support.redis import private_redis
from tests.support.scratch import scratch_directory
from tests.support.stack import Stack, database, stack

ADMINISTRATOR = "dana"


@pytest.fixture(scope="module")
def surroundings() -> dict[str, str]:
    """What a journey's installation finds in its environment beside what all of them do."""
    return {}


@pytest.fixture(scope="module")
def installation(
    hosts: list[KvmHost], postgres_url: str, tiny_image: Path, surroundings: dict[str, str]
) -> Iterator[Stack]:
    """Web, worker and beat on an empty database of their own; its only account is Dana's, an administrator.

    It has ended before the hosts are wiped.
    """
    extra = {"DESKYARD_PROBE_IMAGE": str(tiny_image), "DJANGO_SUPERUSER_PASSWORD": PASSWORD, **surroundings}
    with (
        scratch_directory("journey") as folder,
        private_redis() as server,
        database(postgres_url, f"journey_{uuid4().hex[:12]}") as url,
        stack(folder, url, server, extra=extra) as made,
    ):
        made.manage("createsuperuser", "--noinput", "--username", ADMINISTRATOR, "--email", "dana@example.org")
        made.start_all()
        yield made


@pytest.fixture(scope="module")
def hosts(kvm_hosts: KvmHosts) -> Iterator[list[KvmHost]]:
    """Two KVM hosts without machines but the template."""
    taken = kvm_hosts.take(2)
    for host in taken:
        host.wipe()
    yield taken
    for host in kvm_hosts.take(2):
        host.wipe()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def album(request: pytest.FixtureRequest) -> Album:
    return Album(request.path.stem.removeprefix("test_").replace("_", "-"))


@pytest.fixture
def enter(installation: Stack, browser: Browser) -> Iterator[Callable[[str], Person]]:
    """`enter("alice")`: she sits down at a browser of her own, not signed in yet. Pages must not have complained."""
    people: list[Person] = []

    def arrive(name: str) -> Person:
        people.append(Person(browser, installation.url, name))
        return people[-1]

    yield arrive
    for person in people:
        person.leave()
