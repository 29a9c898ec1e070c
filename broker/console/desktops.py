"""Desktops: find them, switch many at once, look at one and do what it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from broker.console import failovers
from broker.console.access import Can, Right, actor_of, needs, staff_only
from broker.console.answers import Question, act, ask_first, came_from, done, show, typed
from broker.console.lists import Column, Listing
from broker.console.many import HARD, filter_of, offered
from broker.domain.labels import desktop_label, seat_words
from broker.domain.lifecycle import Event, State, sources
from broker.models import Desktop, Hypervisor, Machine, Pool
from broker.selectors import audit, operations, replication, seats, sessions
from broker.selectors import desktops as selectors
from broker.services import brokering, guests, power
from broker.services import desktops as services

OPERATIONS_SHOWN = 10
SESSIONS_SHOWN = 5
NAMED = 5
"""Desktops named one by one where something was not ordered."""
STATES = {
    "ready": "Ready",
    "assigned": "Assigned",
    "used": "In use right now",
    "coming": "On their way",
    "off": "Switched off",
    "silent": "Not answering",
    "maintenance": "In maintenance",
    "failed": "Failed",
    "missing": "Missing",
    "deleting": "Being deleted",
    "gone": "Deleted",
}
"""The filter's states with their words."""


def _user(row: Any) -> str | None:
    if not row.pool.is_shared:
        return row.owner  # type: ignore[no-any-return]
    return _(seat_words(row)) % {"taken": row.seats_taken, "seats": row.pool.seats}


LIST = Listing(
    "desktops",
    Column("name", gettext_lazy("Name"), lambda row: row.name, ("name",)),
    Column("state", gettext_lazy("State"), lambda row: desktop_label(row).text, ("state", "power")),
    Column("failure", gettext_lazy("Failure"), lambda row: row.failure),
    Column("user", gettext_lazy("User"), _user, ("owner", "seats_taken")),
    Column("assigned", gettext_lazy("Assigned"), lambda row: row.owned_since, ("owned_since",), begins_down=True),
    Column("pool", gettext_lazy("Pool"), lambda row: row.pool.name, ("pool__name", "name")),
    Column("hypervisor", gettext_lazy("Hypervisor"), lambda row: row.hypervisor.name, ("hypervisor__name",)),
    Column("address", gettext_lazy("Address"), lambda row: " ".join(row.addresses)),
    Column("since", gettext_lazy("Since"), lambda row: row.state_since, ("state_since",), begins_down=True),
    Column("id", gettext_lazy("Id"), lambda row: row.pk),
)
SWITCHABLE = (State.PREPARING, State.READY, State.ASSIGNED, State.FAILED)


def _address(desktop_id: UUID) -> str:
    return reverse("console:desktop", args=[desktop_id])


@staff_only
def list_(request: HttpRequest) -> HttpResponse:
    wanted = filter_of(request.GET)
    rows = selectors.labelled(wanted.apply(selectors.desktops_with_owner()))
    context = {
        "wanted": wanted,
        "states": STATES.items(),
        "pools": Pool.objects.only("name"),
        "hypervisors": Hypervisor.objects.only("name"),
        "acts": offered(Can(request.user)),
    }
    return LIST.answer(request, "console/desktops/list.html", rows, context)


