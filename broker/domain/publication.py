"""The steps by which a template version comes to another hypervisor. Plain rules; `services/publication_steps.py`
carries out.

    copying   the image is read into a vault, once for all that are published together
    landing   the recovery point becomes a template there
    listing   the inventory shows it as one: only then a copy is entered, and pools build from it

What goes wrong before a template stands leaves nothing there. One that stands and is not listed yet is taken up by the
next attempt.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Step(StrEnum):
    COPYING = "copying"
    LANDING = "landing"
    LISTING = "listing"
    OVER = "over"


WAY = (Step.COPYING, Step.LANDING, Step.LISTING, Step.OVER)

WORDS: dict[Step, str] = {
    Step.COPYING: "Copies the image into the vault",
    Step.LANDING: "Makes the template",
    Step.LISTING: "Waits until it is listed",
    Step.OVER: "Over",
}

SHORT: dict[Step, str] = {
    Step.COPYING: "Copy",
    Step.LANDING: "Make",
    Step.LISTING: "List",
    Step.OVER: "Over",
}
"""For a row of steps."""

MAY_BE_CANCELLED = frozenset({Step.COPYING, Step.LANDING})
"""Once it stands there is nothing to be won by not entering it."""

LISTING_S = 900.0
"""How long a template that stands may take until a listing shows it."""
NAME_LENGTH = 63


def after(step: Step) -> Step:
    """The step that follows a good end."""
    return WAY[WAY.index(step) + 1]


def may_follow(*, has: int, new: int) -> bool:
    """Whether a member that builds from version `has` shall build from `new`: one that was given a newer version
    meanwhile keeps that."""
    return has <= new


def image_name(template: str, number: int) -> str:
    """What the template is called there unless somebody says: in letters that every platform takes."""
    ending = f"-v{number}"
    plain = re.sub(r"[^A-Za-z0-9]+", "-", template).strip("-") or "template"
    return f"{plain[: NAME_LENGTH - len(ending)].rstrip('-')}{ending}"
