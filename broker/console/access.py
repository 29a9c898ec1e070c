"""Who may come in: administrators. Everybody else is sent to the sign-in or told so; nothing is looked up for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase

from broker.domain.permissions import Act, may

P = ParamSpec("P")
Page = Callable[Concatenate[HttpRequest, P], HttpResponseBase]


def is_administrator(user: Any) -> bool:
    return may(Act.ADMINISTER, is_active=user.is_active, is_staff=user.is_staff, is_owner=False)


def administrators_only(page: Page[P]) -> Page[P]:
    """403 for signed-in users who are none; the sign-in, and then back here, for strangers."""

    @wraps(page)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        if not is_administrator(request.user):
            raise PermissionDenied
        return page(request, *args, **kwargs)

    return guarded


def administrator(request: HttpRequest) -> User:
    """Who asks, on a page that only administrators reach."""
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user
