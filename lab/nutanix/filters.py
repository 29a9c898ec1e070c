"""As much of OData's `$filter` as Prism's clients use: `eq`, `startswith`, `and`, `or`, quoted strings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


class BadFilter(ValueError):
    """Not understood: answered with 400."""


_TERM = re.compile(
    r"\s*(?:(?P<field>[\w/]+)\s+eq\s+'(?P<value>(?:[^']|'')*)'|"
    r"startswith\(\s*(?P<prefixed>[\w/]+)\s*,\s*'(?P<prefix>(?:[^']|'')*)'\s*\))\s*"
)


def fits(text: str, item: Mapping[str, Any]) -> bool:
    """Whether the item is meant. Raises `BadFilter`."""
    at, anyone, everyone = 0, False, True
    while True:
        found = _TERM.match(text, at)
        if found is None:
            raise BadFilter(text)
        everyone = everyone and _is_true(found, item)
        at = found.end()
        if at >= len(text):
            return anyone or everyone
        if text.startswith("and ", at):
            at += 4
        elif text.startswith("or ", at):
            anyone, everyone, at = anyone or everyone, True, at + 3
        else:
            raise BadFilter(text)


def fields(text: str) -> set[str]:
    """What a filter asks after."""
    return {found["field"] or found["prefixed"] for found in _TERM.finditer(text)}


def _is_true(term: re.Match[str], item: Mapping[str, Any]) -> bool:
    if term["field"]:
        return _value(term["field"], item) == term["value"].replace("''", "'")
    return _value(term["prefixed"], item).startswith(term["prefix"].replace("''", "'"))


def _value(field: str, item: Mapping[str, Any]) -> str:
    value: Any = item
    for part in field.split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return str(value) if value is not None else ""
