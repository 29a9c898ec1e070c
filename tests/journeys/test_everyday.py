"""What happens on an ordinary day at one real host: scripts, power, forged tickets, and forms filled in wrongly."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import libvirt
import pytest
from playwright.sync_api import Route, expect
from websockets.exceptions import InvalidStatus

from tests.journeys import console
from tests.journeys.browsers import Album, Person
from tests.journeys.pictures import wait_until_same
from tests.journeys.scripts import GROUP, Office, Rfb, Script, open_office
from tests.support.guests import screenshot
from tests.support.kvm_hosts import KvmHost
from tests.support.prerequisites import free_port
from tests.support.stack import Stack, wait_until

SAID_S = 60
"""What is wrong with a hypervisor stands on its page within this."""

MORE_POOLS = (
    ("Design studio", "studio-##", "More memory for drawings. Stays yours until you give it back."),
    ("Training room", "training-##", "A fresh desktop for every lesson."),
)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def office(installation: Stack, hosts: list[KvmHost]) -> Office:
    made = open_office(
        installation, hosts[:1], ["alice", "bob", "erin"], spare=1, maximum=4, description="Letters, tables and mail."
    )
    members = [{"copy_id": member["copy_id"]} for member in made.dana.get(f"/pools/{made.pool}")["members"]]
    for name, naming, description in MORE_POOLS:
        wish = {"name": name, "naming": naming, "description": description, "members": members, "spare": 0}
        made.dana.post("/entitlements", {"pool": made.dana.post("/pools", wish)["id"], "group": GROUP})
    made.settle()
    return made


# --- scripts ---------------------------------------------------------------------------------------------------------


def test_a_script_asks_for_a_desktop_sees_its_screen_switches_it_and_gives_it_back(office: Office) -> None:
    alice = Script(office.installation, "alice")
    request = alice.gets_a_desktop(office.pool)
    desktop = f"/desktops/{request['desktop']}"
    again = alice.ask("POST", "/requests", {"pool": office.pool})
    assert (again[0], again[1]["id"]) == (200, request["id"])

    opening = alice.post(f"{desktop}/connect", {"protocol": "vnc"}, status=200)
    assert opening["url"].startswith("ws://127.0.0.1:")
    with alice.open(opening) as socket:
        assert Rfb(socket).signs_in() == (720, 400)

    machine = office.dana.get(desktop)["machine_id"]
    for action, state in (
        ("suspend", libvirt.VIR_DOMAIN_PAUSED),
        ("resume", libvirt.VIR_DOMAIN_RUNNING),
        ("reboot", libvirt.VIR_DOMAIN_RUNNING),
        ("reset", libvirt.VIR_DOMAIN_RUNNING),
        ("off", libvirt.VIR_DOMAIN_SHUTOFF),
        ("on", libvirt.VIR_DOMAIN_RUNNING),
    ):
        ended = alice.orders(f"{desktop}/power", {"action": action})
        assert ended["action"] == action
        assert state_of(office.hosts[0], machine) == state, action
    alice.wait_for(desktop, lambda found: bool(found["is_answering"]))
    alice.orders(f"{desktop}/power", {"action": "shutdown"})
    assert state_of(office.hosts[0], machine) == libvirt.VIR_DOMAIN_SHUTOFF

    status, problem = alice.ask("POST", f"{desktop}/connect", {"protocol": "vnc"})
    assert status == 409, "it is off, so it is started first"
    alice.wait_for(f"/operations/{problem['operation']['id']}", lambda found: bool(found["state"] == "done"))
    alice.wait_for(desktop, lambda found: bool(found["power"] == "on"))
    with alice.open(alice.post(f"{desktop}/connect", {"protocol": "vnc"}, status=200)) as socket:
        assert Rfb(socket).signs_in() == (720, 400)

    alice.orders(f"{desktop}/release")
    assert alice.get(f"/requests/{request['id']}")["state"] == "ended"
    assert alice.ask("GET", desktop)[0] == 404
    office.settle()
    office.assert_nothing_lost_or_doubled()


def state_of(host: KvmHost, machine: str) -> int:
    """libvirt's own word."""
    conn = host.connect()
    try:
        state: int = conn.lookupByUUIDString(machine).state()[0]
        return state
    finally:
        conn.close()


