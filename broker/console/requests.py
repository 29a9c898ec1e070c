"""Requests: who waits for a desktop, who has one, and why somebody has none."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from broker.console.access import Right, actor_of, needs, staff_only
from broker.console.answers import Question, ask_first, typed, typed_uuid
from broker.console.lists import Column, Listing
from broker.domain import leases
from broker.models import Pool, Request
from broker.selectors import requests as selectors
from broker.services import approvals, brokering
from broker.services.errors import Clash

NAMED = 6
"""Requests that a question names."""
MANY = 500


LIST = Listing(
    "requests",
    Column("user", gettext_lazy("User"), lambda row: row.user.username, ("user__username",)),
    Column("pool", gettext_lazy("Pool"), lambda row: row.pool.name, ("pool__name",)),
    Column("state", gettext_lazy("State"), lambda row: row.state, ("state",)),
    Column("why", gettext_lazy("Asked"), lambda row: row.why),
    Column("reason", gettext_lazy("Reason"), lambda row: row.reason),
    Column("desktop", gettext_lazy("Desktop"), lambda row: row.desktop.name if row.desktop else "", ("desktop__name",)),
    Column("asked", gettext_lazy("Asked"), lambda row: row.created_at, ("created_at",), begins_down=True),
    Column("served", gettext_lazy("Served"), lambda row: row.served_at),
    Column("id", gettext_lazy("Id"), lambda row: row.pk),
)


@staff_only
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
    if named := typed_uuid(request, "request"):
        rows = rows.filter(pk=named)
    context = {
        "state": state,
        "states": [("open", _("Open")), ("queue", _("In the queue")), ("all", _("All")), *Request.State.choices],
        "pools": Pool.objects.only("name"),
        "pool": pool,
        "text": text,
    }
    return LIST.answer(request, "console/requests/list.html", rows, context)


@needs(Right.SERVE)
def cancel(request: HttpRequest, request_id: UUID) -> HttpResponse:
    wish = get_object_or_404(selectors.requests(), pk=request_id)
    question = Question(
        title=_("Cancel the request of %s?") % wish.user,
        verb=_("Cancel the request"),
        back=reverse("console:requests"),
        sentences=[_("They lose their place in the queue for %s and may ask again.") % wish.pool],
    )

    def do() -> str:
        brokering.cancel_request(actor=actor_of(request), request_id=request_id)
        return _("The request was cancelled.")

    return ask_first(request, question, do, reverse("console:requests"))


@needs(Right.SERVE)
def approve(request: HttpRequest, request_id: UUID) -> HttpResponse:
    return _decide(request, request_id, yes=True)


@needs(Right.SERVE)
def decline(request: HttpRequest, request_id: UUID) -> HttpResponse:
    return _decide(request, request_id, yes=False)


def _decide(request: HttpRequest, request_id: UUID, *, yes: bool) -> HttpResponse:
    wish = get_object_or_404(selectors.requests(), pk=request_id)
    asked = [_("They asked for a desktop of %s.") % wish.pool]
    if wish.why:
        asked.append(_("Their reason: %s") % wish.why)
    if wish.asked_h:
        asked.append(_("For how long: %s") % leases.in_words(wish.asked_h))
    question = Question(
        title=(_("Approve the request of %s?") if yes else _("Decline the request of %s?")) % wish.user,
        verb=_("Approve") if yes else _("Decline"),
        back=reverse("console:requests"),
        sentences=asked,
        note=_("A word to them"),
        is_harmless=yes,
    )

    def do() -> str:
        words = request.POST.get("note", "")
        approvals.decide(actor=actor_of(request), request_id=request_id, yes=yes, words=words)
        return (_("The request of %s was approved.") if yes else _("The request of %s was declined.")) % wish.user

    return ask_first(request, question, do, reverse("console:requests"))


@needs(Right.SERVE)
@require_POST
def decide_many(request: HttpRequest) -> HttpResponse:
    """Of the chosen rows: says first how many, and asks for a word to them."""
    yes = request.POST.get("action") == "approve"
    wishes = selectors.requests().filter(pk__in=_chosen(request), state=Request.State.WAITING)
    names = [f"{wish.user}: {wish.pool}" for wish in wishes[:NAMED]]
    count = wishes.count()
    title = (
        ngettext("Approve %d request?", "Approve %d requests?", count)
        if yes
        else ngettext("Decline %d request?", "Decline %d requests?", count)
    )
    question = Question(
        title=title % count,
        verb=_("Approve") if yes else _("Decline"),
        back=reverse("console:requests"),
        sentences=[", ".join(names) + (" …" if count > NAMED else ".")]
        if names
        else [_("None of them waits any more.")],
        note=_("A word to them"),
        is_harmless=yes,
        hidden=[("action", "approve" if yes else "decline"), *(("request", str(pk)) for pk in _chosen(request))],
    )

    def do() -> str:
        words = request.POST.get("note", "")
        done = approvals.decide_many(actor=actor_of(request), request_ids=_chosen(request), yes=yes, words=words)
        if not done.requests:
            raise Clash(_("Nothing was decided: none of them waits any more. Choose from the list anew."))
        number = len(done.requests)
        said = (
            ngettext("%d request was approved.", "%d requests were approved.", number)
            if yes
            else ngettext("%d request was declined.", "%d requests were declined.", number)
        )
        left = ngettext("%d did not wait any more.", "%d did not wait any more.", len(done.refused))
        return said % number + (f" {left % len(done.refused)}" if done.refused else "")

    return ask_first(request, question, do, reverse("console:requests"))


def _chosen(request: HttpRequest) -> list[UUID]:
    found = []
    for text in request.POST.getlist("request")[:MANY]:
        with suppress(ValueError):
            found.append(UUID(text))
    return found
