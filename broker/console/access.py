"""Who may come in: whoever has a role, and to each page who has its right. Others are sent to the sign-in or told so;
nothing is looked up for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.urls import Resolver404, resolve

from broker.services.permissions import Right, has, refusal

__all__ = ["Can", "Right", "actor_of", "can", "insist", "is_staff", "needs", "right_at", "staff_only"]

P = ParamSpec("P")
Page = Callable[Concatenate[HttpRequest, P], HttpResponseBase]
READING = ("GET", "HEAD")
LOOKING = (Right.SEE, Right.REVIEW)
"""Rights that change nothing."""


def is_staff(user: Any) -> bool:
    return has(user, Right.SEE)


def needs(right: Right, *, sending: Right | None = None) -> Callable[[Page[P]], Page[P]]:
    """A page that this right opens. Who may only look can send nothing to it, unless `sending` says what that takes.

    403 with the role that may for whoever lacks it; the sign-in, and then back here, for strangers. Services ask again:
    this is so that nobody is shown a form that would be refused.
    """

    def guard(page: Page[P]) -> Page[P]:
        to_send = sending or (Right.SERVE if right in LOOKING else right)

        @wraps(page)
        def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            insist(request, right if request.method in READING else to_send)
            return page(request, *args, **kwargs)

        guarded.right = right  # type: ignore[attr-defined] # read by `right_at`
        return guarded

    return guard


def staff_only(page: Page[P]) -> Page[P]:
    """Every role sees it."""
    return needs(Right.SEE)(page)


def insist(request: HttpRequest, right: Right) -> None:
    """Raises `PermissionDenied` in words that say who may."""
    if not has(request.user, right):
        raise PermissionDenied(refusal(request.user, right))


def actor_of(request: HttpRequest) -> User:
    """Who asks, on a page that only staff reaches."""
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user


@dataclass(frozen=True, slots=True)
class Can:
    """What pages ask before they offer something: `can.operate`, `url|reached_by:can`. Without a statement."""

    user: Any

    @property
    def review(self) -> bool:
        return has(self.user, Right.REVIEW)

    @property
    def serve(self) -> bool:
        return has(self.user, Right.SERVE)

    @property
    def operate(self) -> bool:
        return has(self.user, Right.OPERATE)

    @property
    def administer(self) -> bool:
        return has(self.user, Right.ADMINISTER)

    def reach(self, address: str) -> bool:
        """Whether the page there opens; addresses that are nobody's are not forbidden."""
        if self.administer:
            return True
        right = right_at(address.partition("?")[0])
        return right is None or has(self.user, right)


@lru_cache(maxsize=4096)
def right_at(path: str) -> Right | None:
    """What the page at a path of ours needs; None: nothing of the console's."""
    try:
        return getattr(resolve(path).func, "right", None)
    except Resolver404:
        return None


def can(request: HttpRequest) -> dict[str, Can]:
    """For every template."""
    return {"can": Can(request.user)} if hasattr(request, "user") else {}
