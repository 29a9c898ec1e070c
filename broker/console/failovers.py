"""Failovers: recovery points tried, desktops moved or brought up elsewhere, one by one or a whole pool."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from broker.console.access import administrator, administrators_only
from broker.console.answers import Question, ask_first, done, page_of, posted, saved, show, typed, typed_uuid, word
from broker.console.failover_forms import MoveForm, PoolForm, TargetForm, TestForm
from broker.domain.failover import Kind, Step
from broker.domain.lifecycle import State
from broker.hypervisors import abilities
from broker.models import Desktop, Failover, Hypervisor, Pool
from broker.selectors import desktops, drift, hypervisors, replication
from broker.selectors import failovers as selectors
from broker.services import failovers as services

LIST = "console:failovers"


def _address(failover_id: UUID) -> str:
    return reverse("console:failover", args=[failover_id])


def _desktop_address(desktop_id: UUID) -> str:
    return reverse("console:desktop", args=[desktop_id])


def landing_kinds() -> list[str]:
    """Of the registered ones, those on which machines can be brought up."""
    return [kind for kind in replication.kinds_registered() if abilities.can_land(kind)]


def _chosen(request: HttpRequest, offered: list[Hypervisor]) -> Hypervisor | None:
    """The one that was named, else the first that is up."""
    named = word(request.POST if request.method == "POST" else request.GET, "hypervisor")
    for one in offered:
        if str(one.pk) == named:
            return one
    up = [one for one in offered if one.status == Hypervisor.Status.UP]
    return next(iter([*up, *offered]), None)


# --- what there is ----------------------------------------------------------------------------------------------------


@administrators_only
def list_(request: HttpRequest) -> HttpResponse:
    state, kind = typed(request, "state"), typed(request, "kind")
    wanted = selectors.FailoverFilter(
        state=state if state in Failover.State.values else "",
        kind=kind if kind in selectors.KINDS else "",
        desktop=typed_uuid(request, "desktop"),
        text=typed(request, "q"),
    )
    now = timezone.now()
    page = page_of(request, wanted.apply(selectors.failovers()))
    context = {
        "page": page,
        "rows": [selectors.progress_of(row, now) for row in page],
        "wanted": wanted,
        "states": Failover.State.choices,
        "kinds": [(kind.value, words) for kind, words in selectors.KINDS.items()],
    }
    return show(request, "console/failovers/list.html", context)


@administrators_only
def detail(request: HttpRequest, failover_id: UUID) -> HttpResponse:
    row = get_object_or_404(selectors.failovers(), pk=failover_id)
    left = selectors.left_machine(row)
    context = {
        "failover": row,
        "progress": selectors.progress_of(row, timezone.now()),
        "left": drift.strays([left])[0] if left else None,
    }
    return show(request, "console/failovers/detail.html", context)


@administrators_only
def group(request: HttpRequest, group: UUID) -> HttpResponse:
    """Those of a pool that go together."""
    rows = selectors.failovers().filter(group=group).order_by("place")
    first = rows.select_related("desktop__pool").first()
    if first is None:
        raise Http404
    now = timezone.now()
    page = page_of(request, rows)
    context = {
        "group": group,
        "first": first,
        "pool": first.desktop.pool if first.desktop else None,
        "counts": selectors.group_counts(group),
        "page": page,
        "rows": [selectors.progress_of(row, now) for row in page],
    }
    return show(request, "console/failovers/group.html", context)


@administrators_only
def cancel(request: HttpRequest, failover_id: UUID) -> HttpResponse:
    row = get_object_or_404(selectors.failovers(), pk=failover_id)
    question = Question(
        title=_("Cancel this %(kind)s of %(subject)s?")
        % {"kind": selectors.KINDS[Kind(row.kind)].lower(), "subject": row.subject},
        verb=_("Cancel it"),
        back=_address(failover_id),
        sentences=[_what_cancelling_does(row)],
    )

    def do() -> str:
        services.cancel(actor=administrator(request), failover_id=failover_id)
        return _("It is being cancelled.")

    return ask_first(request, question, do, _address(failover_id))


def _what_cancelling_does(row: Failover) -> str:
    if row.kind == Kind.TEST:
        return _("What was brought up on %s is deleted.") % row.hypervisor
    if row.kind == Kind.EMERGENCY:
        return (
            _("What was brought up on %s is deleted, and its user waits until its old host is back.") % row.hypervisor
        )
    if row.step in (Step.WAITING, Step.COPYING):
        return _("It stays where it is; its user notices nothing.")
    words = _("What was made on %(there)s is deleted, and it runs again on %(here)s if it ran before.")
    return words % {"there": row.hypervisor, "here": row.old_hypervisor}


# --- a recovery point is tried ----------------------------------------------------------------------------------------


@administrators_only
def test_point(request: HttpRequest, point_id: UUID) -> HttpResponse:
    """On which hypervisor stands in the address: what it has decides what can be asked."""
    point = get_object_or_404(replication.points(), pk=point_id)
    offered = list(replication.hypervisors_of(landing_kinds()))
    chosen = _chosen(request, offered)
    context: dict[str, object] = {"point": point, "hypervisors": offered, "hypervisor": chosen}
    if chosen is None:
        return show(request, "console/failovers/test.html", context)
    form = TestForm(
        chosen,
        list(hypervisors.storages_of(chosen.pk)),
        list(hypervisors.networks_of(chosen.pk)),
        point.size_bytes >> 20,
        len(point.configuration.get("nics", ())),
        posted(request),
    )
    if request.method == "POST":
        actor = administrator(request)
        made = saved(form, lambda _data: services.begin_test(actor=actor, point_id=point_id, target=form.target()))
        if made:
            return done(request, _("The test has begun."), _address(made.pk))
    context["form"] = form
    return show(request, "console/failovers/test.html", context, status=422 if form.errors else 200)


# --- a desktop goes elsewhere -----------------------------------------------------------------------------------------


def _desktop(desktop_id: UUID) -> Desktop:
    return get_object_or_404(desktops.desktops_with_owner(), pk=desktop_id)


@administrators_only
def move(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    desktop = _desktop(desktop_id)
    offered = list(selectors.others_of(desktop, landing_kinds()))
    chosen = _chosen(request, offered)
    point = selectors.newest_point(desktop)
    context: dict[str, object] = {
        "desktop": desktop, "hypervisors": offered, "hypervisor": chosen, "point": point,
        "can_be_read": abilities.can_replicate(desktop.hypervisor.kind),
    }  # fmt: skip
    if chosen is None:
        return show(request, "console/failovers/move.html", context)
    vaults = selectors.vaults_for(desktop)
    needed_mib = point.size_bytes >> 20 if point else 0
    form = MoveForm(chosen, list(hypervisors.storages_of(chosen.pk)), needed_mib, vaults, posted(request))
    if request.method == "POST":
        actor = administrator(request)
        made = saved(
            form,
            lambda data: services.begin_move(
                actor=actor, desktop_id=desktop_id, vault_id=UUID(data["vault"]), target=form.target()
            ),
        )
        if made:
            words = _("%(desktop)s goes to %(there)s.") % {"desktop": desktop, "there": chosen}
            return done(request, words, _address(made.pk))
    context |= {"form": form, "networks": selectors.networks_as_built(desktop.pool_id, chosen.pk)}
    return show(request, "console/failovers/move.html", context, status=422 if form.errors else 200)


@administrators_only
def bring_up(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """Its hypervisor is lost: its newest recovery point becomes the desktop."""
    desktop = _desktop(desktop_id)
    offered = list(selectors.others_of(desktop, landing_kinds()))
    chosen = _chosen(request, offered)
    point = selectors.newest_point(desktop)
    context: dict[str, object] = {
        "desktop": desktop, "hypervisors": offered, "hypervisor": chosen, "point": point,
        "lost_s": (timezone.now() - point.taken_at).total_seconds() if point else None,
    }  # fmt: skip
    if chosen is None or point is None:
        return show(request, "console/failovers/bring_up.html", context)
    form = TargetForm(chosen, list(hypervisors.storages_of(chosen.pk)), point.size_bytes >> 20, posted(request))
    if request.method == "POST":
        actor = administrator(request)
        made = saved(
            form, lambda _data: services.begin_emergency(actor=actor, desktop_id=desktop_id, target=form.target())
        )
        if made:
            words = _("%(desktop)s is being brought up on %(there)s.") % {"desktop": desktop, "there": chosen}
            return done(request, words, _address(made.pk))
    context |= {"form": form, "networks": selectors.networks_as_built(desktop.pool_id, chosen.pk)}
    return show(request, "console/failovers/bring_up.html", context, status=422 if form.errors else 200)


# --- a whole pool -----------------------------------------------------------------------------------------------------


def _pool_form(request: HttpRequest, chosen: Hypervisor) -> PoolForm:
    """Filled in by the address: looking ahead changes nothing."""
    given = request.GET if "kind" in request.GET else None
    return PoolForm(chosen, list(hypervisors.storages_of(chosen.pk)), selectors.vaults_for(None), given)


@administrators_only
def pool(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    """First what would become of each desktop; the page that says so leads to the beginning."""
    pool = get_object_or_404(Pool, pk=pool_id)
    offered = list(selectors.targets_of(pool_id, landing_kinds()))
    chosen = _chosen(request, offered)
    context: dict[str, object] = {
        "pool": pool, "hypervisors": offered, "hypervisor": chosen, "running": selectors.newest_group_of(pool_id),
    }  # fmt: skip
    if chosen is None:
        return show(request, "console/failovers/pool.html", context)
    form = _pool_form(request, chosen)
    context["form"] = form
    if form.is_bound and form.is_valid():
        prospects = services.look_ahead(
            actor=administrator(request),
            pool_id=pool_id,
            target=form.target(),
            kind=Kind(form.cleaned_data["kind"]),
        )
        able = [one for one in prospects if not one.why_not]
        words = {"hypervisor": str(chosen.pk), **{name: form.cleaned_data[name] for name in form.fields}}
        context |= {
            "prospects": prospects,
            "able": len(able),
            "kind": form.cleaned_data["kind"],
            "worst_s": max((one.loses_s for one in able if one.loses_s is not None), default=None),
            "begin": f"{reverse('console:pool-failover-begin', args=[pool_id])}?{urlencode(words)}",
        }
    return show(request, "console/failovers/pool.html", context, status=422 if form.errors else 200)


@administrators_only
def begin_pool(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    """Asked once more with the figures of now; what is wanted stands in the address."""
    pool = get_object_or_404(Pool, pk=pool_id)
    back = reverse("console:pool-failover", args=[pool_id])
    named = typed(request, "hypervisor")
    chosen = next((one for one in selectors.targets_of(pool_id, landing_kinds()) if str(one.pk) == named), None)
    form = _pool_form(request, chosen) if chosen else None
    if chosen is None or form is None or not form.is_valid():
        return ask_first(request, Question(_("Choose where it goes first."), _("Back"), back), lambda: "", back)
    actor, kind, target, vault = (
        administrator(request), Kind(form.cleaned_data["kind"]), form.target(), form.chosen_vault(),
    )  # fmt: skip
    prospects = services.look_ahead(actor=actor, pool_id=pool_id, target=target, kind=kind)
    able = [one for one in prospects if not one.why_not]
    title = {
        Kind.MOVE: ngettext(
            "Move %(n)d desktop of %(pool)s to %(there)s?", "Move %(n)d desktops of %(pool)s to %(there)s?", len(able)
        ),
        Kind.EMERGENCY: ngettext(
            "Bring up %(n)d desktop of %(pool)s on %(there)s?",
            "Bring up %(n)d desktops of %(pool)s on %(there)s?",
            len(able),
        ),
    }[kind] % {"n": len(able), "pool": pool, "there": chosen}
    if not able:
        title = _("No desktop of %(pool)s can go to %(there)s.") % {"pool": pool, "there": chosen}
    question = Question(
        title=title,
        verb=_("Begin"),
        back=f"{back}?{request.GET.urlencode()}",
        sentences=_said_of_pool(kind, len(prospects) - len(able)),
        typed_name=pool.name if kind == Kind.EMERGENCY else "",
        is_harmless=kind == Kind.MOVE,
    )
    made: list[UUID] = []

    def do() -> str:
        made.append(services.begin_pool(actor=actor, pool_id=pool_id, target=target, kind=kind, vault_id=vault))
        return _("It has begun.")

    return ask_first(request, question, do, lambda: reverse("console:failover-group", args=made), leaves=True)


def _said_of_pool(kind: Kind, left_out: int) -> list[str]:
    said = [
        _("A few go at once, in the order shown. Each keeps its user; nothing is lost.")
        if kind == Kind.MOVE
        else _("What their users did since those points is lost. The old machines are left alone.")
    ]
    if left_out:
        words = ngettext("%d is left out; the dry run says why.", "%d are left out; the dry run says why.", left_out)
        said.append(words % left_out)
    return said


# --- shown on other pages ---------------------------------------------------------------------------------------------


def of_desktop(desktop: Desktop) -> dict[str, object]:
    """What a desktop's page needs: the failover that it is in, or which it could begin."""
    row = selectors.running_of(desktop.pk)
    can_go = row is None and desktop.state == State.ASSIGNED and bool(desktop.machine_id)
    is_up = desktop.hypervisor.status == Hypervisor.Status.UP
    return {
        "failover": selectors.progress_of(row, timezone.now()) if row else None,
        "can_move": can_go and is_up,
        "can_bring_up": can_go and not is_up,
    }
