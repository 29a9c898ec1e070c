"""`/healthz` as a supervisor asks it: 503 while any part is down, and every part judged by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from django.core.cache import cache
from django.db import connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from broker.domain.lifecycle import State
from broker.models import Desktop, Hypervisor
from broker.selectors import pulse
from broker.selectors.health import DEMO_POOLS
from broker.services import alive
from tests.broker.portal.cast import Estate

NOBODY = "redis://127.0.0.1:9/0"
Status = Hypervisor.Status


@pytest.fixture(autouse=True)
def all_well(house: Estate, settings: Settings, redis_url: str) -> Iterator[None]:
    """A worker and a beat are alive, the hypervisor is up, and the demo pool has a ready desktop."""
    settings.REDIS_URL = redis_url
    pulse.connection.cache_clear()
    keys = [pulse.key(part) for part in pulse.PARTS]
    signs = pulse.connection()
    signs.mset(dict.fromkeys(keys, "here"))
    house.make(house.open_pool(DEMO_POOLS[0]))
    yield
    signs.delete(*keys)
    pulse.connection.cache_clear()


PARTS = {"database", "redis", "worker", "beat", "mover", "hypervisor kvm-01", "demo pool"}


def down(client: Client, parts: set[str] = PARTS) -> dict[str, str]:
    """Name -> words of what is down, of exactly these parts; code and status are seen to agree with it."""
    answer = client.get(reverse("healthz"))
    told = answer.json()
    found = {part["name"]: part["words"] for part in told["parts"] if not part["up"]}
    assert {part["name"] for part in told["parts"]} == parts
    assert all(part["words"] for part in told["parts"])
    assert (answer.status_code, told["status"]) == ((503, "down") if found else (200, "up"))
    return found


def test_all_is_well_while_every_part_is_up(client: Client) -> None:
    assert down(client) == {}


@pytest.mark.parametrize(
    ("part", "words"),
    [("worker", "No worker is running: nothing is carried out."), ("beat", "The clock is not running: schedules")],
)
def test_a_process_that_gives_no_sign_of_life_is_down_alone(client: Client, part: str, words: str) -> None:
    pulse.connection().delete(pulse.key(part))
    found = down(client)
    assert found.keys() == {part}
    assert words in found[part]


def test_a_mover_is_missed_only_by_who_replicates(client: Client) -> None:
    pulse.connection().delete(pulse.key("mover"))
    assert down(client, PARTS - {"mover"}) == {}
    alive.need_mover(on=True)
    cache.clear()
    assert down(client)["mover"].startswith("No mover is running")
    alive.need_mover(on=False)
    cache.clear()
    assert down(client, PARTS - {"mover"}) == {}


def test_without_redis_nothing_is_known_of_worker_and_beat_and_the_rest_is_judged(
    client: Client, settings: Settings
) -> None:
    settings.REDIS_URL = NOBODY
    pulse.connection.cache_clear()
    found = down(client, PARTS - {"mover"})
    assert found.keys() == {"redis", "worker", "beat"}
    assert "Redis does not answer (ConnectionError)" in found["redis"]
    assert found["worker"] == found["beat"] == "Unknown while Redis is away."


@pytest.fixture
def database_away() -> Iterator[None]:
    """Connections are made anew, to where no database is; the test's own waits with its transaction."""
    ours = connections["default"]
    lost = ours.copy()
    lost.settings_dict |= {"NAME": "/nowhere/deskyard.sqlite3"} if ours.vendor == "sqlite" else {"PORT": 9}
    connections["default"] = lost
    yield
    connections["default"] = ours


def test_without_a_database_the_processes_are_still_judged(client: Client, database_away: None) -> None:
    found = down(client, {"database", "redis", "worker", "beat", "mover"})
    assert found.keys() == {"database"}
    assert found["database"].startswith("The database does not answer: ")


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (Status.DOWN, "No answer in 10 s. Check the address.", "No answer in 10 s. Check the address."),
        (Status.REFUSED, "It refused account 'deskyard'.", "It refused account 'deskyard'."),
        (Status.DOUBT, "7 of 14 machines are missing.", "7 of 14 machines are missing."),
        (Status.NEW, "", "Not reached yet"),
    ],
)
def test_one_hypervisor_of_two_is_down_alone(
    client: Client, status: Hypervisor.Status, reason: str, words: str
) -> None:
    Hypervisor.objects.create(
        name="kvm-02", kind="kvm", status=status, status_reason=reason, status_since=timezone.now()
    )
    assert down(client, PARTS | {"hypervisor kvm-02"}) == {"hypervisor kvm-02": words}


def test_a_demo_pool_without_a_ready_desktop_is_down_alone(client: Client) -> None:
    Desktop.objects.filter(pool__name=DEMO_POOLS[0]).update(state=State.ASSIGNED)
    assert down(client) == {"demo pool": "No desktop is ready yet."}


def test_a_page_that_doubts_hears_from_whoever_serves_it_whatever_is_down(
    client: Client, django_assert_num_queries: Callable[[int], AbstractContextManager[object]]
) -> None:
    """Not by `/healthz`: its 503 would be an error in the browser, though pages are served."""
    Hypervisor.objects.update(status=Status.DOWN)
    assert client.get(reverse("healthz")).status_code == 503
    with django_assert_num_queries(0):
        answer = client.get(reverse("alive"))
    assert (answer.status_code, answer.headers["Cache-Control"]) == (204, "no-store")
    assert f'data-url="{reverse("alive")}"' in client.get(reverse("portal:sign-in")).content.decode()
