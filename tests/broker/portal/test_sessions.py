"""One's own sessions in the portal, and what is told on the page of a screen that is open."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Page, expect

from broker.models import Assignment, DesktopSession, Notice, Pool, ScreenSession
from broker.services import presence, screens, session_timers
from tests.broker.portal.cast import Estate, squeezed
from tests.broker.portal.test_viewer import open_screen, pump
from tests.broker.relay.rfb_screen import screen
from tests.broker.relay.serving import Web

As = Callable[[User], Client]
HTMX: dict[str, Any] = {"headers": {"HX-Request": "true"}}


def begin(house: Estate) -> DesktopSession:
    """Alice opens her desktop."""
    admission = screens.Admission(UUID(int=0), house.desktop.pk, house.desktop.epoch, house.alice.pk, "vnc")
    screens.start_session(admission=admission, address="192.0.2.7")
    return DesktopSession.objects.get()


def page_of(client: Client) -> str:
    return squeezed(client.get("/screens/").content)


def test_one_sees_ones_own_sessions_and_when_they_end(house: Estate, as_: As) -> None:
    Pool.objects.update(idle_min=30, disconnected_min=60)
    session = begin(house)
    alice = as_(house.alice)
    assert "disconnected 30 min after the last key" in page_of(alice)
    assert "my-sessions" not in page_of(as_(house.bob))
    presence.disconnect(actor=house.alice, session_id=session.pk)
    html = page_of(alice)
    assert "Disconnected" in html
    assert "given back, with all that lies on it deleted" in html
    Pool.objects.update(disconnected_min=None)
    assert ">never" in page_of(alice)


def test_one_disconnects_and_logs_off_ones_own_after_a_question(house: Estate, as_: As) -> None:
    session, alice = begin(house), as_(house.alice)
    answer = alice.post(f"/sessions/{session.pk}/disconnect/", **HTMX)
    assert "keeps running" in answer.headers["HX-Trigger"]
    again = alice.post(f"/sessions/{session.pk}/disconnect/", **HTMX)
    assert "Nobody is connected" in again.headers["HX-Trigger"]
    assert "all that lies on it is deleted" in squeezed(alice.get(f"/sessions/{session.pk}/log-off/").content)
    assert Assignment.objects.filter(user=house.alice, until=None).exists()
    alice.post(f"/sessions/{session.pk}/log-off/")
    assert not Assignment.objects.filter(user=house.alice, until=None).exists()
    assert alice.get(f"/sessions/{session.pk}/log-off/").status_code == 404


def test_of_a_desktop_that_stays_theirs_it_is_said_that_it_restarts(house: Estate, as_: As) -> None:
    Pool.objects.update(kind="dedicated")
    session = begin(house)
    assert "It stays yours" in squeezed(as_(house.alice).get(f"/sessions/{session.pk}/log-off/").content)


def test_nobody_touches_anothers_session(house: Estate, as_: As) -> None:
    session = begin(house)
    for person in (house.bob, house.charlie):
        client = as_(person)
        assert client.post(f"/sessions/{session.pk}/disconnect/").status_code == 404
        assert client.get(f"/sessions/{session.pk}/log-off/").status_code == 404
        assert client.post(f"/sessions/{session.pk}/log-off/").status_code == 404
    session.refresh_from_db()
    assert session.state == "connected"


def test_the_page_of_a_screen_asks_for_what_was_just_told_of_it(house: Estate, as_: As) -> None:
    session, alice = begin(house), as_(house.alice)
    address = f"/desktops/{house.desktop.pk}/told/"
    assert alice.get(address).json() == {"notices": []}
    presence.send_notice(actor=house.dana, session_id=session.pk, words="We restart at noon.")
    (told,) = alice.get(address).json()["notices"]
    assert told["words"] == "A message about office-001. We restart at noon."
    assert as_(house.bob).get(address).json() == {"notices": []}
    Notice.objects.update(created_at=timezone.now() - timedelta(minutes=11))
    assert alice.get(address).json() == {"notices": []}


@pytest.mark.usefixtures("db")
def test_who_is_idle_reads_it_on_the_screen_is_disconnected_and_comes_back(
    alices_page: Page, web: Web, live_house: Estate
) -> None:
    """The warning stands in the corner while the screen is open; the end offers the way back."""
    Pool.objects.update(idle_min=30)
    long_ago = timezone.now() - timedelta(minutes=26)
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(alices_page, web, live_house)
        later(long_ago)
        session_timers.look()
        expect(alices_page.locator("#toasts")).to_contain_text("Nothing was typed or moved", timeout=60_000)
        later(long_ago - timedelta(minutes=5))
        DesktopSession.objects.update(warned_at=timezone.now() - timedelta(minutes=5))
        DesktopSession.objects.update(warned_for=DesktopSession.objects.get().input_at + timedelta(minutes=30))
        session_timers.look()
        expect(alices_page.locator("#viewer-detail")).to_have_text(screens.LEFT_ALONE, timeout=60_000)
        alices_page.get_by_role("button", name="Reconnect").last.click()
        expect(alices_page.locator(".viewer")).to_have_attribute("data-phase", "open", timeout=60_000)
    assert DesktopSession.objects.get().state == "connected"


def later(input_at: Any) -> None:
    """The last key was then, and the clock is due."""
    ScreenSession.objects.update(input_at=input_at, started_at=input_at)
    DesktopSession.objects.update(input_at=input_at, began_at=input_at, next_at=timezone.now())
