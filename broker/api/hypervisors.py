"""Hypervisors and what inventory saw of them. For every role."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone
from ninja import Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page, page_by_name
from broker.api.shapes import In, Out, Switch
from broker.hypervisors import abilities
from broker.models import Host, Hypervisor, Machine, Network, Storage
from broker.selectors import hypervisors as selectors
from broker.services import hypervisors as services
from broker.services import tags
from broker.services.permissions import has

router = Router(tags=["hypervisors"])

Setting = str | int | bool


class HypervisorOut(Out):
    id: UUID
    name: str
    kind: str
    status: str
    """new, up, down, refused (sign-in or certificate), doubt (too many machines vanished at once)"""
    status_reason: str
    status_since: datetime | None
    product: str
    orders: list[str]
    """What works there with this account."""
    warnings: list[str]
    settings: dict[str, Setting | None]
    """Those that are not secret."""
    is_draining: bool
    build_budget: int
    """Builds, recycles and deletes in flight at once."""
    power_budget: int
    """All other changing operations in flight at once."""
    build_budget_now: int
    """Less than `build_budget` while it says that it is busy; so with `power_budget_now`."""
    power_budget_now: int
    memory_ratio: float
    vcpu_ratio: float
    machines_in_doubt: int
    complete_at: datetime | None
    """When the last complete listing began."""
    can_replicate: bool
    """Its machines can be replicated."""
    can_land: bool
    """Machines can be brought up on it from recovery points."""
    created_at: datetime


class HostOut(Out):
    id: UUID
    name: str
    platform_id: str
    vcpus: int
    memory_mib: int
    used_vcpus: int
    used_memory_mib: int
    reserved_vcpus: int
    reserved_memory_mib: int
    is_up: bool
    is_draining: bool


class NetworkOut(Out):
    id: UUID
    name: str
    platform_id: str
    kind: str
    is_isolated: bool
    """The platform itself keeps it apart."""


class StorageOut(Out):
    id: UUID
    name: str
    platform_id: str
    capacity_mib: int
    free_mib: int
    is_up: bool


class MachineOut(Out):
    id: UUID
    name: str
    platform_id: str
    power: str
    vcpus: int
    memory_mib: int
    host: UUID | None
    addresses: list[str]
    is_template: bool
    template_cannot: str
    """Why it can't serve as a template; empty if it can."""
    stamp_installation: str
    """Id of the installation that made it; empty: none."""
    tags: list[str]
    """By which policies may choose it."""
    seen_at: datetime


class HypervisorIn(In):
    name: str
    kind: str
    settings: dict[str, Setting] = {}
    """As `manage.py connectors` and the console's form name them, secrets included."""


class HypervisorChange(In):
    name: str | None = None
    settings: dict[str, Setting] = {}
    """What is not named, and secrets left empty, stay as they are."""


class MachineFilter(Window):
    is_template: bool | None = None


def show(row: Hypervisor, *, is_told_settings: bool = True) -> HypervisorOut:
    now = selectors.budgets_now(row, timezone.now())
    return HypervisorOut(
        id=row.pk,
        name=row.name,
        kind=row.kind,
        status=row.status,
        status_reason=row.status_reason,
        status_since=row.status_since,
        product=row.product,
        orders=sorted(row.takes),
        warnings=row.warnings,
        settings=row.settings if is_told_settings else {},
        is_draining=row.is_draining,
        build_budget=row.build_budget,
        power_budget=row.power_budget,
        build_budget_now=now.builds,
        power_budget_now=now.others,
        memory_ratio=row.memory_ratio,
        vcpu_ratio=row.vcpu_ratio,
        machines_in_doubt=len(row.doubt),
        complete_at=row.complete_at,
        can_replicate=abilities.can_replicate(row.kind),
        can_land=abilities.can_land(row.kind),
        created_at=row.created_at,
    )


def show_machine(row: Machine) -> MachineOut:
    """Its tags are read for a whole page at once."""
    return MachineOut(
        id=row.pk,
        name=row.name,
        platform_id=row.platform_id,
        power=row.power,
        vcpus=row.vcpus,
        memory_mib=row.memory_mib,
        host=row.host_id,
        addresses=row.addresses,
        is_template=row.is_template,
        template_cannot=row.template_cannot,
        stamp_installation=row.stamp_installation,
        tags=[],
        seen_at=row.seen_at,
    )


def show_host(row: Host) -> HostOut:
    return HostOut.model_validate(row)


def show_network(row: Network) -> NetworkOut:
    return NetworkOut.model_validate(row)


def show_storage(row: Storage) -> StorageOut:
    return StorageOut.model_validate(row)