def test_a_ticket_opens_one_screen_once_from_our_pages_for_who_asked(office: Office) -> None:
    erin = Script(office.installation, "erin")
    request = erin.gets_a_desktop(office.pool)

    def opening() -> Any:
        return erin.post(f"/desktops/{request['desktop']}/connect", {"protocol": "vnc"}, status=200)

    fresh = opening()
    for origin in ("http://evil.example", "null", f"{office.installation.url}.evil.example", None):
        assert refusal(erin, fresh, origin=origin) == 403, origin
    binary, ticket = fresh["subprotocols"]
    for forged in (ticket[:-3] + "AAA", "ticket.", "ticket." + "A" * 43):
        assert refusal(erin, {**fresh, "subprotocols": [binary, forged]}) == 403, forged
    assert refusal(erin, {**fresh, "subprotocols": [binary]}) == 403
    with erin.open(fresh) as socket:
        screen = Rfb(socket).signs_in()
        assert refusal(erin, fresh) == 403, "a ticket serves once"
        socket.send(b"\x03\x00" + bytes(4) + b"".join(size.to_bytes(2, "big") for size in screen))
        assert socket.recv(timeout=60), "the open screen goes on"
    erin.orders(f"/desktops/{request['desktop']}/release")


def refusal(script: Script, opening: Any, *, origin: str | None = "") -> int:
    with pytest.raises(InvalidStatus) as refused, script.open(opening, origin=origin):
        pass
    return refused.value.response.status_code


# --- power -----------------------------------------------------------------------------------------------------------


def test_a_desktop_that_its_user_switched_off_starts_by_itself_when_it_is_opened(
    office: Office, enter: Callable[[str], Person], album: Album
) -> None:
    bob = enter("bob")
    bob.sign_in("/")
    bob.button("Request desktop Office Linux").click()
    tile = bob.page.locator(".portal-tile", has=bob.link(re.compile("^Open ")))
    expect(tile.locator(".chip")).to_have_text("Ready", timeout=240_000)
    name = tile.locator("p.soft").first.inner_text()
    bob.button("Request desktop Design studio").click()
    bob.sees("Your request is in the queue.")
    bob.sees("You are next in line.")
    bob.closes_messages()
    album.take(bob.page, "home with a request", "wide", "phone", "dark")
    bob.button("Cancel request").click()
    bob.sees("Your request was cancelled.")
    (desktop,) = [found for found in office.desktops() if found["name"] == name]
    tile.locator("summary").click()
    tile.get_by_role("link", name="Power off").click()
    bob.sees("This pulls the plug")
    album.take(bob.page, "power off asked", "wide", "phone", whole=False)
    bob.button("Power off").click()
    tile = bob.page.locator(".portal-tile", has_text=name)
    expect(tile.locator(".chip")).to_have_text("Switched off")
    assert state_of(office.hosts[0], desktop["machine_id"]) == libvirt.VIR_DOMAIN_SHUTOFF
    album.take(bob.page, "switched off", "wide", "phone", "dark")

    tile.get_by_role("link", name="Start").click()
    bob.sees("Starting your desktop…")
    album.take(bob.page, "starting", "wide", "phone", whole=False)
    bob.waits_for_the_screen()
    with ExitStack() as stack:
        conn = office.hosts[0].connect()
        stack.callback(conn.close)
        domain = conn.lookupByUUIDString(desktop["machine_id"])
        wait_until_same(bob.canvas, lambda: screenshot(domain), limit_s=60)
    bob.page.get_by_text("Power", exact=True).click()
    expect(bob.link("Restart")).to_be_visible()
    expect(bob.button("Switch on")).to_have_count(0)
    album.take(bob.page, "menu on the screen", "wide", "phone", whole=False)
    bob.link("Release").click()
    bob.button("Release and delete my files").click()
    expect(bob.page).to_have_url(f"{bob.url}/")
    bob.button("Request desktop Office Linux").wait_for()


