"""Recovery points: find them, have them read back, bring one up as a machine, delete one."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, act, ask_first, done, posted, saved, show, typed, typed_uuid, word
from broker.console.failovers import landing_kinds
from broker.console.lists import Column, Listing
from broker.console.replication_forms import NAME_AT_MOST, BringUpForm
from broker.models import Hypervisor, RecoveryPoint, ReplicationSource, Vault
from broker.selectors import failovers, hypervisors, replication
from broker.services import recovery as services

LIST = Listing(
    "recovery-points",
    Column("when", gettext_lazy("When"), lambda row: row.taken_at, ("taken_at",), begins_down=True),
    Column("machine", gettext_lazy("Machine"), lambda row: row.machine_name, ("machine_name",)),
    Column("hypervisor", gettext_lazy("Hypervisor"), lambda row: row.hypervisor_name, ("hypervisor_name",)),
    Column("state", gettext_lazy("State"), lambda row: row.state, ("state",)),
    Column("consistency", gettext_lazy("Consistency"), lambda row: row.consistency, ("consistency",)),
    Column("size", gettext_lazy("Size"), lambda row: row.size_bytes, ("size_bytes",), begins_down=True),
    Column("added", gettext_lazy("It added"), lambda row: row.new_bytes, ("new_bytes",), begins_down=True),
    Column("read-back", gettext_lazy("Read back"), lambda row: row.verified_at, ("verified_at",), begins_down=True),
    Column("id", gettext_lazy("Id"), lambda row: row.pk),
)
RUNS_SHOWN = 10
TESTS_SHOWN = 5


def _address(point_id: UUID) -> str:
    return reverse("console:point", args=[point_id])


def _run_address(run_id: UUID) -> str:
    return reverse("console:run", args=[run_id])


@needs(Right.REVIEW)
def list_(request: HttpRequest) -> HttpResponse:
    state = typed(request, "state")
    wanted = replication.PointFilter(
        source=typed_uuid(request, "source"),
        vault=typed_uuid(request, "vault"),
        state=state if state in RecoveryPoint.State.values else "",
        text=typed(request, "q"),
    )
    sources = ReplicationSource.objects.select_related("policy").defer("bookmark")
    context = {
        "wanted": wanted,
        "source": sources.filter(pk=wanted.source).first() if wanted.source else None,
        "vaults": Vault.objects.only("name"),
        "states": RecoveryPoint.State.choices,
    }
    return LIST.answer(request, "console/recovery/list.html", wanted.apply(replication.points()), context)


@needs(Right.REVIEW)
def detail(request: HttpRequest, point_id: UUID) -> HttpResponse:
    point = get_object_or_404(replication.points(), pk=point_id)
    now = timezone.now()
    made = replication.runs().filter(point=point)[:RUNS_SHOWN]
    tests = failovers.tests_of(point_id)[:TESTS_SHOWN]
    context = {
        "point": point,
        "tests": [failovers.progress_of(row, now) for row in tests],
        "runs": [(run, replication.pace_of(run, now)) for run in made],
        "can_be_brought_up": bool(landing_kinds()) and point.state == RecoveryPoint.State.USABLE,
    }
    return show(request, "console/recovery/detail.html", context)


@needs(Right.OPERATE)
@act
def verify(request: HttpRequest, point_id: UUID) -> HttpResponse:
    services.verify_point(actor=actor_of(request), point_id=point_id)
    return done(request, _("It is being read back."), _address(point_id))


@needs(Right.OPERATE)
def bring_up(request: HttpRequest, point_id: UUID) -> HttpResponse:
    """On which hypervisor stands in the address: what it has decides what can be asked."""
    point = get_object_or_404(replication.points(), pk=point_id)
    offered = list(replication.hypervisors_of(landing_kinds()))
    chosen = _chosen(request, offered, point)
    context: dict[str, object] = {"point": point, "hypervisors": offered, "hypervisor": chosen}
    if chosen is None:
        return show(request, "console/recovery/bring_up.html", context)
    still_runs = replication.still_runs(point)
    form = BringUpForm(
        point,
        list(hypervisors.storages_of(chosen.pk)),
        list(hypervisors.networks_of(chosen.pk)),
        posted(request),
        connects=not still_runs,
        initial={"name": _name_for(point)},
    )
    if request.method == "POST":
        actor = actor_of(request)
        run = saved(
            form,
            lambda _data: services.materialise(
                actor=actor, point_id=point_id, hypervisor_id=chosen.pk, **form.values()
            ),
        )
        if run:
            return done(request, _("%s is being brought up.") % run.subject, _run_address(run.pk))
    context |= {"form": form, "still_runs": still_runs}
    return show(request, "console/recovery/bring_up.html", context, status=422 if form.errors else 200)


def _chosen(request: HttpRequest, offered: list[Hypervisor], point: RecoveryPoint) -> Hypervisor | None:
    """The one that was named; else where the machine stood, else the first that is up."""
    named = word(request.POST if request.method == "POST" else request.GET, "hypervisor")
    for one in offered:
        if str(one.pk) == named:
            return one
    home = [one for one in offered if one.name == point.hypervisor_name]
    up = [one for one in offered if one.status == Hypervisor.Status.UP]
    return next(iter([*home, *up, *offered]), None)


def _name_for(point: RecoveryPoint) -> str:
    """Another one than the machine's own, which may be there still."""
    ending = f"-{point.taken_at:%m%d-%H%M}"
    return point.machine_name[: NAME_AT_MOST - len(ending)] + ending


@needs(Right.OPERATE)
def delete(request: HttpRequest, point_id: UUID) -> HttpResponse:
    point = get_object_or_404(replication.points(), pk=point_id)
    question = Question(
        title=_("Delete this recovery point of %s?") % point.machine_name,
        verb=_("Delete it"),
        back=_address(point_id),
        sentences=[
            _("What %(machine)s was at %(at)s cannot be brought back any more. Other points stay whole.")
            % {"machine": point.machine_name, "at": f"{point.taken_at:%Y-%m-%d %H:%M} UTC"},
            _("A mover deletes it; its room in the vault is free after the next collection."),
        ],
    )

    def do() -> str:
        services.delete_point(actor=actor_of(request), point_id=point_id)
        return _("It is being deleted.")

    return ask_first(request, question, do, reverse("console:points"))
