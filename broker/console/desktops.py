"""Desktops: find them, switch many at once, look at one and do what it needs."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from broker.console import failovers
from broker.console.access import administrator, administrators_only
from broker.console.answers import Question, act, ask_first, came_from, done, page_of, show, typed, word
from broker.domain.lifecycle import Event, State, sources
from broker.domain.power import Selection
from broker.models import Desktop, Hypervisor, Machine, Pool
from broker.selectors import audit, operations, replication
from broker.selectors import desktops as selectors
from broker.selectors import power as power_selectors
from broker.services import brokering, power
from broker.services import desktops as services
from broker.services.errors import Clash, Invalid

OPERATIONS_SHOWN = 10
NAMED = 5
"""Desktops named one by one where something was not ordered."""
STATES = {
    "ready": "Ready",
    "assigned": "Assigned",
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
FILTERS = ("q", "state", "pool", "hypervisor")
SWITCHABLE = (State.PREPARING, State.READY, State.ASSIGNED, State.FAILED)
HARD = {"off": "Power is cut: unsaved work is lost.", "reset": "Like the reset button: unsaved work is lost."}


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _address(desktop_id: UUID) -> str:
    return reverse("console:desktop", args=[desktop_id])


def _filter(given: QueryDict) -> selectors.DesktopFilter:
    """What is looked for, from the address of the list or from the form below it."""
    return selectors.DesktopFilter(
        state=word(given, "state"), pool=_uuid(given.get("pool", "")), hypervisor=_uuid(given.get("hypervisor", "")),
        text=word(given, "q"),
    )  # fmt: skip


@administrators_only
def list_(request: HttpRequest) -> HttpResponse:
    wanted = _filter(request.GET)
    rows = selectors.labelled(wanted.apply(selectors.desktops_with_owner()))
    context = {
        "page": page_of(request, rows),
        "wanted": wanted,
        "states": STATES.items(),
        "pools": Pool.objects.only("name"),
        "hypervisors": Hypervisor.objects.only("name"),
        "actions": power.ACTIONS.items(),
    }
    return show(request, "console/desktops/list.html", context)


@administrators_only
def power_of_many(request: HttpRequest) -> HttpResponse:
    """Of the chosen rows, or of all that fit the filter: says first what it would touch and what not."""
    actor = administrator(request)
    action = request.POST.get("action", "")
    verb = power.ACTIONS.get(action, "")
    ids = [pk for text in request.POST.getlist("desktop") if (pk := _uuid(text))]
    is_filter = request.POST.get("all") == "1"
    wanted = _filter(request.POST).apply(Desktop.objects.all()) if is_filter else Desktop.objects.filter(pk__in=ids)
    found = power_selectors.review(wanted, action) if is_filter or ids else Selection()
    back = _list_address(request)
    total, count = len(found.chosen) + len(found.skipped), len(found.chosen)
    question = Question(
        title=ngettext("%(verb)s %(n)d desktop?", "%(verb)s %(n)d desktops?", count) % {"verb": verb, "n": count},
        verb=verb,
        back=back,
        sentences=_touched(found, action, fits=total if is_filter else None),
        is_harmless=action not in HARD,
        hidden=[("action", action), *_chosen(request, ids, total if is_filter else None)],
    )

    def do() -> str:
        if not verb or not (is_filter or ids):
            raise Invalid(_("Choose desktops and an action first."))
        shown = request.POST.get("shown", "")
        at_most = int(shown) if is_filter and shown.isdecimal() else None
        return _said(power.set_power_of_many(actor=actor, wanted=wanted, action=action, at_most=at_most))

    return ask_first(request, question, do, back)


def _list_address(request: HttpRequest) -> str:
    """The list as the person had filtered it."""
    filters = {name: value for name in FILTERS if (value := word(request.POST, name))}
    address = reverse("console:desktops")
    return f"{address}?{urlencode(filters)}" if filters else address


def _touched(found: Selection, action: str, *, fits: int | None) -> list[str]:
    """What an order would reach and what not, in words. `fits`: how many fit the filter, if one is meant."""
    said = []
    if fits is not None:
        said.append(ngettext("%d desktop fits the filter.", "%d desktops fit the filter.", fits) % fits)
    if found.in_use:
        words = ngettext("%d of them is in use right now.", "%d of them are in use right now.", found.in_use)
        said.append(words % found.in_use)
    elif found.chosen:
        said.append(_("None of them is in use right now."))
    if skipped := len(found.skipped):
        words = ngettext("%(n)d is left out: %(why)s.", "%(n)d are left out: %(why)s.", skipped)
        said.append(words % {"n": skipped, "why": found.reasons})
    return [*said, *([HARD[action]] if action in HARD and found.chosen else [])]


def _chosen(request: HttpRequest, ids: list[UUID], fits: int | None) -> list[tuple[str, str]]:
    """What was chosen, as fields to be sent again with the answer."""
    filters = [(name, word(request.POST, name)) for name in FILTERS]
    if fits is None:
        return [*filters, *(("desktop", str(pk)) for pk in ids)]
    return [*filters, ("all", "1"), ("shown", str(fits))]


def _said(ordered: power.Ordered) -> str:
    """What was ordered, and for which not and why. Raises `Clash` if that is for all of them."""
    why = ", ".join(f"{desktop.name} is {words}" for desktop, words in ordered.skipped[:NAMED])
    if not ordered.operations:
        raise Clash(_("Nothing was ordered. %s.") % (why or _("No desktop fits any more")))
    count = len(ordered.operations)
    message = ngettext("Ordered for %d desktop.", "Ordered for %d desktops.", count) % count
    if ordered.skipped:
        more = " …" if len(ordered.skipped) > NAMED else "."
        message += " " + _("Not for %(n)d: %(why)s") % {"n": len(ordered.skipped), "why": why + more}
    return message


@administrators_only
def detail(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    rows = selectors.labelled(selectors.desktops_with_owner()).select_related(
        "copy__version__template", "target_host", "member"
    )
    desktop = get_object_or_404(rows, pk=desktop_id)
    machines = Machine.objects.filter(hypervisor=desktop.hypervisor_id, platform_id=desktop.machine_id)
    context: dict[str, object] = {
        "desktop": desktop,
        "machine": machines.select_related("host").first() if desktop.machine_id else None,
        "assignment": desktop.assignments.filter(until=None).select_related("user").first(),
        "replicated": replication.replicated(desktop.hypervisor_id, desktop.machine_id) if desktop.machine_id else [],
        "events": audit.events_of(desktop),
        "operations": operations.operations().filter(desktop=desktop)[:OPERATIONS_SHOWN],
        "changes": audit.audit_of(desktop)[:10],
        "actions": [(action, words) for action, words in power.ACTIONS.items() if _fits(action, desktop.power)],
        "has_power": bool(desktop.machine_id) and State(desktop.state) in SWITCHABLE,
        "can_retire": State(desktop.state) in sources(Event.RETIRED) - {State.RETIRING},
        "can_release": State(desktop.state) in sources(Event.RELEASED),
        "can_forget": State(desktop.state) in sources(Event.FORGOTTEN) and services.is_out_of_reach(desktop),
        "can_recycle": State(desktop.state) in sources(Event.RETRIED) and bool(desktop.machine_id),
        **failovers.of_desktop(desktop),
    }
    if desktop.is_moving:
        # Whatever is ordered meanwhile is refused.
        context |= dict.fromkeys(("has_power", "can_retire", "can_release", "can_forget", "can_recycle"), False)
    return show(request, "console/desktops/detail.html", context)


def _fits(action: str, observed: str) -> bool:
    """Whether an action makes sense for what is seen; all do where nothing is known."""
    fitting = {
        "on": ("off", "shutdown", "reboot", "reset", "suspend"),
        "off": ("on",),
        "suspended": ("resume", "off"),
    }
    return action in fitting.get(observed, tuple(power.ACTIONS))


@administrators_only
def set_power(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """`?action=`: what may lose somebody's work is asked first."""
    actor = administrator(request)
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
    desktop = services.set_maintenance(actor=administrator(request), desktop_id=desktop_id, on=on)
    message = _("%s is in maintenance: it is not given out.") if on else _("%s is back in service.")
    return done(request, message % desktop, came_from(request, _address(desktop_id)))


