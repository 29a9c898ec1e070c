"""Who calls: a bearer token, or a signed-in browser on our own pages (with CSRF protection)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest
from ninja.errors import AuthenticationError, HttpError
from ninja.security.base import AuthBase
from ninja.utils import check_csrf

from broker.models import ApiToken
from broker.services import people
from broker.services.errors import Forbidden
from broker.services.permissions import Right, has, require

__all__ = ["ANYBODY_SIGNED_IN", "Caller", "Right", "caller", "person", "staff"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose rights a request has, and what a screen opened by it is bound to: a token or a browser session."""

    user: User
    """Never saved: a token without the scope `admin` holds a user without an administrator's rights."""
    token: ApiToken | None = None
    session_key: str = ""

    @property
    def sees_all(self) -> bool:
        """Whether lists hold the whole estate, not only what is their own."""
        return has(self.user, Right.SEE)

    @property
    def may_use_portal(self) -> bool:
        return self.token is None or people.PORTAL in self.token.scopes


class BearerToken(AuthBase):
    """`Authorization: Bearer TOKEN`, as made in the console or by `manage.py api_token`."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __call__(self, request: HttpRequest) -> Caller | None:
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, plain = header.partition(" ")
        token = people.token_user(plain.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            # Whoever shows a token means it: a session beside it is not asked.
            raise AuthenticationError
        return Caller(user=_within_scopes(token), token=token)


class BrowserSession(AuthBase):
    """The session cookie of a signed-in browser; whatever changes something carries the CSRF token as well."""

    openapi_type = "apiKey"
    openapi_in = "cookie"
    openapi_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> Caller | None:
        user = request.user
        if not isinstance(user, User) or not user.is_active:
            return None
        if check_csrf(request) is not None:
            raise HttpError(403, "The CSRF token is missing or wrong. Send it as X-CSRFToken.")
        return Caller(user=user, session_key=request.session.session_key or "")


ANYBODY_SIGNED_IN: list[Callable[[HttpRequest], Caller | None]] = [BearerToken(), BrowserSession()]


def caller(request: HttpRequest) -> Caller:
    """Who calls; there is always somebody behind `ANYBODY_SIGNED_IN`."""
    found: Caller = request.auth  # type: ignore[attr-defined] # set by django-ninja
    return found


def staff(request: HttpRequest, right: Right = Right.SEE) -> User:
    """The caller as somebody whose role has this right. Raises `Forbidden`, also for a token without the scope.

    Services ask again: this is so that nobody learns from what was wrong with their wish whether something exists.
    """
    user = caller(request).user
    require(user, right)
    return user


def person(request: HttpRequest) -> Caller:
    """The caller as somebody who uses desktops. Raises `Forbidden` for a token without the scope `portal`."""
    found = caller(request)
    if not found.may_use_portal:
        raise Forbidden("This token lacks the scope portal.")
    return found


def _within_scopes(token: ApiToken) -> User:
    if people.ADMIN in token.scopes:
        return token.user
    user = copy.copy(token.user)
    user.is_staff = user.is_superuser = False
    return user
