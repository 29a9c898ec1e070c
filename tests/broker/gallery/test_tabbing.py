"""Every page by Tab alone: all that can be focused is reached in the order of the page, can be seen while it has the
focus, and holds nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from playwright.sync_api import Page

from tests.broker.console.furniture import Furniture
from tests.broker.console.pages import all_pages
from tests.broker.gallery.looking import Enter
from tests.broker.gallery.test_gallery import told_of_everything
from tests.broker.portal.cast import Estate

EXPECTED = """(isWhole) => {
  const main = document.getElementById("main");
  // A page may begin in a field of its own.
  const begun = document.activeElement;
  const isAhead = (stop) => begun === document.body
    || begun.compareDocumentPosition(stop) & Node.DOCUMENT_POSITION_FOLLOWING;
  if (!isWhole && begun === document.body) main.focus();
  const stops = [...(isWhole ? document : main).querySelectorAll(
    "a[href], button, input, select, textarea, summary, [tabindex]")];
  const isOpen = (stop) => !stop.disabled && stop.type !== "hidden" && stop.tabIndex >= 0
    && stop.checkVisibility({ visibilityProperty: true });
  const isFirstOfItsGroup = (stop) => {
    if (stop.type !== "radio") return true;
    const group = stops.filter((one) => one.type === "radio" && one.name === stop.name && !one.disabled);
    return stop === (group.find((one) => one.checked) ?? group[0]);
  };
  window.expected = stops.filter((stop) => isOpen(stop) && isAhead(stop) && isFirstOfItsGroup(stop));
  window.shadows = new Map(window.expected.map((stop) => [stop, getComputedStyle(stop).boxShadow]));
  window.reached = [];
  window.unseen = [];
  document.addEventListener("focusin", ({ target }) => {
    window.reached.push(target);
    const { outlineStyle, boxShadow } = getComputedStyle(target);
    // A link that covers a tile rings all of it.
    const isRinged = outlineStyle !== "none" || getComputedStyle(target, "::after").outlineStyle !== "none";
    const { width, height } = target.getBoundingClientRect();
    const isMarked = isRinged || boxShadow !== (window.shadows.get(target) ?? "none");
    if (!isMarked || width < 4 || height < 4) window.unseen.push(target);
  });
  // A field for a time is several stops in one, and what scrolls is one, too.
  const fields = document.querySelectorAll("[type=time], [type=date], [type=datetime-local]");
  return window.expected.length + 8 * fields.length + document.querySelectorAll(".table-box").length;
}"""
FOUND = """() => {
  const words = (stop) => (stop.innerText || stop.ariaLabel || stop.name || stop.id).trim().slice(0, 40);
  const name = (stop) => `${stop.tagName.toLowerCase()} "${words(stop)}"`;
  const known = window.reached.filter((stop) => window.shadows.has(stop));
  const order = [...new Set(known)];
  const missed = window.expected.filter((stop) => !order.includes(stop));
  const isOrdered = order.every((stop, place) => stop === window.expected[place]);
  return [
    ...missed.map((stop) => `${name(stop)} is not reached`),
    ...(missed.length || isOrdered ? [] : ["the stops are not in the order of the page"]),
    ...[...new Set(window.unseen)].map((stop) => `${name(stop)} cannot be seen while it has the focus`),
  ];
}"""


def faults_on(page: Page, address: str, *, whole: bool = True) -> Iterator[str]:
    """`whole`: with the frame, which is the same on every page of a door."""
    page.goto(address)
    for _stop in range(page.evaluate(EXPECTED, whole)):
        page.keyboard.press("Tab")
    found: list[str] = page.evaluate(FOUND)
    yield from (f"{address}: {words}" for words in found)


def still(page: Page) -> Page:
    """Nothing on it changes by itself while it is looked at."""
    page.route("**/live/", lambda route: route.abort())
    return page


def one_of_each_template(person: User, addresses: Iterable[str]) -> list[str]:
    """All questions, say, are one page with other words."""
    client = Client()
    client.force_login(person)
    return list({client.get(address).templates[0].name: address for address in addresses}.values())


def test_the_console(live_house: Estate, furniture: Furniture, enter: Enter) -> None:
    pages = all_pages(live_house, furniture)
    del pages["pulse"], pages["tasks"], pages["patterns"]
    dana = still(enter(live_house.dana, "light").page)
    found = list(faults_on(dana, pages["dashboard"]))
    for address in one_of_each_template(live_house.dana, pages.values()):
        found += faults_on(dana, address, whole=False)
    assert not found, "\n".join(found)


def test_the_portal(live_house: Estate, furniture: Furniture, enter: Enter) -> None:
    told_of_everything(live_house)
    alice, bob = (still(enter(one, "light").page) for one in (live_house.alice, live_house.bob))
    names = ("home", "approvals", "notices", "screens", "choices-of-mine")
    found = [words for name in names for words in faults_on(alice, reverse(f"portal:{name}"), whole=name == "home")]
    found += faults_on(alice, reverse("portal:release", args=[live_house.desktop.pk]), whole=False)
    found += faults_on(bob, reverse("portal:ask", args=[live_house.pool.pk]), whole=False)
    found += faults_on(still(enter(None, "light").page), reverse("portal:sign-in"))
    assert not found, "\n".join(found)
