"""What a cluster shows: complete listings only.

HyperCore tells no changes, so every reading lists everything (one call for all machines) and says so, whatever cursor
comes along. What could not be read stands in `partial`. An account without the role Read may be shown nothing instead
of being refused: so a listing without a single machine is believed only if the account's roles can be read and let it
see them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from connectors.base import Cursor, Inventory, Machine, Power, Template
from connectors.errors import ConnectorError, Unreachable
from connectors.hypercore import mapping
from connectors.hypercore.client import Record, Wire
from connectors.hypercore.faults import Refusal, ours
from connectors.hypercore.mapping import Cluster, Vm
from connectors.hypercore.settings import HyperCoreSettings

T = TypeVar("T")

ALL_RIGHTS = "Admin"
SEEING = ("Read", ALL_RIGHTS)
NEEDED = {
    "VM Create/Edit": "machines cannot be made, recycled, resized or snapshotted",
    "VM Power Controls": "machines cannot be switched on or off",
    "VM Delete": "machines cannot be deleted",
}
"""Role -> what is missing without it. Names of roles: the vendor's Ansible collection, module `user`."""


def read(wire: Wire, settings: HyperCoreSettings, deadline: float) -> Inventory:
    began_at = datetime.now(UTC)
    gaps: list[str] = []

    def ask(path: str, what: str) -> list[Record]:
        return _asked(wire, path, what, deadline, gaps)

    cluster = mapping.read_cluster(ask("/Cluster", "the cluster"))
    nodes = ask("/Node", "the nodes")
    wire.learn_nodes(str(node.get("lanIP") or "") for node in nodes)
    machines = ask("/VirDomain", "the machines")
    vms = [vm for vm in _each(machines, mapping.read_vm, "machine", gaps) if vm.marks.passing is None]
    if not machines and not gaps and (doubt := doubts(wire, settings, deadline)):
        gaps.append(doubt)
    seen, templates = sorted_out(vms, cluster)
    hosts = _each(nodes, mapping.host_of, "node", gaps)
    vlans = {nic.vlan for vm in vms for nic in vm.nics} | set(settings.extra_vlans)
    return Inventory(
        began_at=began_at,
        complete=not gaps,
        cursor=None if gaps else Cursor(began_at.isoformat()),
        partial="; ".join(gaps),
        hosts=tuple(hosts),
        machines=tuple(seen),
        templates=tuple(templates),
        networks=mapping.networks(vlans),
        storages=(mapping.storage_of(cluster, nodes),) if cluster.id and nodes else (),
    )


def sorted_out(vms: list[Vm], cluster: Cluster) -> tuple[list[Machine], list[Template]]:
    """Templates are machines set apart as such ("runnable" false, or our tag), and those that are off and nobody's."""
    machines, templates = [], []
    for vm in vms:
        is_candidate = vm.marks.stamp is None and vm.power is Power.OFF and not vm.replica_of
        if vm.is_template or is_candidate:
            templates.append(mapping.template_of(vm, cluster.id))
        if not vm.is_template:
            machines.append(mapping.machine_of(vm))
    return machines, templates


def _asked(wire: Wire, path: str, what: str, deadline: float, gaps: list[str]) -> list[Record]:
    """Raises what concerns the whole endpoint; a refusal is a gap."""
    try:
        return wire.get(path, deadline, f"reading {what}")
    except Refusal as refusal:
        error = ours(refusal, f"reading {what}", wire.name)
        if error.loses_endpoint or error.retry:
            raise error from None
        gaps.append(f"{what} could not be read ({refusal.words})")
        return []


def _each(records: list[Record], read_one: Callable[[Record], T], what: str, gaps: list[str]) -> list[T]:
    found = []
    for record in records:
        try:
            found.append(read_one(record))
        except (KeyError, ValueError, TypeError, AttributeError):
            gaps.append(f"a {what} could not be understood ({str(record.get('name') or record.get('uuid'))[:60]})")
    return found


def doubts(wire: Wire, settings: HyperCoreSettings, deadline: float) -> str:
    """Why a listing without machines is not to be believed; "" if it is."""
    roles = roles_of(wire, settings, deadline)
    if roles is None:
        return "no machine was shown, and whether the account may see any could not be read"
    if not any(role in roles for role in SEEING):
        return "no machine was shown, and the account has not the role Read"
    return ""


def roles_of(wire: Wire, settings: HyperCoreSettings, deadline: float) -> set[str] | None:
    """Names of our account's roles; None if they cannot be read."""
    try:
        users = wire.get("/User", deadline, "reading the account")
        names = {role.get("uuid"): str(role.get("name")) for role in wire.get("/Role", deadline, "reading the roles")}
    except (Refusal, ConnectorError) as error:
        if isinstance(error, Unreachable):
            raise
        return None
    mine = next((user for user in users if user.get("username") == settings.user), None)
    return None if mine is None else {names.get(role, "") for role in mine.get("roleUUIDs") or ()}