# --- live pages ------------------------------------------------------------------------------------------------------


def test_a_page_shows_what_changed_before_its_stream_stood(office: Office, enter: Callable[[str], Person]) -> None:
    """Between a page's making and its stream nobody hears of a change, and it is announced only once."""
    dana = enter("dana")
    dana.sign_in("/console/")  # an open page, so that the server listens already
    expect(dana.page.get_by_text("Live", exact=True)).to_be_visible()
    tab = dana.new_tab()

    def change_first(route: Route) -> None:
        office.dana.ask("PATCH", f"/pools/{office.pool}", {"description": "Changed meanwhile."})
        route.continue_()

    tab.route("**/console/live/", change_first)
    tab.goto(f"/console/pools/{office.pool}/")
    expect(tab.locator("main")).to_contain_text("Changed meanwhile.")
    office.dana.ask("PATCH", f"/pools/{office.pool}", {"description": "Letters, tables and mail."})


# --- forms filled in wrongly -----------------------------------------------------------------------------------------


def wrong_password(host: KvmHost) -> dict[str, str]:
    return {"Password": "Tr0ub4dor&3"}


def wrong_authority(host: KvmHost) -> dict[str, str]:
    return {"CA certificate": (host.stranger_pki / "cacert.pem").read_text()}


def nobody_listens(host: KvmHost) -> dict[str, str]:
    return {"Port": str(free_port())}


def nobody_is_there(host: KvmHost) -> dict[str, str]:
    return {"Address": re.sub(r"\d+$", "99", host.address)}


def no_such_name(host: KvmHost) -> dict[str, str]:
    return {"Address": "kvm-99.invalid"}


@pytest.mark.parametrize(
    ("mistake", "status", "words"),
    [
        (wrong_password, "Sign-in refused", "Check user, password and key."),
        (wrong_authority, "Sign-in refused", "certificate or key is one you trust"),
        (nobody_listens, "Down", "Cannot reach"),
        (nobody_is_there, "Down", "Cannot reach"),
        (no_such_name, "Down", "Cannot reach kvm-99.invalid"),
    ],
)
def test_a_hypervisor_that_cannot_be_used_says_why_and_leaves_nothing_behind(
    mistake: Callable[[KvmHost], dict[str, str]],
    status: str,
    words: str,
    office: Office,
    enter: Callable[[str], Person],
    album: Album,
) -> None:
    host, what = office.hosts[0], mistake.__name__.replace("_", " ")
    name = f'<b>"{what}"</b> ../ü'
    key = f"{what}\n{(host.client_pki / 'clientkey.pem').read_text()}"
    typed = {"Client key": key, **mistake(host)}
    before = probes(host)
    dana = enter("dana")
    dana.sign_in("/console/")
    console.open_hypervisor_form(dana)
    console.fill_in_hypervisor(dana, name, host, **typed)
    console.connect(dana)
    expect(dana.page.locator(".page__lead .chip")).to_have_text(status, timeout=SAID_S * 1000)
    dana.sees(words)
    assert dana.was_not_loaded_again()
    album.take(dana.page, what, "wide", "phone")
    assert all(secret not in dana.page.content() for secret in ("BEGIN PRIVATE", typed.get("Password", "Tr0ub")))

    dana.page.locator("#acts summary").click()
    dana.link("Remove").click()
    dana.page.get_by_label(re.compile("to confirm")).fill(name)
    dana.button("Remove it").click()
    dana.sees(f"{name} was removed.")
    expect(dana.page.get_by_role("link", name=name, exact=True)).to_have_count(0)
    assert probes(host) == before
    # Its page asked for news of it once more before the browser had left it.
    dana.forgives("Response Status Error Code 404 from /console/hypervisors/")
    wait_until(lambda: not key_files(office.installation.folder, what), 60, "its keys are removed from the disk")


