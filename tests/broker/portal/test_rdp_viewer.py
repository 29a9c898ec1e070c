"""The remote desktop of a guest in a real browser: real xrdp, real relay, IronRDP's WebAssembly."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils import timezone
from PIL import Image
from playwright.sync_api import Page, expect

from broker.models import Desktop, GuestCertificate, Pool, ScreenSession
from broker.services import pools
from tests.broker.portal.cast import Estate
from tests.broker.portal.watching import eventually
from tests.broker.relay.serving import Web
from tests.support.rdp_servers import RdpServer, guest_address, xrdp

OK_BUTTON = (368, 447)
"""Of xrdp's window, where the viewer is as large as in these tests."""


@pytest.fixture
def guest(live_house: Estate, tmp_path: Path) -> Iterator[RdpServer]:
    """Alice's desktop is a guest with xrdp."""
    with guest_address() as address, xrdp(address, tmp_path) as server:
        pools.change_pool(
            actor=live_house.dana, pool_id=live_house.pool.pk, protocol=Pool.Protocol.RDP, rdp_port=server.port
        )
        Desktop.objects.filter(pk=live_house.desktop.pk).update(addresses=[address])
        yield server


def picture(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.locator("#viewer-screen canvas").screenshot())).convert("RGB")


def open_guest(page: Page, web: Web, house: Estate) -> None:
    # Without the hint about keys, which would lie on the picture.
    page.add_init_script("sessionStorage.setItem('viewer-hint', 'shown')")
    page.goto(f"{web.origin}/desktops/{house.desktop.pk}/open/")
    expect(page.locator(".viewer")).to_have_attribute("data-phase", "asking", timeout=60_000)
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill("straw hat")
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.locator(".viewer")).to_have_attribute("data-phase", "open", timeout=60_000)


def comes_to_the_login(page: Page, guest: RdpServer) -> None:
    """xrdp says in a window that it reaches no session, and after an OK shows its login."""
    eventually(page, lambda: "Error connecting to user session" in guest.said())

    def is_there() -> bool:
        page.mouse.click(*OK_BUTTON)
        page.wait_for_timeout(500)
        return len(picture(page).getcolors(1 << 20) or []) > 500  # its emblem has many

    eventually(page, is_there)


def test_a_guests_remote_desktop_shows_and_takes_mouse_and_keys(
    alices_page: Page, web: Web, live_house: Estate, guest: RdpServer
) -> None:
    page = alices_page
    open_guest(page, web, live_house)
    comes_to_the_login(page, guest)
    page.wait_for_timeout(500)
    before = picture(page)
    page.locator("#viewer-screen canvas").press("Backspace")
    page.keyboard.type("bob")
    eventually(page, lambda: picture(page) != before)
    assert ScreenSession.objects.get().protocol == "rdp"
    assert GuestCertificate.objects.get().sha256 == guest.fingerprint
    page.locator("#viewer-screen canvas").press("Escape")
    expect(page.get_by_role("heading", name="The screen closed")).to_be_visible()


def test_who_signs_out_in_the_guest_is_not_signed_in_again_unasked(
    alices_page: Page, web: Web, live_house: Estate, guest: RdpServer
) -> None:
    page = alices_page
    open_guest(page, web, live_house)
    guest.processes[0].terminate()
    expect(page.get_by_role("heading", name="The screen closed")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Reconnect").last).to_be_visible()
    assert ScreenSession.objects.count() == 1


def test_a_guest_that_is_another_one_is_said_in_words(
    alices_page: Page, web: Web, live_house: Estate, guest: RdpServer
) -> None:
    page = alices_page
    desktop = live_house.desktop
    GuestCertificate.objects.create(
        desktop=desktop, epoch=desktop.epoch, machine_id=desktop.machine_id, sha256="0" * 64, seen_at=timezone.now()
    )
    page.goto(f"{web.origin}/desktops/{desktop.pk}/open/")
    page.get_by_label("User name").fill("alice")
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.locator("#viewer-note")).to_contain_text("answers with another certificate", timeout=60_000)
    expect(page.locator("#viewer-retry")).to_be_hidden()
