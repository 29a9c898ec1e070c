"""Who may do what: roles in the console, and what a desktop's owner alone may.

A user who may not even know of a thing is told that there is no such thing, never that it is forbidden.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Right(StrEnum):
    """What the roles differ in. Each is there for all of the estate."""

    SEE = "see"
    """Desktops, pools, hypervisors, requests, operations, people: what helping somebody needs to know."""
    REVIEW = "review"
    """All the rest: the audit log, templates, schedules, networks, replication, drift. Secrets nobody is shown."""
    SERVE = "serve"
    """Help people: power, release, recycling, maintenance, requests, failed operations, guests' certificates."""
    OPERATE = "operate"
    """Run the estate: pools, templates, entitlements, schedules, networks, replication, drift; delete desktops."""
    ADMINISTER = "administer"
    """Hypervisors and vaults with their secrets, accounts, roles and other people's tokens."""


class Role(StrEnum):
    ADMINISTRATOR = "administrator"
    OPERATOR = "operator"
    HELP_DESK = "help_desk"
    AUDITOR = "auditor"


RIGHTS: dict[Role, frozenset[Right]] = {
    Role.ADMINISTRATOR: frozenset(Right),
    Role.OPERATOR: frozenset({Right.SEE, Right.REVIEW, Right.SERVE, Right.OPERATE}),
    Role.HELP_DESK: frozenset({Right.SEE, Right.SERVE}),
    Role.AUDITOR: frozenset({Right.SEE, Right.REVIEW}),
}
"""Nobody may look at another user's screen: that is a breach, not a right."""

NAMES = {
    Role.ADMINISTRATOR: "Administrator",
    Role.OPERATOR: "Operator",
    Role.HELP_DESK: "Help desk",
    Role.AUDITOR: "Auditor",
}
MEANS = {
    Role.ADMINISTRATOR: "May do everything in the console.",
    Role.OPERATOR: "Runs pools, templates, schedules and replication; no hypervisors’ secrets, no accounts.",
    Role.HELP_DESK: "Sees desktops and people and helps them: power, release, recycling, requests, failed operations.",
    Role.AUDITOR: "Sees everything and changes nothing.",
}

WORDS = {
    Right.SEE: "See desktops, pools, hypervisors, people, requests and operations",
    Right.REVIEW: "See the audit log, templates, schedules, networks, drift and replication",
    Right.SERVE: "Help people: power, release, recycling, maintenance, requests, failed operations",
    Right.OPERATE: "Run pools, templates, entitlements, schedules, networks and replication; delete desktops",
    Right.ADMINISTER: "Manage hypervisors and vaults with their secrets, accounts, roles and tokens",
}
"""What each right is, as it stands on a person's page."""


def rights_of(role: Role | None) -> frozenset[Right]:
    """None: somebody without a role, who uses the portal alone."""
    return RIGHTS[role] if role else frozenset()


def least(right: Right) -> Role:
    """The narrowest role that has a right."""
    return min((role for role, rights in RIGHTS.items() if right in rights), key=lambda role: len(RIGHTS[role]))


def role_of(user: Any) -> Role | None:
    """None for users of the portal, strangers and closed accounts. Of a signed-in account: without a statement."""
    return role_kept(user) if user.is_active else None


def role_kept(user: Any) -> Role | None:
    """What a closed account will have when it is open again, too.

    Django's staff are administrators, unless a row says that they are less.
    """
    if not user.is_staff:
        return None
    narrowed = getattr(user, "staff_role", None)
    return Role(narrowed.role) if narrowed else Role.ADMINISTRATOR


def has(user: Any, right: Right) -> bool:
    return right in rights_of(role_of(user))
