"""To approve: requests for the pools that one owns."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from broker.models import Request
from broker.portal.answers import is_htmx, person, refused, signed_in, told
from broker.portal.frame import show
from broker.selectors import notices, pools
from broker.selectors import requests as selectors
from broker.services import approvals
from broker.services.errors import Clash, Invalid, Refusal

PAGE_SIZE = 25
HERE = "portal:approvals"


@require_GET
@signed_in
def list_(request: HttpRequest) -> HttpResponse:
    """What waits for one's word, and how the others stand. Only for those who own a pool."""
    user = person(request)
    head = notices.head_of(user)
    if not head.is_owner:
        raise Http404
    rows = selectors.requests_of_my_pools(user)
    waiting = rows.filter(state=Request.State.WAITING).order_by("created_at", "pk")
    others = Paginator(rows.exclude(state=Request.State.WAITING), PAGE_SIZE)
    page = others.get_page(request.GET.get("page"))
    now = timezone.now()
    context = {"waiting": waiting, "page": page, "head": head, "now": now, "standings": _standings(user, now)}
    if is_htmx(request):
        return render(request, "portal/approvals/_list.html", context)
    return show(request, "portal/approvals/list.html", context)


def _standings(user: User, now: datetime) -> list[pools.Standing]:
    """How the pools stand that this person answers for, and no other."""
    return pools.standings(list(pools.pools_owned(user).order_by("name")), now)


@require_POST
@signed_in
def approve(request: HttpRequest, request_id: UUID) -> HttpResponse:
    try:
        made = approvals.decide(actor=person(request), request_id=request_id, yes=True)
    except Clash as clash:
        return refused(request, clash)
    return told(request, _("The request of %s was approved.") % made.user, to=HERE)


@require_http_methods(["GET", "POST"])
@signed_in
def decline(request: HttpRequest, request_id: UUID) -> HttpResponse:
    """Asks for a word first."""
    wish = selectors.requests_of_my_pools(person(request)).filter(pk=request_id).first()
    if wish is None:
        raise Http404
    if request.method == "GET":
        return _question(request, wish)
    try:
        words = request.POST.get("note", "")
        approvals.decide(actor=person(request), request_id=request_id, yes=False, words=words)
    except Refusal as refusal:
        return _question(request, wish, refusal)
    return told(request, _("The request of %s was declined.") % wish.user, to=HERE)


def _question(request: HttpRequest, wish: Request, refusal: Refusal | None = None) -> HttpResponse:
    """With what was wrong about the answer, which stays as it was typed."""
    status = 422 if refusal else 200
    context = {
        "title": _("Decline the request of %s?") % wish.user,
        "sentences": [_("They are told, with what you say here, and may ask again.")],
        "verb": _("Decline"),
        "note": _("Why"),
        "note_value": request.POST.get("note", ""),
        "action": request.path,
        "back": reverse(HERE),
        "problem": refusal.message if refusal else "",
        "faults": {"note": list(refusal.fields.values())} if isinstance(refusal, Invalid) else {},
    }
    if is_htmx(request):
        return render(request, "components/confirm.html", context, status=status)
    return show(request, "portal/confirm.html", context, status=status)
