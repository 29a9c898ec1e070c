"""Asking for a desktop, and taking that back."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from broker.domain import leases
from broker.models import Pool, Request
from broker.portal.answers import is_htmx, person, refused, signed_in, told
from broker.portal.frame import show
from broker.selectors import pools
from broker.services import brokering
from broker.services.errors import Clash, Invalid, Refusal


class RequestForm(forms.Form):
    """What the pool asks for, nothing else. What it would not take is refused by the service, as for the API."""

    def __init__(self, pool: Pool, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if pool.asks_why != Pool.Asks.NO:
            self.fields["why"] = forms.CharField(
                label=gettext_lazy("Why do you need it?"),
                required=pool.asks_why == Pool.Asks.REQUIRED,
                max_length=brokering.WHY_LENGTH,
                widget=forms.Textarea(attrs={"rows": 3, "maxlength": brokering.WHY_LENGTH}),
                error_messages={"required": gettext_lazy("Say in a sentence what you need it for.")},
            )
        if pool.asks_how_long and pool.lease_h:
            self.fields["hours"] = forms.TypedChoiceField(
                label=gettext_lazy("For how long?"),
                coerce=int,
                choices=[(hours, leases.in_words(hours)) for hours in leases.lengths(pool.lease_h)],
            )

    @property
    def asks(self) -> bool:
        return bool(self.fields)


def _form(request: HttpRequest, pool: Pool, form: RequestForm, status: int = 200) -> HttpResponse:
    context = {"pool": pool, "form": form, "action": request.path, "back": reverse("portal:home")}
    if is_htmx(request):
        return render(request, "portal/requests/_form.html", context, status=status)
    return show(request, "portal/requests/form.html", context, status=status)


@require_http_methods(["GET", "POST"])
@signed_in
def ask(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    """Request a desktop of a pool: with a form where the pool asks something. Asking twice changes nothing."""
    pool = pools.pools_usable(person(request)).filter(pk=pool_id).first()
    if pool is None:
        raise Http404
    form = RequestForm(pool, request.POST if request.method == "POST" else None)
    if request.method == "GET":
        return _form(request, pool, form)
    if not form.is_valid():
        answer = _form(request, pool, form, 422)
        if is_htmx(request) and not form.fields.keys() & request.POST.keys():
            # The button of a page that did not know yet that something is asked: the form opens.
            answer.headers["HX-Retarget"], answer.headers["HX-Reswap"] = "#dialog-content", "innerHTML"
        return answer
    try:
        made, is_new = brokering.request_desktop(user=person(request), pool_id=pool_id, **form.cleaned_data)
    except (Clash, Invalid) as refusal:
        return _not_asked(request, pool, form, refusal)
    return told(request, *words_for(made, is_new=is_new))


def _not_asked(request: HttpRequest, pool: Pool, form: RequestForm, refusal: Refusal) -> HttpResponse:
    """What was typed stays, what is wrong stands beside it."""
    if not form.asks:
        return refused(request, refusal)
    fields = refusal.fields if isinstance(refusal, Invalid) else {}
    for name, words in fields.items():
        form.add_error(name if name in form.fields else None, words)
    if not fields:
        form.add_error(None, refusal.message)
    return _form(request, pool, form, 422)


def words_for(made: Request, *, is_new: bool) -> tuple[str, str]:
    """(words, tone)"""
    if made.state == Request.State.READY:
        return _("Your desktop is there."), "good"
    if not is_new:
        return _("You have asked for this already; you keep your place."), "busy"
    if made.state == Request.State.WAITING:
        return _("Your request was sent to those who decide on it. You are told what they say."), "busy"
    return _("Your request is in the queue. You can leave this page; it goes on by itself."), "busy"


@require_POST
@signed_in
def cancel(request: HttpRequest, request_id: UUID) -> HttpResponse:
    try:
        brokering.cancel_request(actor=person(request), request_id=request_id)
    except Clash as clash:
        return refused(request, clash)
    return told(request, _("Your request was cancelled."))
