"""Which hypervisors there are and what inventory last saw of them. For administrators: doors check that first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.expressions import Combinable

from broker.domain.budgets import effective
from broker.domain.lifecycle import LIVE
from broker.models import Desktop, Host, Hypervisor, Installation, Machine, MachineTag, Network, Storage, TemplateCopy


def hypervisors() -> QuerySet[Hypervisor]:
    """Every registered one; secrets are not even read."""
    return Hypervisor.objects.defer("secrets")


def hosts() -> QuerySet[Host]:
    return Host.objects.select_related("hypervisor")


def hosts_of(hypervisor_id: UUID) -> QuerySet[Host]:
    return Host.objects.filter(hypervisor=hypervisor_id)


def networks_of(hypervisor_id: UUID) -> QuerySet[Network]:
    return Network.objects.filter(hypervisor=hypervisor_id)


def storages_of(hypervisor_id: UUID) -> QuerySet[Storage]:
    return Storage.objects.filter(hypervisor=hypervisor_id)


def storages_by_hypervisor(hypervisor_ids: Iterable[UUID]) -> dict[UUID, list[Storage]]:
    """One statement."""
    found: dict[UUID, list[Storage]] = {}
    for storage in Storage.objects.filter(hypervisor__in=list(hypervisor_ids)).order_by("name"):
        found.setdefault(storage.hypervisor_id, []).append(storage)
    return found


def machines_of(hypervisor_id: UUID) -> QuerySet[Machine]:
    """Everything the platform lists: ours, others', templates."""
    return Machine.objects.filter(hypervisor=hypervisor_id).select_related("host")


def tags_of(machines: Iterable[tuple[UUID, str]]) -> dict[tuple[UUID, str], list[str]]:
    """The tags of machines (hypervisor, platform id) that bear any, in order. For a page of them: one statement."""
    wanted = set(machines)
    rows = MachineTag.objects.filter(
        hypervisor__in={at for at, _ in wanted}, platform_id__in=[machine for _, machine in wanted]
    )
    found: dict[tuple[UUID, str], list[str]] = {}
    for at, machine, tag in rows.order_by("tag").values_list("hypervisor_id", "platform_id", "tag"):
        found.setdefault((at, machine), []).append(tag)
    return {key: tags for key, tags in found.items() if key in wanted}


def counts_by_status() -> dict[str, int]:
    return dict(Hypervisor.objects.order_by().values_list("status").annotate(number=Count("pk")))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the hosts of one hypervisor have together."""

    hosts: int
    memory_mib: int
    used_memory_mib: int
    reserved_memory_mib: int

    @property
    def taken_memory_mib(self) -> int:
        return self.used_memory_mib + self.reserved_memory_mib


def capacities(hypervisor_ids: Iterable[UUID]) -> dict[UUID, Capacity]:
    """By hypervisor; those without hosts are left out. One statement."""
    rows = Host.objects.filter(hypervisor__in=list(hypervisor_ids)).order_by().values_list("hypervisor")
    sums = rows.annotate(Count("pk"), Sum("memory_mib"), Sum("used_memory_mib"), Sum("reserved_memory_mib"))
    return {hypervisor: Capacity(*numbers) for hypervisor, *numbers in sums}


def live_desktop_counts(hypervisor_ids: Iterable[UUID]) -> dict[UUID, int]:
    live = Desktop.objects.filter(hypervisor__in=list(hypervisor_ids), state__in=LIVE).order_by()
    return dict(live.values_list("hypervisor").annotate(number=Count("pk")))


@dataclass(frozen=True, slots=True)
class Budgets:
    """What may be in flight there now."""

    builds: int
    others: int
    whole_at: datetime | None
    """When the whole budgets hold again; None if they do."""


def budgets_now(hypervisor: Hypervisor, now: datetime) -> Budgets:
    """Less than it may have in all while it says that it is busy."""
    slowdown = hypervisor.slowdown.at(now)
    return Budgets(
        effective(hypervisor.build_budget, slowdown, now),
        effective(hypervisor.power_budget, slowdown, now),
        slowdown.recovered_at(),
    )


OURS, OTHERS, TEMPLATE, UNSTAMPED = "ours", "others", "template", "unstamped"
"""Whose a listed machine is: this installation's, another one's, a template, or nobody's that we know."""


def whose(machine: Machine, installation: str, copies: frozenset[str]) -> str:
    """`copies`: platform ids of the template copies linked on its hypervisor."""
    if machine.is_template or machine.platform_id in copies:
        return TEMPLATE
    if not machine.stamp_installation:
        return UNSTAMPED
    return OURS if machine.stamp_installation == installation else OTHERS


def installation() -> str:
    return str(Installation.objects.values_list("pk", flat=True).get())


def linked_copies(hypervisor_id: UUID) -> dict[str, TemplateCopy]:
    """Platform id -> the template copy it is linked as."""
    copies = TemplateCopy.objects.filter(hypervisor=hypervisor_id).select_related("version__template")
    return {copy.platform_id: copy for copy in copies}


def desktops_by_machine(hypervisor_id: UUID, platform_ids: Iterable[str]) -> dict[str, Desktop]:
    """Platform id -> the live desktop that is this machine."""
    live = Desktop.objects.filter(hypervisor=hypervisor_id, machine_id__in=list(platform_ids), state__in=LIVE)
    return {desktop.machine_id: desktop for desktop in live.only("id", "name", "machine_id")}


def not_a_desktop() -> tuple[Combinable | Q, ...]:
    """Conditions on `Machine`: no live desktop is this machine; see `desktop_of`."""
    live = Desktop.objects.filter(machine_id=OuterRef("platform_id"), state__in=LIVE)
    stamped = live.exclude(stamp_key="").filter(stamp_key=OuterRef("stamp_key"))
    return ~Exists(live.filter(hypervisor=OuterRef("hypervisor"))), ~Exists(stamped)


def desktop_of(machine: Machine) -> Desktop | None:
    """The live desktop that is this machine, if one is: here by its id, and anywhere by the stamp that it bears.

    An endpoint may be registered twice, and both list the same machines; ids alone are unique within one only.
    """
    live = Desktop.objects.filter(machine_id=machine.platform_id, state__in=LIVE)
    same = Q(hypervisor=machine.hypervisor_id)
    if machine.stamp_key:
        same |= Q(stamp_key=machine.stamp_key)
    return live.filter(same).first()


def template_candidates() -> QuerySet[Machine]:
    """What inventory listed as something to clone from, everywhere, with `linked` (a copy's id) if it is one."""
    same = TemplateCopy.objects.filter(hypervisor=OuterRef("hypervisor"), platform_id=OuterRef("platform_id"))
    found = Machine.objects.filter(*not_a_desktop(), is_template=True, absences=0).select_related("hypervisor")
    return found.annotate(linked=Subquery(same.values("pk")[:1])).order_by(F("hypervisor__name"), "name")
