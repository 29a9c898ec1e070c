"""The screen's page and the live tiles, in a real browser against a real server and a real RFB screen."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.utils import timezone
from PIL import Image
from playwright.sync_api import Page, Route, expect

from broker.models import Desktop, Entitlement, Operation, ScreenSession, Ticket
from broker.services import brokering, nudges, screens
from connectors.base import ScreenOpened
from tests.broker.portal.cast import Estate
from tests.broker.portal.watching import eventually
from tests.broker.relay.rfb_screen import RfbScreen, keys, screen
from tests.broker.relay.serving import Web

SHIFT, CONTROL, ALT, DELETE, RETURN = 0xFFE1, 0xFFE3, 0xFFE9, 0xFFFF, 0xFF0D


@contextmanager
def pump(shown: RfbScreen) -> Iterator[None]:
    """Carries out orders for screens as soon as they are written."""
    stop = threading.Event()

    def work() -> None:
        from django.db import connection

        while not stop.wait(0.1):
            for operation in Operation.objects.filter(kind="screen", state="queued"):
                screens.store_target(
                    operation,
                    ScreenOpened(protocol="vnc", host="127.0.0.1", port=shown.port, password=shown.password),
                )
                Operation.objects.filter(pk=operation.pk).update(state="done", finished_at=timezone.now())
        connection.close()

    working = threading.Thread(target=work)
    working.start()
    try:
        yield
    finally:
        stop.set()
        working.join()


def open_screen(page: Page, web: Web, house: Estate) -> None:
    page.goto(f"{web.origin}/desktops/{house.desktop.pk}/open/")
    expect(page.locator(".viewer")).to_have_attribute("data-phase", "open", timeout=60_000)


def pressed(shown: RfbScreen) -> list[int]:
    """The keys that went down, in order."""
    return [keysym for keysym, down in keys(bytes(shown.received)) if down]


def test_the_screen_opens_takes_keys_and_types_text_with_capitals_and_line_breaks(
    alices_page: Page, web: Web, live_house: Estate
) -> None:
    page = alices_page
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(page, web, live_house)
        canvas = page.locator("#viewer-screen canvas")
        assert canvas.evaluate("canvas => [canvas.width, canvas.height]") == [640, 480]

        page.get_by_role("button", name="Ctrl-Alt-Del").click()
        eventually(page, lambda: DELETE in pressed(shown))
        assert pressed(shown) == [CONTROL, ALT, DELETE]

        page.get_by_role("button", name="Type text").click()
        page.get_by_role("textbox", name="Text").fill("Aa!\nß€")
        page.get_by_role("button", name="Type it").click()
        expect(page.locator("#toasts")).to_contain_text("Typed.")
        eventually(page, lambda: len(pressed(shown)) >= 11)
        assert pressed(shown)[3:] == [SHIFT, ord("A"), ord("a"), SHIFT, ord("!"), RETURN, 0xDF, 0x20AC]
        held: set[int] = set()
        for keysym, down in keys(bytes(shown.received)):
            held = held | {keysym} if down else held - {keysym}
        assert not held, "keys were left pressed"
        assert ScreenSession.objects.get().user == live_house.alice


def test_a_picture_of_the_screen_is_saved(alices_page: Page, web: Web, live_house: Estate) -> None:
    page = alices_page
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(page, web, live_house)
        with page.expect_download() as coming:
            page.get_by_role("button", name="Picture").click()
        assert re.fullmatch(r"office-001 \d{4}-\d\d-\d\d \d\d-\d\d-\d\d\.png", coming.value.suggested_filename)
        with Image.open(coming.value.path()) as picture:
            assert (picture.format, picture.size) == ("PNG", (640, 480))
        expect(page.locator("#toasts")).to_contain_text("A picture of the screen was saved.")


def test_a_point_of_the_desktop_is_a_point_here_if_one_likes(alices_page: Page, web: Web, live_house: Estate) -> None:
    page = alices_page
    page.set_viewport_size({"width": 400, "height": 500})
    width = "canvas => Math.round(canvas.getBoundingClientRect().width)"
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(page, web, live_house)
        canvas, button = page.locator("#viewer-screen canvas"), page.locator("#viewer-scale")
        eventually(page, lambda: canvas.evaluate(width) <= 400)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        eventually(page, lambda: canvas.evaluate(width) == 640)
        page.reload()
        expect(page.locator(".viewer")).to_have_attribute("data-phase", "open", timeout=60_000)
        eventually(page, lambda: canvas.evaluate(width) == 640)


def test_a_module_that_got_lost_on_the_way_is_fetched_again(alices_page: Page, web: Web, live_house: Estate) -> None:
    page = alices_page
    lost: list[str] = []

    def lose_once(route: Route) -> None:
        if lost:
            route.continue_()
        else:
            lost.append(route.request.url)
            route.abort("internetdisconnected")

    page.route("**/rfb.js", lose_once)
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(page, web, live_house)
    assert lost


def test_release_elsewhere_closes_the_screen_in_words(alices_page: Page, web: Web, live_house: Estate) -> None:
    page = alices_page
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(page, web, live_house)
        brokering.release_desktop(actor=live_house.alice, desktop_id=live_house.desktop.pk)
        expect(page.locator("#viewer-note")).to_contain_text("The desktop was released.")
        expect(page.locator("#viewer-retry")).to_be_hidden()
        page.get_by_role("link", name="Back to my desktops").click()
        expect(page.get_by_role("button", name="Request desktop")).to_be_visible()


def test_a_lost_stream_comes_back_by_itself_with_a_new_ticket(alices_page: Page, web: Web, live_house: Estate) -> None:
    page = alices_page
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(page, web, live_house)
        shown.hang_up()
        eventually(page, lambda: shown.viewers == 2)
        expect(page.locator(".viewer")).to_have_attribute("data-phase", "open", timeout=60_000)
    assert Ticket.objects.count() == 2


def test_a_desktop_that_is_off_is_started_and_opens_by_itself(alices_page: Page, web: Web, live_house: Estate) -> None:
    page = alices_page
    Desktop.objects.filter(pk=live_house.desktop.pk).update(power="off", is_answering=False)
    with screen(mode="quiet") as shown, pump(shown):
        page.goto(f"{web.origin}/")
        page.get_by_role("link", name="Start").click()
        expect(page.get_by_role("heading", name="Starting your desktop…")).to_be_visible()
        expect(page.locator("#viewer-steps [aria-current=step]")).to_have_text("Starting")
        Operation.objects.filter(kind="power").update(state="done", finished_at=timezone.now())
        Desktop.objects.filter(pk=live_house.desktop.pk).update(power="on")
        expect(page.locator(".viewer")).to_have_attribute("data-phase", "open", timeout=60_000)


def test_a_start_that_fails_stops_with_a_reason_and_a_reference(
    alices_page: Page, web: Web, live_house: Estate
) -> None:
    page = alices_page
    Desktop.objects.filter(pk=live_house.desktop.pk).update(power="off", is_answering=False)
    page.goto(f"{web.origin}/desktops/{live_house.desktop.pk}/open/")
    expect(page.get_by_role("heading", name="Starting your desktop…")).to_be_visible()
    operation = Operation.objects.get()
    Operation.objects.update(state="failed", error="Its host has too little memory.", finished_at=timezone.now())
    expect(page.locator("#viewer-note")).to_contain_text("Its host has too little memory.")
    expect(page.locator("#viewer-reference")).to_contain_text(str(operation.pk)[:8].upper())
    expect(page.get_by_role("button", name="Try again")).to_be_focused()


def test_the_screen_gives_the_keyboard_back(alices_page: Page, web: Web, live_house: Estate) -> None:
    page = alices_page
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(page, web, live_house)
        page.keyboard.press("Control+Alt+Shift")
        assert page.evaluate("document.activeElement.id") == "viewer-leave"


def test_full_screen_fills_the_screen_and_the_desktop_keeps_the_keyboard(
    alices_page: Page, web: Web, live_house: Estate
) -> None:
    page = alices_page
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(page, web, live_house)
        button = page.get_by_role("button", name="Full screen")
        button.click()
        eventually(page, lambda: page.evaluate("document.fullscreenElement === document.documentElement"))
        eventually(page, lambda: page.evaluate("document.activeElement.tagName") == "CANVAS")
        page.keyboard.press("x")
        eventually(page, lambda: pressed(shown) == [ord("x")])
        button.click()
        eventually(page, lambda: page.evaluate("document.fullscreenElement === null"))
        expect(page.locator(".viewer")).to_have_attribute("data-phase", "open")
        assert shown.viewers == 1


def test_reconnect_opens_the_screen_anew_and_lets_the_old_stream_go(
    alices_page: Page, web: Web, live_house: Estate
) -> None:
    page = alices_page
    with screen(mode="quiet") as shown, pump(shown):
        open_screen(page, web, live_house)
        page.get_by_role("button", name="Reconnect").click()
        eventually(page, lambda: (shown.viewers, shown.connected) == (2, 1))
        expect(page.locator(".viewer")).to_have_attribute("data-phase", "open", timeout=60_000)
        expect(page.locator("#viewer-screen canvas")).to_have_count(1)
        eventually(page, lambda: ScreenSession.objects.filter(end_reason="The browser left.").count() == 1)
        page.get_by_role("button", name="Ctrl-Alt-Del").click()
        eventually(page, lambda: pressed(shown) == [CONTROL, ALT, DELETE])
    assert Ticket.objects.count() == 2


def test_tiles_change_without_a_reload(alices_page: Page, web: Web, live_house: Estate) -> None:
    page = alices_page
    with page.expect_response("**/live/"):
        page.goto(f"{web.origin}/")
    page.evaluate("window.isTheSamePage = true")
    expect(page.locator(".portal-tile .chip")).to_have_text("Ready")
    page.wait_for_timeout(500)
    Desktop.objects.filter(pk=live_house.desktop.pk).update(power="off", is_answering=False)
    nudges.announce("desktops", user=str(live_house.alice.pk))
    expect(page.locator(".portal-tile .chip")).to_have_text("Switched off", timeout=60_000)
    assert page.evaluate("window.isTheSamePage")


def test_a_press_is_answered_although_the_tiles_change_meanwhile(
    alices_page: Page, web: Web, live_house: Estate
) -> None:
    page = alices_page
    live_house.make(name="studio-1", pool=(studio := live_house.open_pool("Studio")))
    Entitlement.objects.create(pool=studio, user=live_house.alice)

    def answer_late(route: Route) -> None:
        Desktop.objects.filter(pk=live_house.desktop.pk).update(is_answering=False)
        with page.expect_response("**/desktops/"):
            nudges.announce("desktops", user=str(live_house.alice.pk))
        route.continue_()

    page.route("**/request/", answer_late)
    with page.expect_response("**/live/"):
        page.goto(f"{web.origin}/")
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Request desktop").click()
    expect(page.locator("#toasts")).to_contain_text("Your desktop is there.")
    expect(page.locator("#mine")).to_contain_text("studio-1")
    expect(page.locator("#mine")).to_contain_text("Preparing")


def test_power_and_release_ask_in_a_dialog(alices_page: Page, web: Web, live_house: Estate) -> None:
    page = alices_page
    page.goto(f"{web.origin}/")
    page.locator(".portal-menu summary").click()
    page.get_by_role("link", name="Restart").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Restart office-001?")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.locator(".portal-menu summary").click()
    page.get_by_role("link", name="Release").click()
    page.get_by_role("button", name="Release and delete my files").click()
    expect(page.locator("#toasts")).to_contain_text("office-001 was released.")
    expect(page.locator("#mine")).to_contain_text("Get a desktop")
    expect(page.locator("#mine")).not_to_contain_text("office-001")
