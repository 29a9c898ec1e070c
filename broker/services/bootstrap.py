"""The first accounts of an installation. For operators at the machine: no actor, no permission, any password."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction

from broker.services import audit


def ensure_account(*, name: str, password: str, is_administrator: bool) -> tuple[User, bool]:
    """The account of that name, and whether it was made now. One that exists keeps its password and its rights."""
    with transaction.atomic():
        user = User.objects.filter(username__iexact=name).first()
        if user is not None:
            return user, False
        user = User.objects.create_user(name, password=password, is_staff=is_administrator)
        shown = {"administrator": [None, is_administrator]}
        audit.record(actor=None, action="user.create", subject=user, changes=shown)
    return user, True


def reset_password(*, user: User, password: str) -> None:
    """Give an account the password that the operator chose. Does nothing if it has that one."""
    if user.check_password(password):
        return
    with transaction.atomic():
        user.set_password(password)
        user.save(update_fields=["password"])
        shown = {"password": ["(secret)", "(secret)"]}
        audit.record(actor=None, action="user.set_password", subject=user, changes=shown)
