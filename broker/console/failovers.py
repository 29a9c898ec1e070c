"""Failovers: recovery points tried, desktops moved or brought up elsewhere, one by one or a whole pool."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import UUID

from django.core.paginator import Page
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, ask_first, done, page_of, posted, saved, show, typed, typed_uuid, word
from broker.console.failover_forms import MoveForm, PoolForm, TargetForm, TestForm
from broker.console.lists import Column, Listing
from broker.domain.failover import Kind, Step
from broker.domain.lifecycle import State
from broker.hypervisors import abilities
from broker.models import Desktop, Failover, Hypervisor, Pool
from broker.selectors import desktops, drift, hypervisors, replication
from broker.selectors import failovers as selectors
from broker.services import failovers as services
from broker.services import replicas

LIST = "console:failovers"
LISTED = Listing(
    "failovers",
    Column("machine", gettext_lazy("Machine"), lambda row: row.subject, ("subject",)),
    Column("what", gettext_lazy("What"), lambda row: row.kind, ("kind",)),
    Column("to", gettext_lazy("To"), lambda row: row.hypervisor.name),
    Column("state", gettext_lazy("State"), lambda row: row.state, ("state",)),
    Column("error", gettext_lazy("Error"), lambda row: row.error),
    Column("when", gettext_lazy("When"), lambda row: row.created_at, ("created_at",), begins_down=True),
    Column("finished", gettext_lazy("Finished"), lambda row: row.finished_at),
    Column("digest", gettext_lazy("Digest of its report"), lambda row: row.digest),
    Column("id", gettext_lazy("Id"), lambda row: row.pk),
)


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


@needs(Right.REVIEW)
def list_(request: HttpRequest) -> HttpResponse:
    state, kind = typed(request, "state"), typed(request, "kind")
    wanted = selectors.FailoverFilter(
        state=state if state in Failover.State.values else "",
        kind=kind if kind in selectors.KINDS else "",
        desktop=typed_uuid(request, "desktop"),
        text=typed(request, "q"),
    )
    now = timezone.now()
    context = {
        "wanted": wanted,
        "states": Failover.State.choices,
        "kinds": [(kind.value, words) for kind, words in selectors.KINDS.items()],
    }

    def standing(page: Page[Failover]) -> dict[str, object]:
        return {"rows": [selectors.progress_of(row, now) for row in page]}

    return LISTED.answer(request, "console/failovers/list.html", wanted.apply(selectors.failovers()), context, standing)


@needs(Right.REVIEW)
def detail(request: HttpRequest, failover_id: UUID) -> HttpResponse:
    row = get_object_or_404(selectors.failovers(), pk=failover_id)
    left = selectors.left_machine(row)
    context = {
        "failover": row,
        "progress": selectors.progress_of(row, timezone.now()),
        "left": drift.strays([left])[0] if left else None,
    }
    return show(request, "console/failovers/detail.html", context)


@needs(Right.REVIEW)
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


@needs(Right.OPERATE)
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
        services.cancel(actor=actor_of(request), failover_id=failover_id)
        return _("It is being cancelled.")

    return ask_first(request, question, do, _address(failover_id))


@needs(Right.OPERATE)
def cancel_group(request: HttpRequest, group: UUID) -> HttpResponse:
    """All of a group that can still be cancelled, each as if by itself."""
    row = selectors.failovers().filter(group=group).order_by("place").first()
    if row is None:
        raise Http404
    counts = selectors.group_counts(group)
    back = reverse("console:failover-group", args=[group])
    going = counts.waiting + counts.under_way
    said = [_("Those that wait stay where they are; those under way are taken back, each by itself.")]
    if counts.done:
        said.append(ngettext("%d is done and stays there.", "%d are done and stay there.", counts.done) % counts.done)
    question = Question(
        title=ngettext("Cancel the %(n)d that is not over?", "Cancel all %(n)d that are not over?", going)
        % {"n": going},
        verb=_("Cancel them"),
        back=back,
        sentences=said,
    )

    def do() -> str:
        return _told_of_group(services.cancel_group(actor=actor_of(request), group=group))

    return ask_first(request, question, do, back)


def _told_of_group(ended: services.GroupEnd) -> str:
    words = ngettext("%d is being cancelled.", "%d are being cancelled.", ended.cancelled) % ended.cancelled
    if ended.left:
        more = ngettext("%d could not be any more.", "%d could not be any more.", ended.left) % ended.left
        return f"{words} {more}"
    return words


def _what_cancelling_does(row: Failover) -> str:
    if row.kind == Kind.TEST:
        return _("What was brought up on %s is deleted.") % row.hypervisor
    if row.kind == Kind.EMERGENCY:
        return (
            _("What was brought up on %s is deleted, and its user waits until its old host is back.") % row.hypervisor
        )
    if row.kind == Kind.PLANNED and row.step != Step.WAITING:
        return _("The replica is one again, and it runs again on %s if it ran before.") % row.old_hypervisor
    if row.step in (Step.WAITING, Step.COPYING):
        return _("It stays where it is; its user notices nothing.")
    words = _("What was made on %(there)s is deleted, and it runs again on %(here)s if it ran before.")
    return words % {"there": row.hypervisor, "here": row.old_hypervisor}


# --- a recovery point is tried ----------------------------------------------------------------------------------------


@needs(Right.OPERATE)
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
        actor = actor_of(request)
        made = saved(form, lambda _data: services.begin_test(actor=actor, point_id=point_id, target=form.target()))
        if made:
            return done(request, _("The test has begun."), _address(made.pk))
    context["form"] = form
    return show(request, "console/failovers/test.html", context, status=422 if form.errors else 200)


# --- a desktop goes elsewhere -----------------------------------------------------------------------------------------


def _desktop(desktop_id: UUID) -> Desktop:
    return get_object_or_404(desktops.desktops_with_owner(), pk=desktop_id)


@needs(Right.OPERATE)
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
        actor = actor_of(request)
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


@needs(Right.OPERATE)
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
        actor = actor_of(request)
        made = saved(
            form, lambda _data: services.begin_emergency(actor=actor, desktop_id=desktop_id, target=form.target())
        )
        if made:
            words = _("%(desktop)s is being brought up on %(there)s.") % {"desktop": desktop, "there": chosen}
            return done(request, words, _address(made.pk))
    context |= {"form": form, "networks": selectors.networks_as_built(desktop.pool_id, chosen.pk)}
    return show(request, "console/failovers/bring_up.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def fail_over(request: HttpRequest, desktop_id: UUID) -> HttpResponse:
    """The replica that its platform keeps takes its place, or why it cannot."""
    desktop = _desktop(desktop_id)
    back = _desktop_address(desktop_id)
    replica = replicas.replica_of(desktop)
    if replica.why_not:
        title = _("%s cannot go over to a replica now.") % desktop
        question = Question(title, _("Back"), back, sentences=[replica.why_not], is_harmless=True)
        return ask_first(request, question, lambda: "", back)
    question = Question(
        title=_("Fail %(desktop)s over to %(there)s?") % {"desktop": desktop, "there": replica.hypervisor},
        verb=_("Fail over"),
        back=back,
        sentences=[
            _("It is shut down, and its platform sends what is missing to the replica: nothing is lost."),
            _("The replica is started there. Until its guest answers nobody can work; then its user goes on there."),
            _("If it does not, the machine runs again where it is now. Otherwise that becomes the replica."),
        ],
        is_harmless=True,
    )
    made: list[UUID] = []

    def do() -> str:
        made.append(services.begin_planned(actor=actor_of(request), desktop_id=desktop_id).pk)
        return _("%(desktop)s goes to %(there)s.") % {"desktop": desktop, "there": replica.hypervisor}

    return ask_first(request, question, do, lambda: _address(made[0]), leaves=True)


# --- a whole pool -----------------------------------------------------------------------------------------------------


def _pool_form(request: HttpRequest, chosen: Hypervisor) -> PoolForm:
    """Filled in by the address: looking ahead changes nothing."""
    given = request.GET if "kind" in request.GET else None
    return PoolForm(chosen, list(hypervisors.storages_of(chosen.pk)), selectors.vaults_for(None), given)


@needs(Right.OPERATE)
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
            actor=actor_of(request),
            pool_id=pool_id,
            target=form.target(),
            kind=Kind(form.cleaned_data["kind"]),
        )
        able = [one for one in prospects if not one.why_not]
        words = {"hypervisor": str(chosen.pk), **{name: form.cleaned_data[name] for name in form.fields}}
        context |= {
            "prospects": prospects,
            "able": len(able),
            "tight": sum(bool(one.lacks) for one in able),
            "kind": form.cleaned_data["kind"],
            "worst_s": max((one.loses_s for one in able if one.loses_s is not None), default=None),
            "begin": f"{reverse('console:pool-failover-begin', args=[pool_id])}?{urlencode(words)}",
        }
    return show(request, "console/failovers/pool.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
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
        actor_of(request), Kind(form.cleaned_data["kind"]), form.target(), form.chosen_vault(),
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
        sentences=_said_of_pool(kind, len(prospects) - len(able), sum(bool(one.lacks) for one in able)),
        typed_name=pool.name if kind == Kind.EMERGENCY else "",
        is_harmless=kind == Kind.MOVE,
    )
    made: list[UUID] = []

    def do() -> str:
        made.append(services.begin_pool(actor=actor, pool_id=pool_id, target=target, kind=kind, vault_id=vault))
        return _("It has begun.")

    return ask_first(request, question, do, lambda: reverse("console:failover-group", args=made), leaves=True)


def _said_of_pool(kind: Kind, left_out: int, tight: int) -> list[str]:
    said = [
        _("A few go at once, in the order shown. Each keeps its user; nothing is lost.")
        if kind == Kind.MOVE
        else _("What their users did since those points is lost. The old machines are left alone.")
    ]
    if left_out:
        words = ngettext("%d is left out; the dry run says why.", "%d are left out; the dry run says why.", left_out)
        said.append(words % left_out)
    if tight:
        words = ngettext(
            "There may be no room for %d of them; the dry run says why.",
            "There may be no room for %d of them; the dry run says why.",
            tight,
        )
        said.append(words % tight)
    return said


# --- shown on other pages ---------------------------------------------------------------------------------------------


def of_desktop(desktop: Desktop) -> dict[str, object]:
    """What a desktop's page needs: the failover that it is in, or which it could begin."""
    row = selectors.running_of(desktop.pk)
    can_go = row is None and not desktop.pool.is_shared and desktop.state == State.ASSIGNED and bool(desktop.machine_id)
    is_up = desktop.hypervisor.status == Hypervisor.Status.UP
    return {
        "failover": selectors.progress_of(row, timezone.now()) if row else None,
        "can_move": can_go and is_up,
        "can_bring_up": can_go and not is_up,
        "can_fail_over": can_go and replicas.is_watched(desktop),
    }
