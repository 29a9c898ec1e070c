"""Every form of console and portal, found by reading the pages: a new one is covered without anybody thinking of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

from django.test import Client
from django.urls import resolve, reverse
from lxml import html

from broker.services.hypervisors import connector_kinds
from tests.broker.console.furniture import Furniture
from tests.broker.console.pages import all_pages
from tests.broker.portal.cast import Estate

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Answer

SPEAKING = "input", "select", "textarea"
SILENT = {"submit", "button", "image", "reset", "file"}
TOKEN = "csrfmiddlewaretoken"


@dataclass(frozen=True)
class Control:
    """What one name of a form stands for."""

    name: str
    kind: str
    """The input's type, "select", "select-many" or "textarea"; "checkbox-many" where several bear the name."""
    is_required: bool = False
    longest: int | None = None
    lowest: float | None = None
    highest: float | None = None
    options: tuple[str, ...] = ()
    """What may be chosen, without the empty one; of a name that must be typed to confirm, that name."""
    when: str = ""
    """For which values of which other control it is asked."""


@dataclass(frozen=True)
class Form:
    """One form as its page shows it."""

    page: str
    address: str
    values: tuple[tuple[str, str], ...]
    """What a browser would send without anybody touching it, the token and buttons left out."""
    controls: Mapping[str, Control] = field(hash=False)
    buttons: tuple[tuple[str, str], ...] = ()
    token: str = ""
    """Of the rendering of its page."""

    @property
    def name(self) -> str:
        """Of its view: "console:pool-edit"."""
        return resolve(urlsplit(self.address).path).view_name

    def lists(self) -> dict[str, list[str]]:
        """The values by their names."""
        found: dict[str, list[str]] = {}
        for name, value in self.values:
            found.setdefault(name, []).append(value)
        return found

    def with_(self, changed: Mapping[str, list[str]]) -> list[tuple[str, str]]:
        kept = [(name, value) for name, value in self.values if name not in changed]
        return kept + [(name, value) for name, values in changed.items() for value in values]


def send(client: Client, address: str, pairs: list[tuple[str, str]], **more: Any) -> Answer:
    body = urlencode(pairs, errors="surrogatepass")
    return client.post(address, body, content_type="application/x-www-form-urlencoded", **more)


def forms_on(page: str, address: str, content: bytes) -> Iterator[Form]:
    """All that are sent by POST."""
    if not content.strip():
        return
    for element in html.fromstring(content).iter("form"):
        if (element.get("method") or "").lower() == "post":
            yield _form(page, urljoin(address, element.get("action") or address), element)


def _form(page: str, address: str, element: Any) -> Form:
    speaking = [one for one in element.iter(*SPEAKING) if one.get("name") and one.get("type") not in SILENT]
    speaking = [one for one in speaking if one.get("disabled") is None]
    names = dict.fromkeys(one.get("name") for one in speaking)
    controls = {name: _control([one for one in speaking if one.get("name") == name]) for name in names if name != TOKEN}
    values = tuple((one.get("name"), value) for one in speaking for value in _said(one) if one.get("name") != TOKEN)
    token = next((one.get("value", "") for one in speaking if one.get("name") == TOKEN), "")
    pressed = [one for one in element.iter("button") if one.get("name")]
    return Form(
        page, address, values, controls, tuple((one.get("name"), one.get("value") or "") for one in pressed), token
    )


def _said(element: Any) -> Iterator[str]:
    """What a browser sends of it."""
    if element.tag == "textarea":
        yield (element.text or "").removeprefix("\n")
    elif element.tag == "select":
        options = list(element.iter("option"))
        chosen = [one for one in options if one.get("selected") is not None]
        is_many = element.get("multiple") is not None
        yield from (one.get("value", one.text or "") for one in (chosen or ([] if is_many else options[:1])))
    elif element.get("type") not in ("checkbox", "radio"):
        yield element.get("value", "")
    elif element.get("checked") is not None:
        yield element.get("value", "on")


def _control(elements: list[Any]) -> Control:
    first = elements[0]
    kind = first.get("type", "text") if first.tag == "input" else first.tag
    options: list[str] = []
    if first.tag == "select":
        options = [one.get("value", one.text) for one in first.iter("option")]
        kind = "select-many" if first.get("multiple") is not None else "select"
    elif kind in ("radio", "checkbox"):
        options = [one.get("value", "on") for one in elements]
        kind = "checkbox-many" if kind == "checkbox" and len(elements) > 1 else kind
    if first.get("name") == "typed_name":
        options = [one.text_content() for form in first.iterancestors("form") for one in form.cssselect("label b")]
    place = next((one for one in first.iterancestors() if one.get("data-when")), None)
    return Control(
        first.get("name"), kind, first.get("required") is not None,
        longest=_number(first, "maxlength", int), lowest=_number(first, "min", float),
        highest=_number(first, "max", float), options=tuple(one for one in options if one),
        when=place.get("data-when") if place is not None else "",
    )  # fmt: skip


def _number(element: Any, name: str, make: Any) -> Any:
    found = element.get(name)
    try:
        return make(found) if found else None
    except ValueError:
        return None


def forms_of_console(house: Estate, furniture: Furniture, dana: Client) -> list[Form]:
    """Of all pages, each form once."""
    kinds = {
        f"hypervisor-add {one.kind}": reverse("console:hypervisor-add", args=[one.kind]) for one in connector_kinds()
    }
    pages = all_pages(house, furniture) | kinds
    return _once(form for name, address in pages.items() for form in forms_on(name, address, dana.get(address).content))


def forms_of_portal(client: Client) -> list[Form]:
    """Of all pages that can be reached from the first one."""
    return _once(_walked(client, [reverse("portal:home")]))


def _walked(client: Client, waiting: list[str]) -> Iterator[Form]:
    seen: set[str] = set()
    while waiting:
        address = waiting.pop()
        path = urlsplit(address).path
        if address in seen or path.startswith(("/console/", "/static/", "/api/")) or "://" in address:
            continue
        seen.add(address)
        answer = client.get(address)
        if not answer.headers.get("Content-Type", "").startswith("text/html") or not answer.content:
            continue
        yield from forms_on(path, address, answer.content)
        for element in html.fromstring(answer.content).iter():
            for name in ("href", "hx-get"):
                found = element.get(name) if isinstance(element.tag, str) else None
                if found and element.tag in ("a", "div", "form", "button"):
                    waiting.append(urljoin(address, found.partition("#")[0]))


def _once(forms: Iterator[Form]) -> list[Form]:
    found: dict[tuple[object, ...], Form] = {}
    for form in forms:
        found.setdefault((form.name, frozenset(form.controls), form.buttons), form)
    return list(found.values())
