"""How the portal's views answer: a page, a fragment for htmx, or a few words in a corner."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, cast
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url

from broker.services import screens
from broker.services.errors import Invalid, Missing, Refusal
from broker.services.native import ClientFile

ARRIVED = "arrived"
"""In the session until the first page was shown: its person has just signed in."""

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def is_htmx(request: HttpRequest) -> bool:
    return request.headers.get("HX-Request") == "true"


def person(request: HttpRequest) -> User:
    """Who is signed in. Only behind `signed_in`."""
    return cast(User, request.user)


def here(request: HttpRequest) -> str:
    """The hash of this browser session's key, as screens carry it; empty without one."""
    key = request.session.session_key
    return screens.digest(key) if key else ""


def signed_in(view: View[P]) -> View[P]:
    """Only for those who are signed in; others go to the sign-in page, and back afterwards.

    What is not theirs does not exist for them: `Missing` becomes 404.
    """

    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if not request.user.is_authenticated:
            return _to_sign_in(request)
        try:
            return view(request, *args, **kwargs)
        except Missing as missing:
            raise Http404(missing.message) from None

    return guarded


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    wants_page = request.method == "GET" and not is_htmx(request)
    target = f"{resolve_url(settings.LOGIN_URL)}?{urlencode({'next': request.path if wants_page else '/'})}"
    if wants_page:
        return redirect(target)
    # A fragment must not be replaced by the sign-in page: the whole page goes there.
    return HttpResponse("You are signed out.", status=401, headers={"HX-Redirect": target})


def told(request: HttpRequest, text: str, tone: str = "good", to: str = "portal:home") -> HttpResponse:
    """The deed is done (or could not be): words in the corner, the dialog closes, the tiles are asked for anew."""
    if is_htmx(request):
        triggers = {"toast": {"text": text, "tone": tone}, "close-dialog": {}, "desktops-changed": {}}
        return HttpResponse(status=204, headers={"HX-Trigger": json.dumps(triggers)})
    level = {"good": messages.SUCCESS, "bad": messages.ERROR, "attention": messages.WARNING}.get(tone, messages.INFO)
    messages.add_message(request, level, text)
    return redirect(to)


def download(file: ClientFile) -> HttpResponse:
    """The file, kept by nobody on the way: it holds a ticket."""
    headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "no-store"}
    return HttpResponse(file.content, content_type=file.content_type, headers=headers)


def refused(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    """Words in the corner for a button that could not do what it says."""
    fields = refusal.fields.values() if isinstance(refusal, Invalid) else ()
    return told(request, " ".join([refusal.message, *fields]), "attention")
