"""Asking for a desktop, and taking that back."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from broker.models import Request
from broker.portal.answers import person, refused, signed_in, told
from broker.services import brokering
from broker.services.errors import Clash


@require_POST
@signed_in
def ask(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    """Request a desktop of a pool. Asking twice changes nothing."""
    try:
        made, is_new = brokering.request_desktop(user=person(request), pool_id=pool_id)
    except Clash as clash:
        return refused(request, clash)
    if made.state == Request.State.READY:
        return told(request, _("Your desktop is there."))
    if not is_new:
        return told(request, _("You have asked for this already; you keep your place."), "busy")
    return told(request, _("Your request is in the queue. You can leave this page; it goes on by itself."), "busy")


@require_POST
@signed_in
def cancel(request: HttpRequest, request_id: UUID) -> HttpResponse:
    try:
        brokering.cancel_request(actor=person(request), request_id=request_id)
    except Clash as clash:
        return refused(request, clash)
    return told(request, _("Your request was cancelled."))