def _typed(settings: dict[str, Setting]) -> dict[str, str]:
    """As the console's form would send them."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in settings.items()}


@router.get("", response=Page[HypervisorOut])
def list_hypervisors(request: HttpRequest, window: Query[Window]) -> Page[HypervisorOut]:
    tells = has(staff(request), Right.REVIEW)
    return page(selectors.hypervisors(), window, partial(show, is_told_settings=tells))


@router.get("/{id}", response=HypervisorOut)
def get_hypervisor(request: HttpRequest, id: UUID) -> HypervisorOut:
    tells = has(staff(request), Right.REVIEW)
    return show(one(selectors.hypervisors(), id, "hypervisor"), is_told_settings=tells)


@router.post("", response={201: HypervisorOut})
def register_hypervisor(request: HttpRequest, wish: HypervisorIn) -> HypervisorOut:
    """The status is `new` until a worker has signed in and looked, a moment later."""
    actor = staff(request, Right.ADMINISTER)
    row = services.register_hypervisor(actor=actor, name=wish.name, kind=wish.kind, values=_typed(wish.settings))
    return show(row)


@router.patch("/{id}", response=HypervisorOut)
def change_hypervisor(request: HttpRequest, id: UUID, wish: HypervisorChange) -> HypervisorOut:
    actor = staff(request, Right.ADMINISTER)
    name = wish.name if wish.name is not None else one(selectors.hypervisors(), id, "hypervisor").name
    row = services.change_hypervisor(actor=actor, hypervisor_id=id, name=name, values=_typed(wish.settings))
    return show(row)


@router.delete("/{id}", response={204: None})
def remove_hypervisor(request: HttpRequest, id: UUID) -> None:
    """409 while a pool builds there or a desktop lives there. The machines are not touched."""
    services.remove_hypervisor(actor=staff(request, Right.ADMINISTER), hypervisor_id=id)


@router.post("/{id}/recheck", response={202: HypervisorOut})
def recheck_hypervisor(request: HttpRequest, id: UUID) -> HypervisorOut:
    """Sign in and read anew now, even if the account was refused before."""
    return show(services.recheck_hypervisor(actor=staff(request, Right.OPERATE), hypervisor_id=id))


@router.post("/{id}/drain", response=HypervisorOut)
def drain_hypervisor(request: HttpRequest, id: UUID, wish: Switch) -> HypervisorOut:
    return show(services.drain_hypervisor(actor=staff(request, Right.OPERATE), hypervisor_id=id, on=wish.on))


@router.post("/{id}/confirm-absence", response={202: HypervisorOut})
def confirm_absence(request: HttpRequest, id: UUID) -> HypervisorOut:
    """The machines in doubt are really gone; 409 if nothing is in doubt."""
    return show(services.confirm_absence(actor=staff(request, Right.OPERATE), hypervisor_id=id))


@router.get("/{id}/hosts", response=Page[HostOut])
def list_hosts(request: HttpRequest, id: UUID, window: Query[Window]) -> Page[HostOut]:
    """By name."""
    staff(request)
    one(selectors.hypervisors(), id, "hypervisor")
    return page_by_name(selectors.hosts_of(id), window, show_host)


@router.post("/{id}/hosts/{host}/drain", response=HostOut)
def drain_host(request: HttpRequest, id: UUID, host: UUID, wish: Switch) -> HostOut:
    """Nothing new is built there, and free desktops are built anew elsewhere; those in use stay."""
    actor = staff(request, Right.OPERATE)
    one(selectors.hosts_of(id), host, "host")
    return show_host(services.drain_host(actor=actor, host_id=host, on=wish.on))


@router.get("/{id}/networks", response=Page[NetworkOut])
def list_networks(request: HttpRequest, id: UUID, window: Query[Window]) -> Page[NetworkOut]:
    """By name."""
    staff(request)
    one(selectors.hypervisors(), id, "hypervisor")
    return page_by_name(selectors.networks_of(id), window, show_network)


@router.get("/{id}/storages", response=Page[StorageOut])
def list_storages(request: HttpRequest, id: UUID, window: Query[Window]) -> Page[StorageOut]:
    """By name."""
    staff(request)
    one(selectors.hypervisors(), id, "hypervisor")
    return page_by_name(selectors.storages_of(id), window, show_storage)


@router.get("/{id}/machines", response=Page[MachineOut])
def list_machines(request: HttpRequest, id: UUID, wanted: Query[MachineFilter]) -> Page[MachineOut]:
    """Everything the platform lists, by name; with `is_template` what can be linked as a copy, or what cannot."""
    staff(request)
    one(selectors.hypervisors(), id, "hypervisor")
    rows = selectors.machines_of(id)
    if wanted.is_template is not None:
        rows = rows.filter(is_template=wanted.is_template)
    shown = page_by_name(rows, wanted, show_machine)
    tagged = selectors.tags_of((id, item.platform_id) for item in shown.items)
    items = [item.model_copy(update={"tags": tagged.get((id, item.platform_id), [])}) for item in shown.items]
    return shown.model_copy(update={"items": items})


@router.put("/{id}/machines/{machine}/tags/{tag}", response={204: None})
def put_tag(request: HttpRequest, id: UUID, machine: UUID, tag: str) -> None:
    """Policies over the tag replicate it from now on. 422 for a desktop: those are chosen as such."""
    actor = staff(request, Right.OPERATE)
    one(selectors.machines_of(id), machine, "machine")
    tags.put(actor=actor, machine_ids=[machine], tag=tag)


@router.delete("/{id}/machines/{machine}/tags/{tag}", response={204: None})
def take_tag(request: HttpRequest, id: UUID, machine: UUID, tag: str) -> None:
    """Policies over the tag let go of it; its recovery points stay."""
    actor = staff(request, Right.OPERATE)
    one(selectors.machines_of(id), machine, "machine")
    tags.take(actor=actor, machine_ids=[machine], tag=tag)