@staff_only
def detail(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    rows = selectors.labelled(selectors.desktops_with_owner()).select_related(
        "copy__version__template", "target_host", "member", "guest_certificate"
    )
    desktop = get_object_or_404(rows, pk=desktop_id)
    machines = Machine.objects.filter(hypervisor=desktop.hypervisor_id, platform_id=desktop.machine_id)
    context: dict[str, object] = {
        "desktop": desktop,
        "machine": machines.select_related("host").first() if desktop.machine_id else None,
        "assignment": desktop.assignments.filter(until=None, seat=0).select_related("user").first(),
        "seats": seats.on(desktop) if desktop.pool.is_shared else (),
        "replicated": replication.replicated(desktop.hypervisor_id, desktop.machine_id) if desktop.machine_id else [],
        "events": audit.events_of(desktop),
        "operations": operations.operations().filter(desktop=desktop)[:OPERATIONS_SHOWN],
        "sessions": sessions.sessions().filter(desktop=desktop)[:SESSIONS_SHOWN],
        "changes": audit.audit_of(desktop)[:10],
        "actions": [(action, words) for action, words in power.ACTIONS.items() if _fits(action, desktop.power)],
        "has_power": bool(desktop.machine_id) and State(desktop.state) in SWITCHABLE,
        "can_retire": State(desktop.state) in sources(Event.RETIRED) - {State.RETIRING},
        # Whose seat is taken back is said beside each of them.
        "can_release": State(desktop.state) in sources(Event.RELEASED) and not desktop.pool.is_shared,
        "can_forget": State(desktop.state) in sources(Event.FORGOTTEN) and services.is_out_of_reach(desktop),
        "can_recycle": State(desktop.state) in sources(Event.RETRIED) and bool(desktop.machine_id),
        **failovers.of_desktop(desktop),
    }
    if desktop.is_moving:
        # Whatever is ordered meanwhile is refused.
        context |= dict.fromkeys(("has_power", "can_retire", "can_release", "can_forget", "can_recycle"), False)
    return show(request, "console/desktops/detail.html", context | _beyond(Can(request.user), context))


def _beyond(can: Can, context: dict[str, object]) -> dict[str, bool]:
    """What the page does not offer because of who looks."""
    helping = () if can.serve else ("has_power", "can_release", "can_recycle")
    running = () if can.operate else ("can_move", "can_fail_over", "can_bring_up", "can_retire", "can_forget")
    return dict.fromkeys((*helping, *running), False)


def _fits(action: str, observed: str) -> bool:
    """Whether an action makes sense for what is seen; all do where nothing is known."""
    fitting = {
        "on": ("off", "shutdown", "reboot", "reset", "suspend"),
        "off": ("on",),
        "suspended": ("resume", "off"),
    }
    return action in fitting.get(observed, tuple(power.ACTIONS))


@needs(Right.SERVE)
def set_power(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """`?action=`: what may lose somebody's work is asked first."""
    actor = actor_of(request)
    desktop = get_object_or_404(Desktop, pk=desktop_id)
    action = typed(request, "action")
    verb = power.ACTIONS.get(action, "")
    sentences = [HARD[action]] if action in HARD else []
    if selectors.in_use([desktop_id]):
        sentences.append(_("Somebody looks at its screen right now."))
    question = Question(
        title=f"{verb} {desktop}?",
        verb=verb,
        back=_address(desktop_id),
        sentences=sentences,
        is_harmless=action not in HARD,
    )

    def do() -> str:
        power.set_power(actor=actor, desktop_id=desktop_id, action=action)
        return _("%(verb)s %(desktop)s: ordered.") % {"verb": verb, "desktop": desktop}

    if not verb:
        question = Question(title=_("There is no such action."), verb=_("Back"), back=_address(desktop_id))
    return ask_first(request, question, do, _address(desktop_id))


@act
def set_maintenance(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    on = request.POST.get("on") == "1"
    desktop = services.set_maintenance(actor=actor_of(request), desktop_id=desktop_id, on=on)
    message = _("%s is in maintenance: it is not given out.") if on else _("%s is back in service.")
    if on and desktop.pool.is_shared:
        message = _("%s is in maintenance: it takes nobody new, and those who are on it stay until they leave.")
    return done(request, message % desktop, came_from(request, _address(desktop_id)))


@act
def forget_certificate(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    guests.forget_certificate(actor=actor_of(request), desktop_id=desktop_id)
    message = _("The certificate was forgotten: the next one that the guest shows is trusted.")
    return done(request, message, came_from(request, _address(desktop_id)))


def _asked(
    request: HttpRequest, desktop_id: UUID, title: str, verb: str, sentence: str, do: Callable[[Desktop], str]
) -> HttpResponse:
    desktop = get_object_or_404(Desktop.objects.select_related("pool"), pk=desktop_id)
    question = Question(title=title % desktop, verb=verb, back=_address(desktop_id), sentences=[sentence])
    return ask_first(request, question, lambda: do(desktop), _address(desktop_id))


@needs(Right.SERVE)
def recycle(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    def do(desktop: Desktop) -> str:
        services.recycle_desktop(actor=actor_of(request), desktop_id=desktop.pk)
        return _("%s gets a fresh disk.") % desktop

    sentence = _("It gets a fresh disk of its template; what is on it is lost.")
    return _asked(request, desktop_id, _("Recycle %s?"), _("Recycle it"), sentence, do)


@needs(Right.OPERATE)
def retire(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    def do(desktop: Desktop) -> str:
        services.retire_desktop(actor=actor_of(request), desktop_id=desktop.pk)
        return _("%s is being deleted.") % desktop

    sentence = _("Its machine and disks are deleted on the hypervisor. The pool builds another one if it needs it.")
    return _asked(request, desktop_id, _("Delete %s?"), _("Delete it"), sentence, do)


@needs(Right.OPERATE)
def forget(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    def do(desktop: Desktop) -> str:
        services.forget_desktop(actor=actor_of(request), desktop_id=desktop.pk)
        return _("%s is forgotten; its machine was not touched.") % desktop

    sentence = _(
        "Its machine is not deleted now. Should it turn up again, it is removed if nobody ever had it; else you find "
        "it under Drift."
    )
    return _asked(request, desktop_id, _("Forget %s?"), _("Forget it"), sentence, do)


@needs(Right.SERVE)
def release(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """`?user=`: whose seat on a session host."""
    if user_id := typed(request, "user"):
        return _take_seat_back(request, desktop_id, user_id)

    def do(desktop: Desktop) -> str:
        brokering.release_desktop(actor=actor_of(request), desktop_id=desktop.pk)
        return _("%s was taken back and is being recycled.") % desktop

    sentence = _("Its user loses it at once, with everything on it that is not kept elsewhere.")
    return _asked(request, desktop_id, _("Take %s back from its user?"), _("Take it back"), sentence, do)


def _take_seat_back(request: HttpRequest, desktop_id: UUID, user_id: str) -> HttpResponse:
    desktop = get_object_or_404(Desktop.objects.select_related("pool"), pk=desktop_id)
    if not user_id.isdecimal() or len(user_id) >= 10:
        raise Http404
    user = get_object_or_404(seats.on(desktop), user=int(user_id)).user
    fresh = _("If nobody else is on it, it gets a fresh disk: all that lies on it is lost.")
    question = Question(
        title=_("Take the seat of %(user)s on %(desktop)s back?") % {"user": user, "desktop": desktop},
        verb=_("Take it back"),
        back=_address(desktop_id),
        sentences=[
            _("Their screens close at once, and somebody else may get the seat. The others on it go on."),
            *([fresh] if desktop.pool.freshens_when_empty else []),
        ],
    )

    def do() -> str:
        brokering.release_desktop(actor=actor_of(request), desktop_id=desktop_id, user_id=user.pk)
        return _("The seat of %s was taken back.") % user

    return ask_first(request, question, do, _address(desktop_id))