def _asked(
    request: HttpRequest, desktop_id: UUID, title: str, verb: str, sentence: str, do: Callable[[Desktop], str]
) -> HttpResponse:
    desktop = get_object_or_404(Desktop.objects.select_related("pool"), pk=desktop_id)
    question = Question(title=title % desktop, verb=verb, back=_address(desktop_id), sentences=[sentence])
    return ask_first(request, question, lambda: do(desktop), _address(desktop_id))


@administrators_only
def recycle(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    def do(desktop: Desktop) -> str:
        services.recycle_desktop(actor=administrator(request), desktop_id=desktop.pk)
        return _("%s gets a fresh disk.") % desktop

    sentence = _("It gets a fresh disk of its template; what is on it is lost.")
    return _asked(request, desktop_id, _("Recycle %s?"), _("Recycle it"), sentence, do)


@administrators_only
def retire(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    def do(desktop: Desktop) -> str:
        services.retire_desktop(actor=administrator(request), desktop_id=desktop.pk)
        return _("%s is being deleted.") % desktop

    sentence = _("Its machine and disks are deleted on the hypervisor. The pool builds another one if it needs it.")
    return _asked(request, desktop_id, _("Delete %s?"), _("Delete it"), sentence, do)


@administrators_only
def forget(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    def do(desktop: Desktop) -> str:
        services.forget_desktop(actor=administrator(request), desktop_id=desktop.pk)
        return _("%s is forgotten; its machine was not touched.") % desktop

    sentence = _(
        "Its machine is not deleted now. Should it turn up again, it is removed if nobody ever had it; else you find "
        "it under Drift."
    )
    return _asked(request, desktop_id, _("Forget %s?"), _("Forget it"), sentence, do)


@administrators_only
def release(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    def do(desktop: Desktop) -> str:
        brokering.release_desktop(actor=administrator(request), desktop_id=desktop.pk)
        return _("%s was taken back and is being recycled.") % desktop

    sentence = _("Its user loses it at once, with everything on it that is not kept elsewhere.")
    return _asked(request, desktop_id, _("Take %s back from its user?"), _("Take it back"), sentence, do)
