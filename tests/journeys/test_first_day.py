"""From an empty installation to a second user on the first user's desktop: the whole way, through pages only."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libvirt
import pytest
from playwright.sync_api import expect

from tests.journeys import console
from tests.journeys.browsers import Album, Person
from tests.journeys.pictures import CURSOR, difference, lit, wait_until_same, wait_until_still
from tests.support.guests import guest_file_exists, run_in_guest, screenshot
from tests.support.kvm_hosts import KvmHost
from tests.support.stack import wait_until

FILLED_S = 240
"""Emulated guests boot on a busy machine."""


@contextmanager
def machine(host: KvmHost, uuid: str) -> Iterator[Any]:
    """The desktop's machine, behind the broker's back."""
    conn = host.connect()
    try:
        yield conn.lookupByUUIDString(uuid)
    finally:
        conn.close()


def golden_hash(host: KvmHost) -> str:
    """Of every file of the template's disk."""
    files = sorted(host.images.glob(f"{host.template_name}-*"))
    assert files
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def disk_of(domain: Any) -> str:
    """Path of the file that holds what the user writes."""
    found = re.search(r"<source file='([^']+\.qcow2)'", domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    assert found
    return found.group(1)


def is_linked_clone(host: KvmHost, domain: Any) -> bool:
    """Its disk holds only what differs from the template's image."""
    image = disk_of(domain.connect().lookupByName(host.template_name))
    return bool(host.image_info(disk_of(domain)).get("backing-filename") == image)


def require_linked_clones(host: KvmHost, count: int) -> None:
    """That many machines stand beside the template, and hang from its image."""
    conn = host.connect()
    try:
        desktops = [domain for domain in conn.listAllDomains() if domain.name() != host.template_name]
        assert len(desktops) == count
        assert all(is_linked_clone(host, domain) for domain in desktops)
    finally:
        conn.close()


@pytest.mark.timeout(1200)
def test_an_administrator_opens_a_house_and_no_user_meets_anothers_files(
    enter: Callable[[str], Person], hosts: list[KvmHost], album: Album, capsys: pytest.CaptureFixture[str]
) -> None:
    host, pool = hosts[0], "Office Linux"
    golden = golden_hash(host)
    dana = enter("dana")
    _add_the_host(dana, host, album)
    _create_template_people_and_pool(dana, pool, album)
    clicks = dana.clicks
    _watch_the_pool_fill(dana, album)
    require_linked_clones(host, 2)

    alice = enter("alice")
    name = _request(alice, pool, album)
    ids = _ids_of(alice, pool)
    uuid = _machine_of(dana, name, album)
    with machine(host, uuid) as domain:
        first_disk = disk_of(domain)
        _open_and_type(alice, domain, album)
    with capsys.disabled():
        words = f"{clicks} clicks of the administrator, {alice.clicks} of the user"
        print(f"\nFrom an empty installation to an opened desktop: {words}.")  # noqa: T201 - it is what is asked for
    assert clicks > 5
    assert alice.clicks > 2
    _a_stranger_finds_nothing(enter("charlie"), ids, album)
    _release(alice, name, album)

    bob = enter("bob")
    seen: list[str] = []
    while name not in seen:
        assert len(seen) < 4, f"Bob got {seen}, never {name}"
        seen.append(_request(bob, pool))
        with machine(host, _machine_of(dana, seen[-1])) as domain:
            assert not guest_file_exists(domain, "/mnt/proof"), seen
            assert is_linked_clone(host, domain)
            is_recycled = disk_of(domain) != first_disk
        if seen[-1] == name:
            assert is_recycled
            _open(bob, name)
            album.take(bob.page, "bobs fresh screen", whole=False)
            bob.go("/")
        _release(bob, seen[-1])

    dana.visit("Dashboard")
    album.take(dana.page, "dashboard", "wide", "dark", "phone")
    dana.visit("Audit")
    album.take(dana.page, "audit")
    dana.visit("Operations")
    album.take(dana.page, "operations", "wide", "phone")
    assert golden_hash(host) == golden


def _add_the_host(dana: Person, host: KvmHost, album: Album) -> None:
    dana.page.goto("/console/")
    album.take(dana.page, "sign in", "wide", "phone", "dark")
    dana.sign_in("/console/")
    dana.sees("Welcome to Deskyard")
    album.take(dana.page, "empty console", "wide", "phone", "dark")
    console.open_hypervisor_form(dana)
    console.fill_in_hypervisor(dana, "kvm-01", host)
    album.take(dana.page, "hypervisor form", "wide", "phone")
    console.connect(dana)
    album.take(dana.page, "hypervisor connecting")
    told = re.compile(r"Virtualisation type set to (kvm|qemu)\b")
    dana.sees(told)
    expect(dana.page.locator(".page__lead .chip")).to_have_text("Up")
    found = told.search(dana.page.locator("body").inner_text())
    assert found
    dana.sees({"kvm": "KVM (hardware)", "qemu": "QEMU (emulation, slow)"}[found.group(1)])
    dana.sees("default")
    assert dana.was_not_loaded_again()
    album.take(dana.page, "hypervisor up", "wide", "phone", "dark")


def _create_template_people_and_pool(dana: Person, pool: str, album: Album) -> None:
    console.create_template(dana, "Tiny Linux")
    album.take(dana.page, "template", "wide", "phone")
    console.add_group(dana, "Accounting")
    for name, groups in (("alice", ["Accounting"]), ("bob", ["Accounting"]), ("charlie", [])):
        console.add_user(dana, name, groups)
    dana.visit("People")
    album.take(dana.page, "people")
    console.open_pool_form(dana)
    console.fill_in_pool(
        dana, pool, "office-###", spare=2, maximum=2, Description="A small Linux for trying things out."
    )
    dana.field("Accounting").check()
    album.take(dana.page, "pool form", "wide", "phone")
    dana.button("Review").click()
    dana.sees("2 desktops are built as soon as you create the pool")
    dana.sees("office-001")
    dana.sees("Accounting")
    album.take(dana.page, "pool review", "wide", "phone", "dark")
    dana.button("Create the pool").click()
    expect(dana.page.get_by_role("heading", level=1, name=pool)).to_be_visible()


def _watch_the_pool_fill(dana: Person, album: Album) -> None:
    dana.mark()
    wait_until(lambda: console.count(dana, "on their way") == 2, 60, "two are being built")
    album.take(dana.page, "pool filling")
    wait_until(lambda: console.count(dana, "ready, of") == 2, FILLED_S, "the pool is full", dana.page.content)
    assert dana.was_not_loaded_again()
    album.take(dana.page, "pool full", "wide", "phone", "dark")


def _request(user: Person, pool: str, album: Album | None = None) -> str:
    """Ask for a desktop on the first page and wait until it can be opened; its name."""
    if album:
        user.sign_in("/")
        album.take(user.page, "home with an offer", "wide", "phone", "dark")
    elif "/sign-in/" in user.page.url or user.page.url == "about:blank":
        user.sign_in("/")
    user.button(f"Request desktop {pool}").click()
    user.mark()
    opener = user.page.get_by_role("link", name=re.compile("^Open "))
    expect(opener).to_be_visible(timeout=FILLED_S * 1000)
    expect(user.page.locator(".portal-tile .chip", has_text="Ready")).to_be_visible(timeout=FILLED_S * 1000)
    assert user.was_not_loaded_again()
    if album:
        album.take(user.page, "home with a desktop", "wide", "phone", "dark")
    return opener.inner_text().removeprefix("Open").strip()


def _ids_of(alice: Person, pool: str) -> dict[str, str]:
    """Everything of hers that has an id."""
    _, pools = alice.ask("/api/v1/pools")
    _, requests = alice.ask("/api/v1/requests")
    (request,) = requests["items"]
    desktop = request["desktop"]
    status, operation = alice.ask(f"/api/v1/desktops/{desktop}/connect", "POST", {"protocol": "vnc"})
    assert status == 200
    assert [found["name"] for found in pools["items"]] == [pool]
    return {
        "pools": request["pool"],
        "requests": request["id"],
        "desktops": desktop,
        "operations": operation["operation"]["id"],
    }


def _machine_of(dana: Person, name: str, album: Album | None = None) -> str:
    console.open_desktop(dana, name)
    uuid = console.fact(dana, "Id there")
    if album:
        dana.sees("Why here?")
        album.take(dana.page, "desktop", "wide", "phone")
    return uuid


def _open(user: Person, name: str) -> None:
    user.link(f"Open {name}").click()
    user.waits_for_the_screen()


def _open_and_type(alice: Person, domain: Any, album: Album) -> None:
    _open(alice, re.sub(r"^.*/", "", domain.name()))
    before = wait_until_same(alice.canvas, lambda: screenshot(domain))
    assert lit(before) > 1000, "there are letters on it"
    album.take(alice.page, "screen", "wide", "phone", whole=False)

    nonce = f"Typed-{secrets.token_hex(8)}"
    alice.page.locator("#viewer-screen canvas").click()
    alice.presses(f"echo {nonce} > /mnt/proof; cat /mnt/count")
    wait_until(lambda: guest_file_exists(domain, "/mnt/proof"), 60, "the command ran")
    assert run_in_guest(domain, "/bin/cat", "/mnt/proof").strip() == nonce
    after = wait_until_same(alice.canvas, lambda: screenshot(domain))
    assert difference(before, after) > CURSOR * 10, "what was typed is seen"
    album.take(alice.page, "screen typed", whole=False)

    second = f"Pasted_{secrets.token_hex(8)}"
    alice.button("Type text").click()
    alice.field("Text").fill(f'echo "{second}" >> /mnt/proof\nuname -sr; free; ls -l /mnt')
    alice.page.get_by_label("Press Enter at the end").check()
    album.take(alice.page, "type this text", "wide", "phone", whole=False)
    alice.button("Type it").click()
    alice.sees("Typed.")
    wait_until(lambda: second in run_in_guest(domain, "/bin/cat", "/mnt/proof"), 60, "the text was typed")
    wait_until_still(alice.canvas)
    wait_until_same(alice.canvas, lambda: screenshot(domain))
    alice.closes_messages()
    album.take(alice.page, "screen with text", "wide", "dark", whole=False)
    alice.link(re.compile("^My desktops")).click()
    expect(alice.page).to_have_url(f"{alice.url}/")


def _a_stranger_finds_nothing(charlie: Person, ids: dict[str, str], album: Album) -> None:
    charlie.sign_in("/")
    charlie.sees("Nothing here for you yet")
    album.take(charlie.page, "home of a stranger", "wide", "phone")
    pool, desktop, request = ids["pools"], ids["desktops"], ids["requests"]
    looks = [
        *(f"/desktops/{desktop}/{part}/" for part in ("open", "state", "power/off", "release")),
        *(f"/api/v1/{noun}/{key}" for noun, key in ids.items()),
    ]
    deeds = [
        *(f"/desktops/{desktop}/{part}/" for part in ("connect", "power/off", "power/on", "release")),
        f"/pools/{pool}/request/",
        f"/requests/{request}/cancel/",
    ]
    orders: list[tuple[str, dict[str, str]]] = [
        ("/api/v1/requests", {"pool": pool}),
        (f"/api/v1/requests/{request}/cancel", {}),
        (f"/api/v1/desktops/{desktop}/connect", {"protocol": "vnc"}),
        (f"/api/v1/desktops/{desktop}/power", {"action": "off"}),
        (f"/api/v1/desktops/{desktop}/release", {}),
        (f"/api/v1/operations/{ids['operations']}/cancel", {}),
    ]
    answers = {
        **{f"GET {address}": charlie.ask(address)[0] for address in looks},
        **{f"POST {address}": charlie.ask(address, "POST")[0] for address in deeds},
        **{f"POST {address}": charlie.ask(address, "POST", body)[0] for address, body in orders},
    }
    assert set(answers.values()) == {404}, answers
    for noun in ("pools", "requests", "desktops", "operations"):
        assert charlie.ask(f"/api/v1/{noun}") == (200, {"items": [], "total": 0})
    charlie.page.goto(f"/desktops/{desktop}/open/")
    album.take(charlie.page, "not found", "wide", "phone")
    answer = charlie.page.goto(f"/console/pools/{pool}/")
    assert answer is not None
    assert answer.status == 403
    album.take(charlie.page, "not for users")


def _release(user: Person, name: str, album: Album | None = None) -> None:
    tile = user.page.locator(".portal-tile", has_text=name)
    tile.locator("summary").click()
    if album:
        album.take(user.page, "menu", "wide", "phone")
    tile.get_by_role("link", name="Release").click()
    user.button("Release and delete my files").wait_for()
    if album:
        album.take(user.page, "release", "wide", "phone", "dark", whole=False)
    user.button("Release and delete my files").click()
    user.sees(f"{name} was released.")
    expect(tile).to_have_count(0)
