"""Who may do what. One place, so that every door refuses in the same words."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User

from broker.domain.permissions import NAMES, Right, Role, has, least, role_kept, role_of
from broker.services.errors import Forbidden

__all__ = ["Right", "Role", "has", "is_administrator", "refusal", "require", "role_kept", "role_of"]


def is_administrator(user: Any) -> bool:
    return has(user, Right.ADMINISTER)


def require(actor: User, right: Right) -> None:
    """Raises `Forbidden`, in words that say who may."""
    if not has(actor, right):
        raise Forbidden(refusal(actor, right))


def refusal(user: Any, right: Right) -> str:
    """What somebody without the right is told: which role it takes."""
    role = role_of(user)
    if role is None:
        return "This takes a role in the console. Ask an administrator."
    return f"Your role is {NAMES[role].lower()}. This takes the role {NAMES[least(right)].lower()} or a wider one."
