"""Requests: who waits for a desktop, who has one, and why somebody has none."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from broker.console.access import administrator, administrators_only
from broker.console.answers import Question, ask_first, page_of, show, typed, typed_uuid
from broker.models import Pool, Request
from broker.selectors import requests as selectors
from broker.services import brokering


@administrators_only
def list_(request: HttpRequest) -> HttpResponse:
    state, pool, text = typed(request, "state") or "open", typed_uuid(request, "pool"), typed(request, "q")
    rows = selectors.requests()
    if state == "open":
        rows = rows.filter(state__in=Request.OPEN)
    elif state == "queue":
        rows = rows.filter(state__in=Request.IN_QUEUE)
    elif state in Request.State.values:
        rows = rows.filter(state=state)
    if text:
        rows = rows.filter(user__username__icontains=text)
    if pool:
        rows = rows.filter(pool=pool)
    context = {
        "page": page_of(request, rows),
        "state": state,
        "states": [("open", _("Open")), ("queue", _("In the queue")), ("all", _("All")), *Request.State.choices],
        "pools": Pool.objects.only("name"),
        "pool": pool,
        "text": text,
    }
    return show(request, "console/requests/list.html", context)


@administrators_only
def cancel(request: HttpRequest, request_id: UUID) -> HttpResponse:
    wish = get_object_or_404(selectors.requests(), pk=request_id)
    question = Question(
        title=_("Cancel the request of %s?") % wish.user,
        verb=_("Cancel the request"),
        back=reverse("console:requests"),
        sentences=[_("They lose their place in the queue for %s and may ask again.") % wish.pool],
    )

    def do() -> str:
        brokering.cancel_request(actor=administrator(request), request_id=request_id)
        return _("The request was cancelled.")

    return ask_first(request, question, do, reverse("console:requests"))