def probes(host: KvmHost) -> set[str]:
    """What is made on a host when it is registered: a guest to be tried, and its files."""
    conn = host.connect()
    try:
        names = {domain.name() for domain in conn.listAllDomains()} | {path.name for path in host.images.iterdir()}
    finally:
        conn.close()
    return {name for name in names if "probe" in name}


def key_files(folder: Path, mark: str) -> list[Path]:
    """Files with that key in clear; there are some only while a connection is tried."""
    found = []
    for file in folder.rglob("clientkey.pem"):
        with suppress(FileNotFoundError):
            found += [file] if mark in file.read_text() else []
    return found


NAMES = {
    "quotes": 'Robert\'); DROP TABLE "pools";--',
    "a path": "../../etc/passwd",
    "markup": "<script>alert(1)</script>{{ 7|add:7 }}",
    "other scripts": "Büro №5 · 事務所 · مكتب",
}
LONG, BROKEN = "x" * 300, "two\nlines"


def test_odd_names_are_shown_as_they_are_and_impossible_ones_refused_in_words(
    office: Office, enter: Callable[[str], Person], album: Album
) -> None:
    dana = enter("dana")
    dana.sign_in("/console/")
    for name in NAMES.values():
        console.create_template_without_copy(dana, name)
        dana.visit("Templates")
        expect(dana.page.get_by_role("link", name=name, exact=True)).to_be_visible()
    album.take(dana.page, "odd names", "wide", "phone")
    for number, name in enumerate([NAMES["quotes"], NAMES["markup"]]):
        console.open_pool_form(dana)
        console.fill_in_pool(dana, name, f"odd-{number}-####", spare=0, maximum=1)
        dana.button("Review").click()
        dana.button("Create the pool").click()
        expect(dana.page.get_by_role("heading", level=1, name=name, exact=True)).to_be_visible()
    dana.visit("Pools")
    album.take(dana.page, "pools with odd names", "wide", "phone")

    assert refused(dana, "/console/templates/add/", name=LONG).startswith("Ensure this value has at most 100")
    assert refused(dana, "/console/templates/add/", name=BROKEN).startswith("Only printable characters on one line")
    assert refused(dana, "/console/hypervisors/add/kvm/", name=LONG).startswith("Ensure this value has at most 100")
    assert refused(dana, "/console/hypervisors/add/kvm/", name=BROKEN, setting_uri="x").startswith("Only printable")
    assert refused(dana, "/console/people/groups/add/", name=BROKEN).startswith("Only printable characters")
    console.open_pool_form(dana)
    console.fill_in_pool(dana, "Never", "", spare=0, maximum=1)
    for naming in ("../##", "office", "of fice-##", "büro-##", "a'b-##", f"{LONG}-##", "##-##"):
        dana.field("Naming pattern").fill(naming)
        with dana.page.expect_navigation():
            dana.button("Review").click()
        said = dana.page.locator("#id_naming-error").inner_text()
        assert len(said) > 15, naming
    album.take(dana.page, "a wrong pattern", "wide", "phone")
    assert "Never" not in str(office.dana.items("/pools"))


def refused(dana: Person, address: str, **sent: str) -> str:
    """The first fault that the page says of a form sent past its own checks, as a program would."""
    token = dana.page.evaluate('JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"]')
    answer = dana.context.request.post(
        f"{dana.url}{address}", form={"csrfmiddlewaretoken": token, **sent}, headers={"Referer": dana.url}
    )
    assert answer.status == 422, address
    found = re.search(r'class="field__error">.*?<span>(.*?)</span>', answer.text(), re.DOTALL)
    assert found, answer.text()
    return found.group(1)
