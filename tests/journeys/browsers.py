"""People at browsers of their own, in Debian's Chromium, doing what people do: links, forms, keys.

Whatever a page complains about behind its face (a script's error, a breach of the content security policy) is kept in
`complaints` and fails the journey.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.support.prerequisites import REPOSITORY, require_program
from tests.support.screen import SHIFTED

PASSWORD = "correct horse 7"
SCREENS = REPOSITORY / "var" / "screens"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
ANSWER_S = 60
"""A page shows what it was asked for within this, also on a machine that emulates guests beside it."""
KEY_MS = 25

NO_COMPLAINTS = re.compile(r"Failed to load resource|htmx:(sendAbort|afterRequest),")
"""A refused request (whether it should have been is asked where it is made), and one that a newer one replaced."""

Look = Literal["wide", "dark", "phone"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with an empty profile. While it runs, this thread must not use Django's ORM: Playwright has a loop."""
    program = require_program("chromium", "chromium")
    expect.set_options(timeout=ANSWER_S * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Album:
    """Screenshots of a story in order: `var/screens/STORY-01-what-is-seen.png`."""

    def __init__(self, story: str, folder: Path = SCREENS) -> None:
        self._story, self._folder, self._taken = story, folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{story}-[0-9]*.png"):
            old.unlink()

    def take(self, page: Page, what: str, *looks: Look, whole: bool = True) -> None:
        """The page as it is, or once in each look: a wide window, the same in the dark, a phone."""
        self._taken += 1
        for look in looks or ("wide",):
            page.emulate_media(color_scheme="dark" if look == "dark" else "light")
            page.set_viewport_size(PHONE if look == "phone" else WIDE)  # type: ignore[arg-type]
            suffix = "" if look == "wide" else f"-{look}"
            page.evaluate("scrollTo(0, 0)")
            path = self._folder / f"{self._story}-{self._taken:02}-{what.replace(' ', '-')}{suffix}.png"
            page.screenshot(path=path, full_page=whole, animations="disabled")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(WIDE)  # type: ignore[arg-type]


class Person:
    """Somebody at a browser of their own; `page` is the tab in front of them."""

    def __init__(self, browser: Browser, url: str, name: str, password: str = PASSWORD) -> None:
        self.name, self.url, self._password = name, url, password
        self.context: BrowserContext = browser.new_context(viewport=WIDE, base_url=url)  # type: ignore[arg-type]
        self.context.set_default_timeout(ANSWER_S * 1000)
        self.complaints: list[str] = []
        self.streams: list[str] = []
        """Addresses of the WebSockets that pages opened, one for each time a screen was opened."""
        self.clicks = 0
        """How often they clicked so far, or pressed a key that does the same."""
        self.context.expose_binding("deskyardClicked", self._count)
        self.context.add_init_script("addEventListener('click', (event) => event.isTrusted && deskyardClicked(), true)")
        self.page = self.new_tab()

    def new_tab(self) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("websocket", lambda socket: self.streams.append(socket.url))
        page.on("console", lambda message: self._hear(page, message))
        # "Leave this page?" is answered with yes.
        page.on("dialog", lambda dialog: dialog.accept())
        return page

    def _count(self, _source: object) -> None:
        self.clicks += 1

    def _hear(self, page: Page, message: ConsoleMessage) -> None:
        if message.type == "error" and not NO_COMPLAINTS.match(message.text):
            self.complaints.append(f"{page.url}: {message.text}")

    def forgives(self, beginning: str) -> None:
        """What pages complained about in these words is in order."""
        self.complaints = [said for said in self.complaints if beginning not in said]

    # --- moving about ---

    def sign_in(self, address: str = "/") -> None:
        """Go to an address, be sent to the sign-in, and arrive where one wanted to go."""
        self.page.goto(address)
        self.page.get_by_label("User name").fill(self.name)
        self.page.get_by_label("Password").fill(self._password)
        self.button("Sign in").click()
        expect(self.page).to_have_url(re.compile(re.escape(address) + "$"))

    def go(self, address: str) -> None:
        answer = self.page.goto(address)
        assert answer is not None
        assert answer.ok, f"{address}: {answer.status}"

    def visit(self, room: str) -> None:
        """Another room of the console, by its navigation."""
        self.page.get_by_role("navigation", name="Console").get_by_role("link", name=room, exact=True).click()
        expect(self.page.get_by_role("heading", level=1, name=room, exact=True)).to_be_visible()

    def link(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("link", name=name)

    def button(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("button", name=name)

    def field(self, label: str) -> Locator:
        """A form's field by its whole label, optional or not."""
        return self.page.get_by_label(re.compile(rf"^\s*{re.escape(label)}(\s*\(optional\))?\s*$"))

    # --- looking ---

    def sees(self, words: str | re.Pattern[str], within_s: float = ANSWER_S, at: Locator | None = None) -> None:
        """The words stand on the page, at once or when it changes by itself."""
        where = at or self.page.locator("body")
        expect(where).to_contain_text(words, timeout=within_s * 1000, use_inner_text=True)

    def mark(self) -> None:
        """Remember this very page: `was_not_loaded_again` says whether it is still the same one."""
        self.page.evaluate("window.isStillTheSame = true")

    def was_not_loaded_again(self) -> bool:
        return bool(self.page.evaluate("window.isStillTheSame === true"))

    def closes_messages(self) -> None:
        """What stands in the corner is read and put away."""
        closers = self.page.locator("[data-close-toast]")
        while closers.count():
            closers.first.click()

    # --- what a tool of theirs would do, with the browser's own session ---

    def ask(self, address: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Status and JSON (None for other content) of a request from the page in front of them."""
        status, answer = self.page.evaluate(
            """async ([address, method, body]) => {
                const token = JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];
                const headers = {"X-CSRFToken": token, ...(body ? {"Content-Type": "application/json"} : {})};
                const answer = await fetch(address, {method, headers, body: body && JSON.stringify(body)});
                const isJson = (answer.headers.get("content-type") ?? "").includes("json");
                return [answer.status, isJson ? await answer.json() : null];
            }""",
            [address, method, body],
        )
        return status, answer

    # --- the desktop's screen ---

    def waits_for_the_screen(self, within_s: float = 120) -> None:
        """The page that shows a desktop's screen shows it."""
        expect(self.page.locator("main.viewer[data-phase=open]")).to_be_visible(timeout=within_s * 1000)

    def presses(self, line: str) -> None:
        """Types the line and Enter key by key, with Shift where an American keyboard needs it."""
        for character in line:
            self.page.keyboard.press(f"Shift+{character}" if character in SHIFTED else character, delay=KEY_MS)
        self.page.keyboard.press("Enter", delay=KEY_MS)

    def canvas(self) -> bytes:
        """What the screen's canvas holds, as PNG, pixel by pixel and not as scaled into the page."""
        text: str = self.page.evaluate("document.querySelector('#viewer-screen canvas').toDataURL('image/png')")
        return base64.b64decode(text.partition(",")[2])

    def leave(self) -> None:
        self.context.close()
        assert not self.complaints, self.complaints
