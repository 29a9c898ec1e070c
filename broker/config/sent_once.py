"""The same form, sent twice from the same page, gets the same answer twice and is worked on once.

Each rendering of a page has a CSRF token of its own, which its forms send along. So a token, with the session, the
address and all that was typed, names one pressing of one button: no form needs a key of its own, and no view knows of
this. What was refused or only shown is forgotten at once.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from broker.services import submissions

TOKEN = b"csrfmiddlewaretoken="
FORM = "application/x-www-form-urlencoded"
TOLD_BY = ("Location", "HX-Redirect", "HX-Trigger")
MESSAGES = "messages"
"""Django's cookie with what the next page says."""
KEEP = timedelta(minutes=5)
"""Of answers that lead to another page: nobody comes back to the old one, which no browser keeps (no-store)."""
TRIES = 3
"""Of those that wait while one after the other is refused; then it is worked on in any case."""
DOUBLE_CLICK = timedelta(seconds=3)
"""Of answers that leave the page where it is: its button may be meant again."""


class SentOnce(MiddlewareMixin):
    """Stands outside of Django's messages, whose cookie is part of the answer."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        key = _key(request)
        for _try in range(TRIES if key else 0):
            if submissions.take_up(key):
                request.sent_once_key = key  # type: ignore[attr-defined]
                return None
            if (answer := submissions.answer_to(key)) is not None:
                return _again(answer)
        return None

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        key: str = getattr(request, "sent_once_key", "")
        if not key:
            return response
        keep = _keep(response)
        if keep is None:
            submissions.forget(key)
        else:
            submissions.note(key, _answer(response), keep)
        return response


def _key(request: HttpRequest) -> str:
    """Empty for what is no form of a page's, and for strangers."""
    session: str | None = request.session.session_key
    if request.method != "POST" or request.content_type != FORM or not session or TOKEN not in request.body:
        return ""
    parts = (session, request.get_full_path(), request.headers.get("HX-Request", ""))
    return hashlib.sha256("\n".join(parts).encode() + b"\n" + request.body).hexdigest()


def _keep(response: HttpResponseBase) -> timedelta | None:
    if response.status_code in (302, 303) or "HX-Redirect" in response.headers:
        return KEEP
    return DOUBLE_CLICK if response.status_code == 204 else None


def _answer(response: HttpResponseBase) -> dict[str, Any]:
    headers = {name: response.headers[name] for name in TOLD_BY if name in response.headers}
    said = response.cookies.get(MESSAGES)
    return {"status": response.status_code, "headers": headers, "said": said.OutputString() if said else ""}


def _again(answer: dict[str, Any]) -> HttpResponse:
    response = HttpResponse(status=answer["status"], headers=answer["headers"])
    response.cookies.load(answer["said"])
    return response
