"""What people, tools and attackers send that is not what a field asks for."""

from __future__ import annotations

from uuid import uuid4

from tests.broker.forms.finding import Control, Form

NOWHERE = str(uuid4())
HUGE, BEYOND = "9" * 30, "3000000000"
"""More than a machine's word, and more than a column of the database."""
NUL = "of\0fice"
ODD = ("bell\x07", "\u202egnp.exe", "desk \U0001f5a5", "two\r\nlines", "<b>'\"{{ 7*7 }}", "\ud800", NUL, NOWHERE)
"""What may be taken or refused, and must break nothing."""
LONG = "x" * 20_000
WRITTEN = {"text", "textarea", "email", "search", "url", "password"}
CHOSEN = {"select", "radio", "select-many", "checkbox-many"}
UNREADABLE = {"time": "25:61", "date": "2026-02-30", "datetime-local": "yesterday", "email": "nobody"}
PRESSED = {("console:policy-choose", "tag"): ("put_tag", "on")}
"""The button without which a field is not looked at."""
GOOD = {"naming": "made-###", "password": "a long enough password"}
"""Values that must be of a certain form."""


def spoiled(control: Control) -> list[str]:
    """Values that the control cannot mean: each must be refused."""
    if control.kind in CHOSEN:
        return ["no such choice", NOWHERE, NUL]
    found = [""] if control.is_required else []
    if control.kind in WRITTEN:
        found.append(NUL)
        found += ["x" * (control.longest + 1)] if control.longest is not None else []
    if control.kind in UNREADABLE:
        found.append(UNREADABLE[control.kind])
    if control.kind == "number":
        found += ["many", "1e999", HUGE, BEYOND]
        found += [str(int(control.lowest) - 1)] if control.lowest is not None else []
        found += [str(int(control.highest) + 1)] if control.highest is not None else []
    return found


def asked_for(form: Form, control: Control) -> dict[str, list[str]] | None:
    """What must be chosen or pressed elsewhere so that this one is asked at all; None: it cannot be here."""
    button, value = PRESSED.get((form.name, control.name), ("", ""))
    pressed = {button: [value]} if button else {}
    if not control.when:
        return pressed
    other, _is, values = control.when.partition("=")
    above = form.controls.get(other)
    needed = asked_for(form, above) if above else None
    return None if needed is None else needed | pressed | {other: [values.split()[0]]}


def filled(form: Form) -> dict[str, list[str]]:
    """Something for whatever must be given and is empty."""
    given = {name for name, value in form.values if value}
    return {
        name: [_something(control)]
        for name, control in form.controls.items()
        if name not in given and (control.is_required or control.kind in {"radio", "checkbox-many"})
    }


def _something(control: Control) -> str:
    if control.options:
        return control.options[0]
    if control.kind == "number":
        return str(int(control.lowest or 1))
    usual = {"time": "08:30", "email": "someone@example.org"}
    return GOOD.get(control.name) or usual.get(control.kind, "something")
