"""What is wrong with a page for somebody who cannot see it, and a picture for somebody who can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, Response

from tests.support.prerequisites import REPOSITORY

SCREENS = REPOSITORY / "var" / "screens" / "pages"
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
TRIES = 8

Theme = Literal["light", "dark"]


class Visitor:
    """Somebody signed in, at a browser that shows one theme. `complaints` holds what was wrong, page by page."""

    def __init__(self, browser: Browser, origin: str, cookies: dict[str, str], theme: Theme) -> None:
        self.origin, self.theme = origin, theme
        self.complaints: list[str] = []
        self._axe = Axe()
        self._context: BrowserContext = browser.new_context(
            base_url=origin, color_scheme=theme, viewport=WIDE, reduced_motion="reduce"  # type: ignore[arg-type]
        )  # fmt: skip
        self._context.add_cookies([{"name": name, "value": value, "url": origin} for name, value in cookies.items()])
        # What axe and the camera do to a page is against its security policy, as it should be: they have a tab of
        # their own, and what pages say is heard in another one.
        self.page: Page = self._context.new_page()
        self._heard: Page = self._context.new_page()
        self._heard.on("pageerror", lambda error: self._complain(str(error)))
        self._heard.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error" and NETWORK_CHANGED not in message.text:
            self._complain(message.text)

    def _load(self, page: Page, address: str) -> Response | None:
        """Again if a network of another test came or went meanwhile: Chromium drops all that it was loading then."""
        for _try in range(TRIES):
            dropped: list[Request] = []

            def note(request: Request, dropped: list[Request] = dropped) -> None:
                if NETWORK_CHANGED in (request.failure or ""):
                    dropped.append(request)

            page.on("requestfailed", note)
            try:
                answer = page.goto(address)
            except Error as error:
                if NETWORK_CHANGED not in error.message:
                    raise
                continue
            finally:
                page.remove_listener("requestfailed", note)
            if not dropped:
                return answer
        raise AssertionError(f"The networks changed {TRIES} times while {address} was loading.")

    def _complain(self, words: str) -> None:
        self.complaints.append(f"{self._heard.url.removeprefix(self.origin)} ({self.theme}): {words}")

    def look_at(self, door: str, name: str, address: str) -> None:
        """Wide and on a phone: axe finds nothing, nothing sticks out, and a picture is kept."""
        answer = self._load(self._heard, address)
        if answer is None or not answer.ok:
            self._complain(f"answers {answer.status if answer else 'nothing'}")
            return
        self._load(self.page, address)
        # Chromium draws a tab behind another one once a second, and a picture waits for several drawings.
        self.page.bring_to_front()
        for width, size in (("wide", WIDE), ("phone", PHONE)):
            self.page.set_viewport_size(size)  # type: ignore[arg-type]
            # On a phone colours are as they are elsewhere: what stands where is asked once.
            if width == "wide" or self.theme == "light":
                self._measure(width)
            self.page.screenshot(path=self._path(door, name, width), full_page=True, animations="disabled")

    def _measure(self, width: str) -> None:
        found: dict[str, Any] = self._axe.run(self.page).response
        for violation in found["violations"]:
            places = "; ".join(" ".join(map(str, node["target"])) for node in violation["nodes"][:3])
            self._complain(f"{width}: {violation['id']} ({violation['help']}): {places}")
        beyond = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if beyond > 0:
            self._complain(f"{width}: the page is {beyond} pixels wider than its window")

    def _path(self, door: str, name: str, width: str) -> Path:
        SCREENS.mkdir(parents=True, exist_ok=True)
        return SCREENS / f"{door}-{name}-{width}-{self.theme}.png"

    def leave(self) -> None:
        self._context.close()


Enter = Callable[[User | None, Theme], Visitor]
"""`enter(dana, "dark")`: she sits down at a browser of her own, signed in; None: a stranger."""
