"""Bad input on every form: a page and never an error of ours, words beside the field, all else as it was typed, and
nothing changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from lxml import html

from tests.broker.console.conftest import as_, dana, furniture, house
from tests.broker.console.furniture import Furniture
from tests.broker.forms.finding import Form, forms_of_console, forms_of_portal, forms_on, send
from tests.broker.forms.spoiling import CHOSEN, LONG, ODD, WRITTEN, asked_for, filled, spoiled
from tests.broker.gallery.test_gallery import told_of_everything
from tests.broker.portal.cast import Estate

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Answer

__all__ = ["as_", "dana", "furniture", "house"]

WRITING = re.compile(r'(?:INSERT INTO|UPDATE|DELETE FROM) "(?!django_session)')
SAVEPOINT, BACK = re.compile(r'SAVEPOINT "(\w+)"'), re.compile(r'ROLLBACK TO SAVEPOINT "(\w+)"')
SHOWN = (200, 409, 422)
"""How a form is shown again."""
NO_FORMS = {"console:patterns"}
"""Shows what forms look like."""
NOT_WRITTEN = {
    ("console:desktops-change", "desktop"): "rows of a list that may have changed: the question says how many are left",
    ("console:requests-decide", "request"): "the same",
}
"""Fields whose bad values need no words beside them, each with its reason."""
ELSEWHERE = {"console:vault-add": {"bucket", "endpoint", "region", "within", "access_key", "secret_key"}}
"""Fields whose values, if they can be meant, make the broker ask a server somewhere."""

Typed = Mapping[str, list[str]]


@contextmanager
def _undone() -> Iterator[list[str]]:
    """The statements that changed something while the block lasted; afterwards all is as it was."""
    written: list[str] = []
    marks: dict[str, int] = {}

    def note(execute: Callable[..., Any], sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if WRITING.match(sql):
            written.append(sql[:120])
        elif begun := SAVEPOINT.match(sql):
            marks[begun[1]] = len(written)
        elif undone := BACK.match(sql):
            del written[marks[undone[1]] :]
        return execute(sql, parameters, many, context)

    with transaction.atomic(), connection.execute_wrapper(note):
        yield written
        transaction.set_rollback(True)


@dataclass(frozen=True)
class Shown:
    """What came of sending a form."""

    answer: Answer
    form: Form | None
    """As it is shown again."""
    written: list[str]

    def says_beside(self, name: str) -> bool:
        """Whether words stand with the field, and the field, or the group it is in, leads to them."""
        page = html.fromstring(self.answer.content)
        fields = [one for one in page.iter("input", "select", "textarea") if one.get("name") == name]
        groups = [one for field in fields for one in field.iterancestors() if _is_group(one)]
        leading = [one for one in fields if one.get("aria-invalid") == "true"] + groups
        ids = [target for one in leading for target in one.get("aria-describedby", "").split()]
        places = [page.get_element_by_id(one, None) for one in ids if one.endswith("-error")]
        return any(place is not None and place.text_content().strip() for place in places)

    def lost(self, sent: Typed, spoilt: set[str]) -> list[str]:
        """Names whose values were typed and stand there no longer. A choice that there is not cannot be kept."""
        if self.form is None:
            return []
        now = self.form.lists()
        return [
            name
            for name, values in sent.items()
            if (control := self.form.controls.get(name))
            and control.kind not in ("password", "hidden")
            and not (name in spoilt and control.kind in CHOSEN)
            and not any("\0" in value or "\ud800" in value for value in values)
            and sorted(filter(None, map(_plain, values))) != sorted(filter(None, map(_plain, now.get(name, []))))
        ]


def _is_group(element: Any) -> bool:
    return element.tag == "fieldset" or element.get("role") in ("group", "radiogroup")


def _plain(value: str) -> str:
    """Without what HTML itself changes."""
    return value.replace("\r\n", "\n").strip("\n")


def sent_to(client: Client, form: Form, typed: Typed) -> Shown:
    """Nothing of it stays."""
    with _undone() as written:
        answer = send(client, form.address, form.with_(typed))
        return Shown(answer, _shown_again(answer, form, set(typed)), list(written))


def _shown_again(answer: Answer, form: Form, names: set[str]) -> Form | None:
    if answer.status_code not in SHOWN:
        return None
    needed = names & set(form.controls)
    return next((one for one in forms_on(form.page, form.address, answer.content) if needed <= set(one.controls)), None)


class Examination:
    """Of one form, by somebody signed in. `found` says what is wrong with it."""

    def __init__(self, client: Client, form: Form) -> None:
        self.client, self.form = client, form
        self.found: list[str] = []
        self.good = filled(form)

    def run(self) -> list[str]:
        bad = {name: values for name, one in self.form.controls.items() if (values := spoiled(one))}
        for number in range(max(map(len, bad.values()), default=0)):
            self._spoil_all({name: values[number % len(values)] for name, values in bad.items()})
        written = {name for name, one in self.form.controls.items() if one.kind in WRITTEN | {"hidden"}}
        for odd in (*ODD, LONG):
            self._sent({name: [odd] for name in written - ELSEWHERE.get(self.form.name, set())})
        return self.found

    def _spoil_all(self, values: Mapping[str, str]) -> None:
        """All fields at once, and each alone of which nothing was said then: it may not have been asked for, or what
        is wrong with it is found once nothing else is."""
        shown = self._sent({name: [value] for name, value in values.items()})
        for name, value in values.items():
            if shown.form is None or shown.answer.status_code == 200 or not shown.says_beside(name):
                self._spoil_one(name, value)

    def _spoil_one(self, name: str, value: str) -> None:
        control = self.form.controls[name]
        needed = asked_for(self.form, control)
        if needed is None or control.kind == "hidden" or (self.form.name, name) in NOT_WRITTEN:
            return
        shown = self._sent(needed | {name: [value]})
        if shown.answer.status_code < 400:
            self._complain(shown, f"{name}={value[:30]!r} was taken")
        elif shown.form is None:
            self._complain(shown, f"{name}={value[:30]!r}: the form is gone")
        elif not shown.says_beside(name):
            self._complain(shown, f"{name}={value[:30]!r}: nothing is said beside it")

    def _sent(self, typed: Typed) -> Shown:
        whole = self.good | dict(typed)
        shown = sent_to(self.client, self.form, whole)
        status = shown.answer.status_code
        if status >= 500:
            self._complain(shown, f"on {typed}")
        if status >= 400 and shown.written:
            self._complain(shown, f"refused, but changed something: {shown.written[0]}")
        if status >= 400 and (lost := shown.lost(self.form.lists() | whole, set(typed))):
            self._complain(shown, f"lost {lost} of {str(typed)[:80]}")
        return shown

    def _complain(self, shown: Shown, words: str) -> None:
        self.found.append(f"{self.form.name} ({shown.answer.status_code}): {words}"[:300])


def examined(client: Client, forms: list[Form]) -> list[str]:
    client.raise_request_exception = False
    return [
        words
        for form in forms
        if form.name not in NO_FORMS and form.controls
        for words in Examination(client, form).run()
    ]


def test_the_console_takes_no_bad_input(house: Estate, furniture: Furniture, dana: Client) -> None:
    forms = forms_of_console(house, furniture, dana)
    found = examined(dana, forms)
    assert not found, "\n".join(found)
    assert len(forms) > 80


def test_the_portal_takes_no_bad_input(house: Estate, furniture: Furniture, as_: Callable[[User], Client]) -> None:
    told_of_everything(house)
    found: list[str] = []
    for person in (house.alice, house.bob):
        client = as_(person)
        found += examined(client, forms_of_portal(client))
    assert not found, "\n".join(found)
