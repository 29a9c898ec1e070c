"""One's own sessions, and where their screens are open: on this device and on others."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from broker.portal.answers import here, is_htmx, person, refused, signed_in, told
from broker.portal.frame import show
from broker.selectors.presence import screens_of
from broker.selectors.sessions import OwnSession, sessions_of
from broker.services import presence
from broker.services.errors import Clash


@require_GET
@signed_in
def list_(request: HttpRequest) -> HttpResponse:
    user = person(request)
    context = {"screens": screens_of(user, here(request)), "sessions": sessions_of(user)}
    if is_htmx(request):
        return render(request, "portal/screens/_list.html", context)
    return show(request, "portal/screens/list.html", context)


@require_POST
@signed_in
def end(request: HttpRequest, session_id: UUID) -> HttpResponse:
    """The desktop keeps running."""
    presence.end_screen(user=person(request), session_id=session_id)
    return told(request, _("The screen was closed there. The desktop keeps running."), to="portal:screens")


@require_POST
@signed_in
def disconnect(request: HttpRequest, session_id: UUID) -> HttpResponse:
    """Everywhere it is open; what runs on the desktop goes on."""
    try:
        presence.disconnect(actor=person(request), session_id=session_id)
    except Clash as clash:
        return refused(request, clash)
    return told(request, _("It is disconnected everywhere. The desktop keeps running."), to="portal:screens")


@require_http_methods(["GET", "POST"])
@signed_in
def log_off(request: HttpRequest, session_id: UUID) -> HttpResponse:
    """Asks first: unsaved work is lost."""
    mine = next((one for one in sessions_of(person(request)) if one.session.pk == session_id), None)
    if mine is None:
        raise Http404
    if request.method == "GET":
        return _ask(request, mine)
    try:
        presence.log_off(actor=person(request), session_id=session_id)
    except Clash as clash:
        return _ask(request, mine, clash.message, 422)
    return told(request, _("You are logged off %s.") % mine.session.desktop, to="portal:screens")


def _ask(request: HttpRequest, mine: OwnSession, problem: str = "", status: int = 200) -> HttpResponse:
    lost = _("It is given back and gets a fresh disk: all that lies on it is deleted.")
    kept = _("It is restarted: what you have not saved is lost. It stays yours.")
    seat = _("Your seat is given back, and what you have open there may be lost. The others on it go on.")
    context = {
        "title": _("Log off %s?") % mine.session.desktop,
        "sentences": [seat if mine.has_seat else lost if mine.is_floating else kept],
        "verb": _("Log off"),
        "is_harmless": False,
        "action": request.path,
        "back": reverse("portal:screens"),
        "problem": problem,
    }
    if is_htmx(request):
        return render(request, "components/confirm.html", context, status=status)
    return show(request, "portal/confirm.html", context, status=status)
