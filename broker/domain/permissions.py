"""Who may do what. Administrators run the estate; a desktop's owner alone sees its screen.

A user who may not even know of a thing is told that there is no such thing, never that it is forbidden.
"""

from __future__ import annotations

from enum import StrEnum


class Act(StrEnum):
    SEE_DESKTOP = "see_desktop"
    CONNECT = "connect"
    """Open the screen."""
    SET_POWER = "set_power"
    RELEASE = "release"
    ADMINISTER = "administer"
    """Anything in the console: hypervisors, templates, pools, operations, drift, audit."""


OWNER_MAY = frozenset({Act.SEE_DESKTOP, Act.CONNECT, Act.SET_POWER, Act.RELEASE})
ADMINISTRATOR_MAY = frozenset({Act.SEE_DESKTOP, Act.SET_POWER, Act.RELEASE, Act.ADMINISTER})
"""Not CONNECT: an administrator who looks at a user's screen unasked is a breach, not a right."""


def may(act: Act, *, is_active: bool, is_staff: bool, is_owner: bool) -> bool:
    """Whether this person may, given the account and whether the desktop is assigned to them now."""
    if not is_active:
        return False
    return (is_owner and act in OWNER_MAY) or (is_staff and act in ADMINISTRATOR_MAY)
