"""Names of desktops: a pattern with one run of `#` for the number, such as `office-###`.

A name is also the guest's host name, so a pattern is refused unless every name it can make is a valid one (RFC 1123).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

LONGEST = 63
"""Characters in a host name's label (RFC 1035 §2.3.4)."""
LONGEST_NETBIOS = 15
"""Characters that Windows keeps of a computer's name; what follows is cut off, and names may then be the same."""

_ALLOWED = re.compile(r"[A-Za-z0-9#-]+")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A valid pattern, taken apart. Raises ValueError, with the words of `validate`, for any other."""

    text: str

    def __post_init__(self) -> None:
        if fault := validate(self.text):
            raise ValueError(fault)

    @property
    def digits(self) -> int:
        return self.text.count("#")

    @property
    def capacity(self) -> int:
        """How many names it can make: numbers begin at 1 and never grow beyond their digits."""
        return int(10**self.digits) - 1

    def name(self, number: int) -> str:
        if not 1 <= number <= self.capacity:
            raise ValueError(f"{self.text} has no number {number}: it counts from 1 to {self.capacity}.")
        return self.text.replace("#" * self.digits, f"{number:0{self.digits}d}")


def validate(pattern: str, maximum: int | None = None) -> str | None:
    """What is wrong with a pattern, in words for its author; None if nothing is.

    With `maximum` it must also have enough numbers for that many desktops.
    """
    if not pattern:
        return "Give a naming pattern, such as office-###."
    if not _ALLOWED.fullmatch(pattern):
        return "A naming pattern holds letters (a to z), digits, hyphens and one run of #, nothing else."
    runs = re.findall(r"#+", pattern)
    if len(runs) != 1:
        return (
            f"A naming pattern has exactly one run of # for the number, such as office-###; this one has {len(runs)}."
        )
    if len(pattern) > LONGEST:
        return f"Names may have {LONGEST} characters; this pattern makes names of {len(pattern)}."
    if pattern.startswith("-") or pattern.endswith("-"):
        return "A name neither begins nor ends with a hyphen."
    if not any(character.isalpha() for character in pattern):
        return "A name has at least one letter: many guests refuse a host name of digits alone."
    if maximum is not None and maximum > 10 ** len(runs[0]) - 1:
        return f"{pattern} has numbers for {10 ** len(runs[0]) - 1} desktops, the pool may have {maximum}: add a #."
    return None


def warn(pattern: str) -> str | None:
    """What its author should know of a valid pattern; None if nothing."""
    if len(pattern) > LONGEST_NETBIOS:
        return (
            f"Names of {len(pattern)} characters: Windows cuts computer names at {LONGEST_NETBIOS}, "
            "so desktops with Windows may get the same name."
        )
    return None


def name(pattern: str, number: int) -> str:
    """`name("office-###", 7)` is `office-007`. Raises ValueError if the pattern has no such number."""
    return Pattern(pattern).name(number)


def names(pattern: str, taken: Collection[str], last_number: int, count: int) -> list[tuple[int, str]]:
    """Up to `count` free (number, name), counting on from the last number and beginning anew at 1 when they run out.

    A number used lately comes back last, so that traces of an old desktop (DNS, DHCP) do not meet a new one. Fewer come
    back if no more are free. `taken` is compared without regard to case, as host names are.
    """
    parsed = Pattern(pattern)
    busy = {word.lower() for word in taken}
    found: list[tuple[int, str]] = []
    for step in range(parsed.capacity):
        if len(found) >= count:
            break
        number = (last_number + step) % parsed.capacity + 1
        candidate = parsed.name(number)
        if candidate.lower() not in busy:
            found.append((number, candidate))
    return found
