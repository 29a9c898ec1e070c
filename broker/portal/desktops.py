"""My desktops: the tiles, their power, release, and the page that shows the screen."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from broker.models import Application
from broker.portal.answers import ARRIVED, download, here, is_htmx, person, refused, signed_in, told
from broker.portal.frame import show
from broker.portal.questions import LEAVE, POWER, RELEASE, Question
from broker.selectors import notices as notices_selectors
from broker.selectors import portal
from broker.services import brokering, leases, native, notices, power, presence, screens
from broker.services.errors import Clash, Forbidden, Refusal


@require_GET
@signed_in
def home(request: HttpRequest) -> HttpResponse:
    """The tiles; a single desktop is opened by itself for those who chose so, when they arrive and not when they come
    back from it."""
    user = person(request)
    mine, head = portal.my_page(user, here(request)), notices_selectors.head_of(user)
    if head.opens_single and _arrives(request) and mine.single:
        return redirect("portal:viewer", mine.single.desktop.pk)
    return show(request, "portal/home.html", {"mine": mine, "power": POWER, "head": head})


def _arrives(request: HttpRequest) -> bool:
    """Whether this person has just signed in, or typed or chose the address, rather than came from a page of ours."""
    has_signed_in = bool(request.session.pop(ARRIVED, False))
    return has_signed_in or request.headers.get("Sec-Fetch-Site") == "none"


@require_GET
@signed_in
def tiles(request: HttpRequest) -> HttpResponse:
    """The part of the first page that changes."""
    mine = portal.my_page(person(request), here(request))
    return render(request, "portal/desktops/_tiles.html", {"mine": mine, "power": POWER})


@require_POST
@signed_in
def set_favourite(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    on = request.POST.get("on") == "1"
    notices.set_favourite(user=person(request), pool_id=pool_id, on=on)
    return told(request, _("It stands first from now on.") if on else _("It stands in its place again."))


def _mine(request: HttpRequest, desktop_id: UUID) -> portal.Tile:
    """The desktop as its user's tile, else 404: administrators have the console for other people's."""
    tile = portal.my_desktop(person(request), desktop_id, here(request))
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
    if is_htmx(request):
        return render(request, "components/confirm.html", context, status=status)
    return show(request, "portal/confirm.html", context, status=status)


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
    question = LEAVE if tile.desktop.pool.is_shared else RELEASE
    if request.method == "GET":
        return _ask(request, question, tile)
    try:
        brokering.release_desktop(actor=person(request), desktop_id=desktop_id)
    except Clash as clash:
        return _ask(request, question, tile, clash.message, 422)
    answer = told(request, question.done % {"name": tile.desktop.name})
    if "/open/" in request.headers.get("HX-Current-URL", ""):
        # The page that showed the screen has lost its subject.
        answer.headers["HX-Redirect"] = reverse("portal:home")
    return answer


@require_POST
@signed_in
def renew(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """Lengthen the lease. Pressed twice, it is lengthened once: the page says which end it has seen."""
    tile = _mine(request, desktop_id)
    try:
        held, _is_new = leases.renew(
            actor=person(request), desktop_id=desktop_id, seen_until=parse_datetime(request.POST.get("until", ""))
        )
    except Clash as clash:
        return refused(request, clash)
    until = notices.moment(held.lease_until) if held.lease_until else ""
    return told(request, _("%(name)s is yours until %(until)s.") % {"name": tile.desktop.name, "until": until})


@require_GET
@signed_in
def viewer(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """The page that shows the screen; it asks for its ticket by itself."""
    tile = _mine(request, desktop_id)
    context = {"tile": tile, "desktop": tile.desktop, "power": POWER, "application": _application(request)}
    return render(request, "portal/viewer.html", context)


def _application(request: HttpRequest) -> Application | None:
    """Which one the address names; None for the whole desktop, 404 for one that is not theirs."""
    named = request.GET.get("application", "")
    if not named:
        return None
    try:
        found = portal.applications_of(person(request)).filter(pk=UUID(named)).first()
    except ValueError:
        found = None
    if found is None:
        raise Http404
    return found


@require_GET
@signed_in
def told_of_it(request: HttpRequest, desktop_id: UUID) -> JsonResponse:
    """What the page of a screen says in its corner: what was just told of this desktop and not read yet."""
    fresh = notices_selectors.just_told(person(request), desktop_id)
    return JsonResponse({"notices": [{"id": str(one.notice.pk), "words": one.in_one} for one in fresh]})


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
    presence.note_device(
        user=person(request),
        session_key=request.session.session_key or "",
        user_agent=request.headers.get("User-Agent", ""),
    )
    application = _application(request)
    try:
        opening = screens.connect(
            user=person(request),
            desktop_id=desktop_id,
            session_key=request.session.session_key or "",
            application_id=application.pk if application else None,
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
            "protocol": opening.protocol,
            "url": screens.address(host=request.get_host(), is_secure=is_secure, protocol=opening.protocol),
            "subprotocols": opening.subprotocols,
            "ticket": opening.ticket,
            "expires_at": opening.expires_at,
            "has_clipboard": opening.has_clipboard,
            "guest": asdict(opening.guest) if opening.guest else None,
        }
    )


@require_POST
@signed_in
def client_file(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """A file that opens the desktop in the person's own program; back to the tiles, in words, if it cannot be now."""
    application = _application(request)
    try:
        file = native.client_file(
            user=person(request),
            desktop_id=desktop_id,
            session_key=request.session.session_key or "",
            application_id=application.pk if application else None,
        )
    except (Clash, Forbidden) as refusal:
        return refused(request, refusal)
    return download(file)


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
