"""How a signed-in account is loaded: with its role, in one statement."""

from __future__ import annotations

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.db.models import QuerySet


class Accounts(ModelBackend):
    """Django's own, except that what the account may do comes with it: no page asks for it a second time, and code
    without a thread for statements need not ask at all."""

    def get_user(self, user_id: int) -> User | None:
        return self._open(_with_role(user_id).first())

    async def aget_user(self, user_id: int) -> User | None:
        return self._open(await _with_role(user_id).afirst())

    def _open(self, user: User | None) -> User | None:
        return user if user is not None and self.user_can_authenticate(user) else None


def _with_role(user_id: int) -> QuerySet[User]:
    return User.objects.select_related("staff_role").filter(pk=user_id)
