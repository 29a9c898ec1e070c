"""What deciding about the power of many desktops needs to know of each."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, QuerySet, Subquery

from broker.domain.lifecycle import State
from broker.domain.power import DesktopFacts, Selection, select
from broker.models import Assignment, Desktop, Operation, ScreenSession
from broker.models.operations import GIVES_WAY, UNFINISHED


def with_facts(desktops: QuerySet[Desktop]) -> QuerySet[Desktop]:
    """Adds what `facts_of` reads, and leaves out the columns that it does not."""
    changing = Operation.objects.filter(desktop=OuterRef("pk"), changes=True, state__in=UNFINISHED).exclude(GIVES_WAY)
    screens = ScreenSession.objects.filter(desktop=OuterRef("pk"), ended_at=None)
    holding = Assignment.objects.filter(desktop=OuterRef("pk"), until=None)
    return desktops.only(
        "id", "name", "state", "power", "epoch", "machine_id", "stamp_key", "hypervisor_id", "pool_id",
        "is_in_maintenance", "is_moving",
    ).annotate(
        is_busy=Exists(changing),
        is_in_use=Exists(screens),
        assigned_since=Subquery(holding.order_by("-since").values("since")[:1]),
    )  # fmt: skip


def facts_of(desktop: Desktop) -> DesktopFacts:
    """Of a row of `with_facts`."""
    return DesktopFacts(
        id=desktop.pk,
        name=desktop.name,
        state=State(desktop.state),
        power=desktop.power,
        has_machine=bool(desktop.machine_id),
        is_busy=desktop.is_busy,  # type: ignore[attr-defined]
        is_in_use=desktop.is_in_use,  # type: ignore[attr-defined]
        is_in_maintenance=desktop.is_in_maintenance,
        is_moving=desktop.is_moving,
        assigned_since=desktop.assigned_since,  # type: ignore[attr-defined]
    )


def review(desktops: QuerySet[Desktop], action: str) -> Selection:
    """What a person's order would reach now; one statement."""
    return select(action, [facts_of(desktop) for desktop in with_facts(desktops)])
