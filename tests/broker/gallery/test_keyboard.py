"""The console by keyboard alone."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from broker.models import Operation
from tests.broker.console.furniture import Furniture
from tests.broker.gallery.looking import Enter
from tests.broker.portal.cast import Estate


@pytest.fixture
def page(live_house: Estate, furniture: Furniture, enter: Enter) -> Page:
    """The dashboard, in front of the administrator."""
    dana = enter(live_house.dana, "light").page
    dana.goto(reverse("console:dashboard"))
    return dana


def focused(page: Page) -> str:
    words: str = page.evaluate("(document.activeElement.innerText || document.activeElement.ariaLabel || '').trim()")
    return words


def test_the_first_stop_leads_past_the_frame(page: Page) -> None:
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_every_stop_can_be_seen(page: Page) -> None:
    """A ring or another outline shows where one is, on each of the first thirty stops."""
    for _ in range(30):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", focused(page)


def test_keys_lead_to_rooms_and_to_the_search(page: Page) -> None:
    page.keyboard.press("g")
    page.keyboard.press("d")
    expect(page).to_have_url(re.compile("/console/desktops/$"))
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.type("gh?/t")
    expect(page.locator("[role=search] [name=q]").first).to_have_value("gh?/t")
    expect(page).to_have_url(re.compile("/console/desktops/$"))


def test_the_sheet_tells_the_keys_and_switches_them_off(page: Page) -> None:
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keys")
    expect(sheet).to_be_visible()
    expect(sheet).to_contain_text("Hypervisors")
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    page.keyboard.press("?")
    sheet.get_by_role("checkbox").press("Space")
    page.keyboard.press("Escape")
    page.reload()
    for key in ("g", "d", "?"):
        page.keyboard.press(key)
    expect(sheet).to_be_hidden()
    expect(page).to_have_url(re.compile("/console/$"))


def test_the_drawer_tells_what_is_done_and_by_whom(page: Page, furniture: Furniture) -> None:
    page.keyboard.press("t")
    drawer = page.get_by_role("complementary", name="Tasks")
    expect(drawer).to_be_visible()
    expect(drawer.get_by_role("listitem").first).to_be_visible()
    words = drawer.inner_text()
    running = Operation.objects.filter(state="running").first()
    assert running is not None
    assert running.get_kind_display() in words
    assert "Move" in words, "failovers are tasks too"
    assert "Replicate" in words, "and runs of replication"
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(page.locator("#tasks-button")).to_be_focused()


def test_a_failed_operation_is_retried_from_the_drawer(page: Page, furniture: Furniture) -> None:
    Operation.objects.filter(pk=furniture.failed.pk).update(kind="power", parameters={"action": "on"})
    page.keyboard.press("t")
    drawer = page.get_by_role("complementary", name="Tasks")
    retry = drawer.get_by_role("button", name="Retry").first
    retry.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/console/operations/[0-9a-f-]+/$"))


def test_a_question_is_answered_and_focus_comes_back(page: Page) -> None:
    page.goto(reverse("console:desktops"))
    box = page.get_by_role("checkbox", name="Choose office-002")
    box.focus()
    page.keyboard.press("Space")
    button = page.get_by_role("button", name="Take out of service")
    expect(button).to_be_visible()
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#dialog")
    expect(dialog).to_contain_text("Take 1 desktop out of service?")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(box).to_be_checked()
