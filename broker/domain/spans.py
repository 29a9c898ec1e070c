"""Lengths of time as people write and read them: "15 min", "1 h 30 min", "2 days"."""

from __future__ import annotations

import re

UNITS = {"day": 86_400, "h": 3600, "min": 60, "s": 1}
WRITTEN = re.compile(r"(\d{1,9})\s*(days?|d|hours?|h|minutes?|min|m|seconds?|sec|s)\b", re.IGNORECASE)
FIRST_LETTER = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def span_in_words(seconds: int) -> str:
    """Exactly: 5400 -> "1 h 30 min". What `span_of` reads back."""
    parts = []
    rest = max(seconds, 0)
    for unit, length in UNITS.items():
        number, rest = divmod(rest, length)
        if number:
            parts.append(f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}")
    return " ".join(parts) or "0 s"


def roughly(seconds: float) -> str:
    """For what was measured: no seconds from an hour on, and no more than two units."""
    whole = round(seconds)
    for length, grain in ((86_400, 3600), (3600, 60)):
        if whole >= length:
            whole -= whole % grain
            break
    return span_in_words(whole)


def span_of(text: str) -> int:
    """Seconds of what people write. Raises ValueError for what is no length of time."""
    matches = WRITTEN.findall(text)
    left = WRITTEN.sub("", text).strip(" ,")
    if not matches or left:
        raise ValueError("Write a number and a unit, such as 15 min, 4 h or 1 day.")
    return sum(int(number) * FIRST_LETTER[unit[0].lower()] for number, unit in matches)
