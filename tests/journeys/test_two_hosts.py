"""Two real KVM hosts in one pool, one of which dies or falls silent: work goes on, and nothing is lost or doubled."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.journeys import console
from tests.journeys.browsers import Album, Person
from tests.journeys.pictures import wait_until_same
from tests.journeys.scripts import Office, Script, open_office
from tests.support.guests import run_in_guest, screenshot
from tests.support.kvm_hosts import KvmHost
from tests.support.stack import Stack, wait_until

NOTICED_S = 60
"""A lost hypervisor, and one that is back, is shown as such within this."""
PAGE_S = 10
"""No page takes longer than this while a hypervisor hangs: far less than any call to it may."""
LIVING, DYING = 0, 1

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def whole_office(installation: Stack, hosts: list[KvmHost]) -> Office:
    names = [f"user{number}" for number in range(8)]
    return open_office(installation, hosts, names, spare=2, maximum=12)


@pytest.fixture
def office(whole_office: Office) -> Iterator[Office]:
    """Both hosts up, one spare desktop on each; afterwards the faults are undone."""
    whole_office.settle()
    yield whole_office
    dying = whole_office.hosts[DYING]
    dying.thaw_libvirtd()
    dying.start_libvirtd()
    for hypervisor in whole_office.hypervisors:
        whole_office.dana.wait_for(f"/hypervisors/{hypervisor}", lambda found: bool(found["status"] == "up"), NOTICED_S)


def give_desktops(office: Office, *names: str) -> dict[int, tuple[Script, str]]:
    """Each user gets a desktop; for each host a user who has one there, and its id."""
    found: dict[int, tuple[Script, str]] = {}
    for script in [Script(office.installation, name) for name in names]:
        desktop = script.gets_a_desktop(office.pool)["desktop"]
        hypervisor = office.dana.get(f"/desktops/{desktop}")["hypervisor"]
        found.setdefault(office.hypervisors.index(hypervisor), (script, desktop))
    assert found.keys() == {LIVING, DYING}, "the pool builds on both"
    return found


def test_a_killed_libvirtd_costs_nobody_a_desktop_and_the_console_says_why(
    office: Office, enter: Callable[[str], Person], album: Album
) -> None:
    users = give_desktops(office, "user0", "user1")
    (near, mine), (far, theirs) = users[LIVING], users[DYING]
    dying = office.hypervisors[DYING]
    worker, neighbour, dana = enter(near.name), enter(far.name), enter("dana")
    worker.sign_in("/")
    worker.go(f"/desktops/{mine}/open/")
    worker.waits_for_the_screen()
    neighbour.sign_in("/")
    neighbour.mark()
    dana.sign_in("/console/")
    dana.go(f"/console/hypervisors/{dying}/")
    dana.mark()

    office.hosts[DYING].kill_libvirtd()
    expect(dana.page.locator(".page__lead .chip")).to_have_text("Down", timeout=NOTICED_S * 1000)
    dana.sees(f"Cannot reach {office.hosts[DYING].address}")
    assert dana.was_not_loaded_again()
    album.take(dana.page, "hypervisor down", "wide", "phone", "dark")
    neighbour.sees("Its host cannot be reached at the moment. We keep trying.")
    neighbour.sees("Out of reach")
    assert neighbour.was_not_loaded_again()
    album.take(neighbour.page, "home with a lost host", "wide", "phone")
    types_and_is_heard(office, worker, mine)

    newcomers = [Script(office.installation, f"user{number}") for number in (2, 3, 4)]
    for newcomer in newcomers:
        newcomer.post("/requests", {"pool": office.pool})
    for newcomer in newcomers:
        desktop = office.dana.get(f"/desktops/{newcomer.gets_a_desktop(office.pool)['desktop']}")
        assert desktop["hypervisor"] == office.hypervisors[LIVING]
    dana.go(f"/console/desktops/{desktop['id']}/")
    dana.sees(re.compile(f"{office.hosts[DYING].name} is down", re.IGNORECASE))
    album.take(dana.page, "why here", "wide", "phone")
    dana.go(f"/console/pools/{office.pool}/")
    expect(dana.page.locator("tr", has_text=office.hosts[DYING].name).locator(".chip").first).to_have_text("Down")
    album.take(dana.page, "pool with a lost host", "wide", "phone")
    dana.visit("Desktops")
    album.take(dana.page, "desktops with a lost host", "wide", "phone")
    dana.visit("Dashboard")
    dana.sees(office.hosts[DYING].name, at=dana.page.locator("section[aria-labelledby=needs-hypervisors]"))
    album.take(dana.page, "dashboard with a lost host", "wide", "phone")

    dana.go(f"/console/hypervisors/{dying}/")
    dana.mark()
    office.hosts[DYING].start_libvirtd()
    expect(dana.page.locator(".page__lead .chip")).to_have_text("Up", timeout=NOTICED_S * 1000)
    assert dana.was_not_loaded_again()
    neighbour.link(re.compile("^Open ")).click()
    neighbour.waits_for_the_screen()
    assert office.dana.get(f"/desktops/{theirs}")["user"] == far.name, "it is still theirs"
    office.settle()
    office.assert_nothing_lost_or_doubled()
    types_and_is_heard(office, worker, mine)
    album.take(dana.page, "hypervisor back")


def types_and_is_heard(office: Office, user: Person, desktop: str) -> None:
    """The screen that the user has had open all the time shows what libvirt sees and takes keys."""
    assert user.page.locator("main.viewer").get_attribute("data-phase") == "open"
    assert len(user.streams) == 1, "it was never opened anew"
    nonce = secrets.token_hex(6)
    conn = office.hosts[LIVING].connect()
    try:
        domain = conn.lookupByUUIDString(office.dana.get(f"/desktops/{desktop}")["machine_id"])
        user.page.locator("#viewer-screen canvas").click()
        user.presses(f"echo {nonce} > /mnt/heard")
        ask = ("/bin/sh", "-c", "cat /mnt/heard 2>/dev/null || true")
        wait_until(lambda: run_in_guest(domain, *ask).strip() == nonce, 60, "the guest heard it")
        wait_until_same(user.canvas, lambda: screenshot(domain))
    finally:
        conn.close()


def test_a_silent_libvirtd_slows_no_page_and_is_said_and_no_order_is_carried_out_twice(
    office: Office, enter: Callable[[str], Person], album: Album
) -> None:
    silent = office.hypervisors[DYING]
    dana, user = enter("dana"), enter("user5")
    dana.sign_in("/console/")
    user.sign_in("/")
    dana.go(f"/console/hypervisors/{silent}/")
    dana.mark()
    office.hosts[DYING].freeze_libvirtd()
    # Wanted at once, while the broker still believes that both answer.
    office.dana.ask("PATCH", f"/pools/{office.pool}", {"spare": 3})
    watch = dana.new_tab()
    slowest = 0.0
    end = time.monotonic() + NOTICED_S
    while not said_to_be_down(dana):
        assert time.monotonic() < end, office.tell()
        for address in ("/console/", f"/console/hypervisors/{silent}/", f"/console/pools/{office.pool}/", "/"):
            begun = time.monotonic()
            watch.goto(address)
            slowest = max(slowest, time.monotonic() - begun)
    assert slowest < PAGE_S
    dana.sees("no answer in time")
    assert dana.was_not_loaded_again()
    album.take(dana.page, "hypervisor silent", "wide", "phone")

    user.button(re.compile("^Request desktop")).click()
    opener = user.link(re.compile("^Open "))
    expect(opener).to_be_visible(timeout=240_000)
    opener.click()
    user.waits_for_the_screen()
    (got,) = [desktop for desktop in office.desktops() if desktop["user"] == "user5"]
    assert got["hypervisor"] == office.hypervisors[LIVING]

    office.hosts[DYING].thaw_libvirtd()
    expect(dana.page.locator(".page__lead .chip")).to_have_text("Up", timeout=NOTICED_S * 1000)
    office.settle()
    office.assert_nothing_lost_or_doubled()
    console.open_desktop(dana, got["name"])
    office.dana.ask("PATCH", f"/pools/{office.pool}", {"spare": 2})


def said_to_be_down(dana: Person) -> bool:
    return dana.page.locator(".page__lead .chip").inner_text().strip() == "Down"
