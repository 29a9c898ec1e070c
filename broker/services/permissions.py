"""Who may do what. One place, so that every door refuses in the same words."""

from __future__ import annotations

from django.contrib.auth.models import User

from broker.services.errors import Forbidden


def is_administrator(user: User) -> bool:
    """Administrators are Django's staff whose account is active."""
    return user.is_active and user.is_staff


def require_administrator(actor: User) -> None:
    """Raises `Forbidden` unless the actor is an administrator."""
    if not is_administrator(actor):
        raise Forbidden("Only administrators may do this.")
