"""Who leaves a desktop alone is told, disconnected, told, logged off; and the next gets it with a fresh disk.

The hosts are real libvirt hosts and the streams real ones. Where nothing but time has to pass it is moved in the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.journeys.browsers import Album, Person
from tests.journeys.scripts import Office, open_office
from tests.support.guests import guest_file_exists, log_on, run_in_guest
from tests.support.kvm_hosts import KvmHost
from tests.support.stack import Stack, wait_until

pytestmark = pytest.mark.timeout(900)

MINUTES = """
from datetime import timedelta
from broker.models import DesktopSession
for row in DesktopSession.objects.filter(ended_at=None):
    for name in ("began_at", "state_since", "input_at", "closed_at", "warned_for", "warned_at", "next_at"):
        if at := getattr(row, name):
            setattr(row, name, at - timedelta(minutes={minutes}))
    row.save()
"""


@pytest.fixture(scope="module")
def office(installation: Stack, hosts: list[KvmHost]) -> Office:
    made = open_office(installation, hosts[:1], ["alice", "bob"], spare=2, maximum=2)
    timers = {"idle_min": 1, "disconnected_min": 60}
    assert made.dana.ask("PATCH", f"/pools/{made.pool}", timers)[0] == 200
    made.settle()
    return made


@contextmanager
def machine_of(office: Office, desktop: Any) -> Iterator[Any]:
    """Behind the broker's back."""
    conn = office.hosts[0].connect()
    try:
        yield conn.lookupByUUIDString(desktop["machine_id"])
    finally:
        conn.close()


def let_time_pass(office: Office, minutes: int) -> None:
    office.installation.manage("shell", "-c", MINUTES.format(minutes=minutes))


def takes_a_desktop(office: Office, person: Person) -> Any:
    """They ask for one, open it, and see it."""
    person.sign_in("/")
    person.button(re.compile("^Request desktop Office Linux")).click()
    tile = person.page.locator(".portal-tile", has=person.link(re.compile("^Open ")))
    name = tile.locator("p.soft").first.inner_text()
    tile.get_by_role("link", name=re.compile("^Open ")).click()
    person.waits_for_the_screen()
    (desktop,) = [found for found in office.desktops() if found["name"] == name]
    return desktop


def session_of(office: Office, desktop: Any, user: str, state: str = "") -> Any:
    """The one that this user has there, or had, with a state; others may have had the desktop before."""
    wanted = f"&state={state}" if state else ""
    found = office.dana.items(f"/sessions?desktop={desktop['id']}{wanted}")
    (theirs,) = [one for one in found if one["user"] == user]
    return theirs


def test_who_leaves_it_alone_is_told_and_ended_and_the_next_gets_a_fresh_disk(
    office: Office, enter: Callable[[str], Person], album: Album
) -> None:
    alice, dana = enter("alice"), enter("dana")
    desktop = takes_a_desktop(office, alice)
    with machine_of(office, desktop) as domain:
        run_in_guest(domain, "/bin/sh", "-c", "echo secret > /mnt/diary")
    dana.sign_in("/console/sessions/")
    dana.sees("alice")
    dana.sees("Connected")

    # A minute without a key, by the relay's own clock.
    alice.sees("Nothing was typed or moved in it for a while", within_s=60)
    album.take(alice.page, "it is about to close", "wide", "phone", whole=False)
    # A picture for the phone moves the page under the mouse, and that counts as somebody there.
    alice.sees("Nothing was typed or moved for a long time.", within_s=180)
    album.take(alice.page, "it was closed", "wide", "phone", "dark", whole=False)
    dana.sees("Disconnected")
    album.take(dana.page, "sessions", "wide", "phone", "dark")
    alice.go("/screens/")
    alice.sees("given back, with all that lies on it deleted")
    album.take(alice.page, "my sessions", "wide", "phone", "dark")

    let_time_pass(office, 56)
    alice.page.locator("#bell").click()
    alice.sees(f"{desktop['name']} is taken back at")
    assert session_of(office, desktop, "alice")["state"] == "disconnected"
    let_time_pass(office, 5)
    is_recycled(office, desktop)
    alice.go("/")
    alice.button(re.compile("^Request desktop Office Linux")).wait_for()
    assert session_of(office, desktop, "alice", "logged_off")["reason"] == "Nobody came back to it in time."
    (fresh,) = [found for found in office.desktops() if found["id"] == desktop["id"]]
    with machine_of(office, fresh) as domain:
        assert not guest_file_exists(domain, "/mnt/diary")
    office.assert_nothing_lost_or_doubled()


def test_who_logs_off_in_the_guest_and_closes_the_page_has_given_it_back(
    office: Office, enter: Callable[[str], Person]
) -> None:
    """The guest's agent has shown its user, and then, twice, nobody."""
    bob = enter("bob")
    desktop = takes_a_desktop(office, bob)
    with machine_of(office, desktop) as domain:
        log_on(domain, "bob")
        told_of_bob = "the guest told of bob"
        wait_until(lambda: session_of(office, desktop, "bob")["logged_on"] == "bob", 60, told_of_bob, office.tell)
        log_on(domain)
        bob.link("My desktops").click()
        expect(bob.page).to_have_url(f"{bob.url}/")
    is_recycled(office, desktop)
    assert session_of(office, desktop, "bob", "logged_off")["reason"] == "Its user logged off."
    office.assert_nothing_lost_or_doubled()


def is_recycled(office: Office, desktop: Any) -> None:
    """It is another epoch, and ready for whoever comes."""

    def has_gone_round() -> bool:
        (found,) = [one for one in office.desktops() if one["id"] == desktop["id"]]
        return bool(found["epoch"] > desktop["epoch"] and found["state"] == "ready")

    wait_until(has_gone_round, 240, f"{desktop['name']} is ready for the next", office.tell, pause_s=0.5)
    office.settle()
