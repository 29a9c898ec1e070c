"""What happens in a soak, and when: drawn from a seed alone, so that the same seed gives the same troubles."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    JOIN = "join"
    """A user asks for a desktop."""
    LEAVE = "leave"
    """A user gives theirs back."""
    POWER = "power"
    """A schedule switches ready desktops off or on."""
    LOSE = "lose"
    """A platform is cut off, until `ends_s`."""
    BREAK = "break"
    """A platform answers with a fault, so often."""
    STUMBLE = "stumble"
    """A task of a platform fails at half its time."""
    FORGET = "forget"
    """A platform forgets all sessions."""


HTTP_FAULTS = ("drop_before", "drop_after", "truncate", "500", "503", "429")


@dataclass(frozen=True, slots=True, order=True)
class Happening:
    """At `at_s` virtual seconds."""

    at_s: float
    what: What
    subject: str = ""
    """User or kind of platform."""
    detail: str = ""
    ends_s: float = 0.0


def happenings(seed: int, *, users: int, kinds: Sequence[str], lasts_s: float, troubles: int) -> list[Happening]:
    """In the order in which they happen. The last quarter is free of new troubles, so that all can heal."""
    dice = random.Random(seed)
    found: list[Happening] = []
    for number in range(users):
        at = dice.uniform(0, lasts_s * 0.8)
        found.append(Happening(at, What.JOIN, f"user{number}"))
        if dice.random() < 0.5:
            found.append(Happening(min(lasts_s, at + dice.uniform(20, lasts_s / 2)), What.LEAVE, f"user{number}"))
    for _ in range(troubles):
        at, kind = dice.uniform(0, lasts_s * 0.75), dice.choice(list(kinds))
        what = dice.choice((What.LOSE, What.BREAK, What.BREAK, What.STUMBLE, What.FORGET))
        detail = dice.choice(HTTP_FAULTS) if what is What.BREAK else ""
        found.append(Happening(at, what, kind, detail, at + dice.uniform(10, 60)))
    for number, at in enumerate((lasts_s * 0.3, lasts_s * 0.6)):
        found.append(Happening(at, What.POWER, detail="off" if number % 2 == 0 else "on"))
    return sorted(found)
