"""My desktops: the tiles, their power, release, and the page that shows the screen."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from broker.portal.answers import is_htmx, person, refused, signed_in, told
from broker.portal.questions import POWER, RELEASE, Question
from broker.selectors import portal
from broker.services import brokering, power, screens
from broker.services.errors import Clash, Refusal


@require_GET
@signed_in
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "portal/home.html", {"mine": portal.my_page(person(request)), "power": POWER})


@require_GET
@signed_in
def tiles(request: HttpRequest) -> HttpResponse:
    """The part of the first page that changes."""
    return render(request, "portal/desktops/_tiles.html", {"mine": portal.my_page(person(request)), "power": POWER})


def _mine(request: HttpRequest, desktop_id: UUID) -> portal.Tile:
    """The desktop as its user's tile, else 404: administrators have the console for other people's."""
    tile = portal.my_desktop(person(request), desktop_id)
    if tile is None:
        raise Http404
    return tile


def _ask(
    request: HttpRequest, question: Question, tile: portal.Tile, problem: str = "", status: int = 200
) -> HttpResponse:
    """The question, in the dialog or on a page of its own."""
    name = tile.desktop.name
    context = {
        "title": question.title % {"name": name},
        "sentences": question.sentences,
        "verb": question.verb,
        "is_harmless": question.is_harmless,
        "action": request.path,
        "back": reverse("portal:home"),
        "problem": problem,
    }
    template = "components/confirm.html" if is_htmx(request) else "portal/confirm.html"
    return render(request, template, context, status=status)


@require_http_methods(["GET", "POST"])
@signed_in
def set_power(request: HttpRequest, desktop_id: UUID, action: str) -> HttpResponse:
    """Asks first (GET) where work can be lost, then does it (POST)."""
    if action not in POWER:
        raise Http404
    tile, question = _mine(request, desktop_id), POWER[action]
    if request.method == "GET":
        return _ask(request, question, tile)
    try:
        power.set_power(actor=person(request), desktop_id=desktop_id, action=action)
    except Clash as clash:
        return refused(request, clash) if question.is_harmless else _ask(request, question, tile, clash.message, 422)
    return told(request, question.done % {"name": tile.desktop.name})


@require_http_methods(["GET", "POST"])
@signed_in
def release(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    tile = _mine(request, desktop_id)
    if request.method == "GET":
        return _ask(request, RELEASE, tile)
    try:
        brokering.release_desktop(actor=person(request), desktop_id=desktop_id)
    except Clash as clash:
        return _ask(request, RELEASE, tile, clash.message, 422)
    answer = told(request, RELEASE.done % {"name": tile.desktop.name})
    if "/open/" in request.headers.get("HX-Current-URL", ""):
        # The page that showed the screen has lost its subject.
        answer.headers["HX-Redirect"] = reverse("portal:home")
    return answer


@require_GET
@signed_in
def viewer(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """The page that shows the screen; it asks for its ticket by itself."""
    tile = _mine(request, desktop_id)
    return render(request, "portal/viewer.html", {"tile": tile, "desktop": tile.desktop, "power": POWER})


@require_GET
@signed_in
def choices(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """What the desktop's menu offers now: the page of a screen stays open while power comes and goes."""
    tile = _mine(request, desktop_id)
    return render(request, "portal/desktops/_choices.html", {"tile": tile, "desktop": tile.desktop, "power": POWER})


@require_POST
@signed_in
def connect(request: HttpRequest, desktop_id: UUID) -> JsonResponse:
    """A one-time ticket for the viewer; 409 with what is under way if the desktop is not ready."""
    try:
        opening = screens.connect(
            user=person(request),
            desktop_id=desktop_id,
            protocol="vnc",
            session_key=request.session.session_key or "",
        )
    except Clash as clash:
        operation = clash.operation
        under_way = portal.reference(operation.pk) if operation else ""
        return JsonResponse({"message": clash.message, "operation": under_way}, status=409)
    except Refusal as refusal:
        status = 404 if refusal.code == "not_found" else 403
        return JsonResponse({"message": refusal.message}, status=status)
    is_secure = settings.HTTPS or request.is_secure()
    return JsonResponse(
        {
            "url": screens.address(host=request.get_host(), is_secure=is_secure),
            "subprotocols": opening.subprotocols,
            "expires_at": opening.expires_at,
        }
    )


@require_GET
@signed_in
def state(request: HttpRequest, desktop_id: UUID) -> JsonResponse:
    """How the desktop is, for the viewer that waits for it."""
    tile = _mine(request, desktop_id)
    return JsonResponse(
        {
            "power": tile.desktop.power,
            "label": _(tile.label.text),
            "steps": dict(tile.steps),
            "problem": tile.problem,
            "reference": tile.reference,
        }
    )
