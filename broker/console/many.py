"""Many desktops at once: of the chosen rows or of all that fit the filter, and first what it would touch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from broker.console.access import Can, Right, actor_of, needs
from broker.console.answers import Question, ask_first, word
from broker.domain.many import CHANGES, Change, select
from broker.domain.power import DesktopFacts, Selection
from broker.models import Desktop
from broker.selectors import desktops
from broker.selectors import power as selectors
from broker.services import many as services
from broker.services import power
from broker.services.errors import Clash, Invalid

FILTERS = ("q", "state", "pool", "hypervisor", "sort")
HARD = {"off": "Power is cut: unsaved work is lost.", "reset": "Like the reset button: unsaved work is lost."}
NAMED = 5
"""Desktops named one by one where something was not done."""


@dataclass(frozen=True, slots=True)
class Act:
    """One button below the list."""

    verb: Any
    done: Callable[[int], str]
    warning: Any = ""
    asks: Callable[[int], str] | None = None
    """None: the verb and how many."""
    is_hard: bool = False
    is_common: bool = False
    """Whether it stands in the bar itself, not among the others."""
    is_typed: bool = False
    """Whether the number must be typed first: what is deleted stays deleted."""


def _asked(act: Act, count: int) -> str:
    if act.asks:
        return act.asks(count)
    return ngettext("%(verb)s %(n)d desktop?", "%(verb)s %(n)d desktops?", count) % {"verb": act.verb, "n": count}


def _ordered(count: int) -> str:
    return ngettext("Ordered for %d desktop.", "Ordered for %d desktops.", count) % count


COMMON = ("on", "shutdown", "reboot")
ACTS: dict[str, Act] = {
    **{
        action: Act(
            words,
            _ordered,
            HARD.get(action, ""),
            is_hard=action in HARD,
            is_common=action in COMMON,
        )
        for action, words in power.ACTIONS.items()
    },
    Change.MAINTAIN: Act(
        gettext_lazy("Take out of service"),
        lambda n: ngettext("%d desktop is in maintenance.", "%d desktops are in maintenance.", n) % n,
        gettext_lazy("In maintenance they are neither given out nor deleted; who has one keeps it."),
        asks=lambda n: ngettext("Take %d desktop out of service?", "Take %d desktops out of service?", n) % n,
        is_common=True,
    ),
    Change.SERVE: Act(
        gettext_lazy("Put back into service"),
        lambda n: ngettext("%d desktop is back in service.", "%d desktops are back in service.", n) % n,
        asks=lambda n: ngettext("Put %d desktop back into service?", "Put %d desktops back into service?", n) % n,
    ),
    Change.RECYCLE: Act(
        gettext_lazy("Recycle"),
        lambda n: ngettext("%d desktop gets a fresh disk.", "%d desktops get fresh disks.", n) % n,
        gettext_lazy("They get fresh disks of their template; what is on them is lost."),
        is_hard=True,
    ),
    Change.RETIRE: Act(
        gettext_lazy("Delete"),
        lambda n: ngettext("%d desktop is being deleted.", "%d desktops are being deleted.", n) % n,
        gettext_lazy("Machines and disks are deleted on their hypervisors. Pools build others if they need them."),
        is_hard=True,
        is_typed=True,
    ),
}


def offered(can: Can) -> list[tuple[str, Act]]:
    """The buttons for whoever looks, by the words that they send."""
    return [(word, act) for word, act in ACTS.items() if can.operate or word != Change.RETIRE]


def uuid_of(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def filter_of(given: QueryDict) -> desktops.DesktopFilter:
    """What is looked for, from the address of the list or from the form below it."""
    return desktops.DesktopFilter(
        state=word(given, "state"),
        pool=uuid_of(given.get("pool", "")),
        hypervisor=uuid_of(given.get("hypervisor", "")),
        text=word(given, "q"),
    )


@needs(Right.SERVE)
def change(request: HttpRequest) -> HttpResponse:
    """Says first what it would touch and what not."""
    actor = actor_of(request)
    name = request.POST.get("action", "")
    act = ACTS.get(name)
    ids = [pk for text in request.POST.getlist("desktop") if (pk := uuid_of(text))]
    is_filter = request.POST.get("all") == "1"
    wanted = filter_of(request.POST).apply(Desktop.objects.all()) if is_filter else Desktop.objects.filter(pk__in=ids)
    found = _review(wanted, name) if act and (is_filter or ids) else Selection()
    total, count = len(found.chosen) + len(found.skipped), len(found.chosen)
    question = Question(
        title=_asked(act, count) if act else _("There is no such action."),
        verb=str(act.verb) if act else _("Back"),
        back=_list_address(request),
        sentences=_touched(found, act, fits=total if is_filter else None),
        is_harmless=not (act and act.is_hard),
        typed_name=str(count) if act and act.is_typed and count else "",
        hidden=[("action", name), *_chosen(request, ids, total if is_filter else None)],
    )

    def do() -> str:
        if not act or not (is_filter or ids):
            raise Invalid(_("Choose desktops and an action first."))
        shown = request.POST.get("shown", "")
        at_most = int(shown) if is_filter and shown.isdecimal() else None
        if name in CHANGES:
            changed = services.change_many(actor=actor, wanted=wanted, change=name, at_most=at_most)
            return _said(act, len(changed.desktops), changed.skipped)
        ordered = power.set_power_of_many(actor=actor, wanted=wanted, action=name, at_most=at_most)
        return _said(act, len(ordered.operations), ordered.skipped)

    return ask_first(request, question, do, _list_address(request))


def _review(wanted: QuerySet[Desktop], name: str) -> Selection:
    """What it would reach now; one statement."""
    if name not in CHANGES:
        return selectors.review(wanted, name)
    return select(Change(name), [selectors.facts_of(desktop) for desktop in selectors.with_facts(wanted)])


def _list_address(request: HttpRequest) -> str:
    """The list as the person had filtered it."""
    filters = {name: value for name in FILTERS if (value := word(request.POST, name))}
    address = reverse("console:desktops")
    return f"{address}?{urlencode(filters)}" if filters else address


def _touched(found: Selection, act: Act | None, *, fits: int | None) -> list[str]:
    """What it would reach and what not, in words. `fits`: how many fit the filter, if one is meant."""
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
    return [*said, *([str(act.warning)] if act and act.warning and found.chosen else [])]


def _chosen(request: HttpRequest, ids: list[UUID], fits: int | None) -> list[tuple[str, str]]:
    """What was chosen, as fields to be sent again with the answer."""
    filters = [(name, word(request.POST, name)) for name in FILTERS]
    if fits is None:
        return [*filters, *(("desktop", str(pk)) for pk in ids)]
    return [*filters, ("all", "1"), ("shown", str(fits))]


def _said(act: Act, count: int, skipped: Sequence[tuple[DesktopFacts, str]]) -> str:
    """What was done, and for which not and why. Raises `Clash` if that is for all of them."""
    why = ", ".join(f"{desktop.name} is {words}" for desktop, words in skipped[:NAMED])
    if not count:
        raise Clash(_("Nothing was ordered. %s.") % (why or _("No desktop fits any more")))
    message = act.done(count)
    if skipped:
        more = " …" if len(skipped) > NAMED else "."
        message += " " + _("Not for %(n)d: %(why)s") % {"n": len(skipped), "why": why + more}
    return message
