"""Checks what people typed, field by field, and refuses all of it at once with a message per field.

Names may hold spaces, quotes, slashes and any script: they are data, never part of a path, a query or a command.
Only what cannot be shown on one line is refused.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from django.db import models

from broker.services.errors import Invalid

NAME_LENGTH = 100
TEXT_LENGTH = 20_000
WHOLE_LIMIT = 2_147_483_647
"""The largest number that PostgreSQL keeps in an integer column."""


class Intake:
    """Collects what is wrong; `refuse_faults` raises it. Each reader returns the cleaned value, good or not."""

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}

    def name(self, field: str, value: str, *, length: int = NAME_LENGTH) -> str:
        """One printable line, trimmed, in Unicode's composed form, so that equal names are equal."""
        cleaned = unicodedata.normalize("NFC", value).strip()
        if not cleaned:
            self.faults[field] = "Give a name."
        elif len(cleaned) > length:
            self.faults[field] = f"At most {length} characters; these are {len(cleaned)}."
        elif not cleaned.isprintable():
            self.faults[field] = "Only printable characters on one line: no line breaks, tabs or invisible characters."
        return cleaned

    def line(self, field: str, value: str, *, length: int = NAME_LENGTH) -> str:
        """Like a name, but may be empty."""
        return self.name(field, value, length=length) if value.strip() else ""

    def text(self, field: str, value: str, *, length: int = TEXT_LENGTH) -> str:
        """Several lines, trimmed; may be empty. Line breaks and tabs are its only control characters."""
        cleaned = unicodedata.normalize("NFC", value).replace("\r\n", "\n").strip()
        if len(cleaned) > length:
            self.faults[field] = f"At most {length} characters; these are {len(cleaned)}."
        elif any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t" for character in cleaned):
            self.faults[field] = "No control characters other than line breaks and tabs."
        return cleaned

    def whole(self, field: str, value: int, *, lowest: int = 0, highest: int = WHOLE_LIMIT) -> int:
        if not lowest <= value <= highest:
            self.faults[field] = f"A whole number from {lowest} to {highest}."
        return value

    def choice(self, field: str, value: str, choices: type[models.TextChoices]) -> str:
        if value not in choices.values:
            self.faults[field] = f"One of: {', '.join(choices.values)}."
        return value

    def free_name(self, field: str, name: str, taken: models.QuerySet[Any], what: str) -> str:
        """The name, refused if a row of `taken` (leave the row itself out) has it in any mix of capitals."""
        if field not in self.faults and taken.filter(**{f"{field}__iexact": name}).exists():
            self.faults[field] = f"There is already a {what} of that name."
        return name

    def refuse_faults(self, message: str) -> None:
        """Raises `Invalid` with everything found so far, if anything was."""
        if self.faults:
            raise Invalid(message, self.faults)
