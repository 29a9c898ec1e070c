"""Machines that are nobody's: what must hold of one before it is adopted or deleted."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from broker.hypervisors.gate import installation_id
from broker.models import Machine, Operation, Standby, TemplateCopy
from broker.models.operations import UNFINISHED
from broker.selectors.hypervisors import desktop_of
from broker.services.errors import Clash


def check(machine: Machine) -> None:
    """Raises `Clash` if a live desktop, a template copy or a standby is this machine, or if it is being built."""
    same = {"hypervisor": machine.hypervisor_id}
    if desktop := desktop_of(machine):
        raise Clash(f"{machine.name} is the desktop {desktop}. Use the desktop's own page.")
    if machine.is_template or TemplateCopy.objects.filter(**same, platform_id=machine.platform_id).exists():
        raise Clash(f"{machine.name} is a template. Desktops may hang from its disks.")
    if Standby.objects.filter(hypervisor=machine.hypervisor_id, machine_id=machine.platform_id, is_used=False).exists():
        raise Clash(f"{machine.name} stands by for another machine. End that in its replication policy.")
    made_by = {"id": machine.stamp_key, "state__in": UNFINISHED} if is_uuid(machine.stamp_key) else None
    if made_by and (operation := Operation.objects.filter(**made_by).first()):
        raise Clash(f"{machine.name} is being built right now.", operation)


def refuse_foreign(machine: Machine, verb: str) -> None:
    """Another installation still counts on its machines: they can only be forgotten."""
    if machine.stamp_installation not in ("", installation_id()):
        raise Clash(f"{machine.name} belongs to another installation of Deskyard and cannot be {verb} here.")


def refuse_second_delete(machine: Machine) -> None:
    deletes = deletes_under_way(machine.hypervisor_id).filter(parameters__machine=machine.platform_id)
    if standing := deletes.first():
        raise Clash(f"{machine.name} is already being deleted.", standing)


def deletes_under_way(hypervisor_id: UUID) -> QuerySet[Operation]:
    """Unfinished deletes of machines that are no desktops."""
    return Operation.objects.filter(
        hypervisor=hypervisor_id, desktop=None, kind=Operation.Kind.DELETE, state__in=UNFINISHED
    )


def is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
