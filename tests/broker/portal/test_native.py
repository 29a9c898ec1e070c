"""Opening a desktop in a program of one's own, from the portal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Page, expect
from pytest_django import Settings

from broker.models import Desktop, Pool, Preferences, Ticket
from broker.services import native, pools, presence, screens
from tests.broker.portal.cast import Estate, squeezed
from tests.broker.relay.serving import DOOR_PORT, Web

As = Callable[[User], Client]
APP = "Open in Remote Desktop app"


@pytest.fixture
def offered(house: Estate, settings: Settings) -> Estate:
    settings.RDP_ADDRESS = "desk.example:3390"
    return allow(house)


def allow(house: Estate) -> Estate:
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, protocol=Pool.Protocol.RDP, native_clients=True)
    return house


def page(client: Client, path: str = "/") -> str:
    return squeezed(client.get(path).content)


def test_the_menu_offers_the_file_and_the_file_comes_as_a_download(offered: Estate, as_: As) -> None:
    alice = as_(offered.alice)
    assert APP in page(alice)
    answer = alice.post(f"/desktops/{offered.desktop.pk}/file/")
    assert answer.headers["Content-Type"] == "application/x-rdp"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="office-001.rdp"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert "full address:s:desk.example:3390" in answer.content.decode("utf-16")
    assert Ticket.objects.get().session_key == screens.digest(alice.session.session_key or "")


def test_a_machines_screen_is_offered_in_remote_viewer(offered: Estate, as_: As, settings: Settings) -> None:
    Pool.objects.update(protocol=Pool.Protocol.VNC)
    alice = as_(offered.alice)
    assert "Open in Remote Viewer" not in page(alice)
    settings.VNC_ADDRESS = "desk.example:5900"
    assert "Open in Remote Viewer" in page(alice)
    answer = alice.post(f"/desktops/{offered.desktop.pk}/file/")
    assert answer.headers["Content-Type"] == "application/x-virt-viewer"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="office-001.vv"'
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_desktop_that_is_not_opened_so_offers_no_file_and_says_why_not(offered: Estate, as_: As) -> None:
    Pool.objects.update(native_clients=False)
    alice = as_(offered.alice)
    assert APP not in page(alice)
    answer = alice.post(f"/desktops/{offered.desktop.pk}/file/", follow=True)
    assert "is opened in the browser only" in answer.content.decode()


def test_a_desktop_that_is_off_is_started_and_that_is_said(offered: Estate, as_: As) -> None:
    Desktop.objects.update(power="off")
    answer = as_(offered.alice).post(f"/desktops/{offered.desktop.pk}/file/", follow=True)
    assert "office-001 is being started." in answer.content.decode()


def test_somebody_elses_desktop_is_not_there(offered: Estate, as_: As) -> None:
    for person in (offered.bob, offered.dana):
        assert as_(person).post(f"/desktops/{offered.desktop.pk}/file/").status_code == 404
    assert as_(offered.alice).get(f"/desktops/{offered.desktop.pk}/file/").status_code == 405


def test_who_chose_so_has_the_file_on_the_main_button_and_the_browser_in_the_menu(offered: Estate, as_: As) -> None:
    alice = as_(offered.alice)
    main = re.compile(rf'<(a|button)[^>]* id="open-{offered.desktop.pk}"')
    assert main.search(page(alice))[1] == "a"  # type: ignore[index]
    assert alice.post("/me/", {"address": "", "opens_natively": "on"}).status_code == 302
    assert Preferences.objects.get(user=offered.alice).opens_natively
    shown = page(alice)
    assert main.search(shown)[1] == "button"  # type: ignore[index]
    assert "Open in the browser" in shown
    Pool.objects.update(native_clients=False)
    assert main.search(page(alice))[1] == "a"  # type: ignore[index]


def test_its_stream_stands_on_the_tile_with_an_end(offered: Estate, as_: As) -> None:
    alice = as_(offered.alice)
    file = alice.post(f"/desktops/{offered.desktop.pk}/file/").content.decode("utf-16")
    (ticket,) = re.findall("msts=(.+)\r", file)
    admission = native.admit(ticket=ticket, address="10.1.0.7")
    session = screens.start_session(admission=admission, address="10.1.0.7")
    assert "the Remote Desktop app" in page(alice)
    assert "the Remote Desktop app" in page(alice, "/screens/")
    alice.post(f"/screens/{session}/end/")
    assert "the Remote Desktop app" not in page(alice)
    assert screens.closures({session: admission}) == {session: presence.ENDED}


def test_a_real_browser_saves_the_file(alices_page: Page, web: Web, live_house: Estate, tmp_path: Path) -> None:
    allow(live_house)
    alices_page.goto(web.origin)
    alices_page.locator("summary", has_text="Power and release of").click()
    with alices_page.expect_download() as saving:
        alices_page.get_by_role("button", name=APP).click()
    path = tmp_path / saving.value.suggested_filename
    saving.value.save_as(path)
    assert path.name == "office-001.rdp"
    assert f"full address:s:127.0.0.1:{DOOR_PORT}\r\n" in path.read_bytes().decode("utf-16")
    expect(alices_page.get_by_role("heading", name="Office")).to_be_visible()
