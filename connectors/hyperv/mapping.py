"""What our scripts tell <-> the contract's data. Pure.

State words are .NET's enum names (VMState, VMHeartbeatStatus, VMSwitchType): their numbers differ among releases of
Windows, and texts for people are localised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from connectors.base import (
    Agent,
    CloneMachine,
    DeleteMachine,
    DeleteSnapshot,
    Host,
    Machine,
    MachineMade,
    MachineRef,
    Network,
    OpenScreen,
    Order,
    Power,
    PowerAction,
    Reconfigure,
    RecycleMachine,
    RevertSnapshot,
    SetPower,
    ShareResources,
    Stamp,
    Storage,
    TakeSnapshot,
    Template,
)
from connectors.errors import Unsupported
from connectors.hyperv.seed import packed, seed_iso
from connectors.hyperv.settings import HypervSettings

Told = Mapping[str, Any]
"""A part of a script's answer."""

LONGEST_NAME = 100
"""Characters that Hyper-V takes for a machine's name."""
LONGEST_SNAPSHOT_NAME = 60
"""The order's key is appended to a checkpoint's name, so that a second attempt finds it."""
NORMAL_PRIORITY = 50
"""Set-VMMemory -Priority: 0 to 100, 50 unless set."""

_POWER = {
    "Running": Power.ON,
    "Starting": Power.ON,
    "Stopping": Power.ON,
    "Reset": Power.ON,
    "Resuming": Power.ON,
    "Saving": Power.ON,
    "Pausing": Power.ON,
    "Off": Power.OFF,
    "Saved": Power.SUSPENDED,
    "FastSaved": Power.SUSPENDED,
    "Paused": Power.SUSPENDED,
}
_HEARS = ("OkApplicationsHealthy", "OkApplicationsUnknown", "OkApplicationsCritical")


def power_of(state: str) -> Power:
    """A machine in a critical state (its storage is away, say) is UNKNOWN."""
    return _POWER.get(state, Power.UNKNOWN)


def agent_of(heartbeat: str, state: str) -> Agent:
    """The heartbeat is the guest's own integration service, asked by the host."""
    if heartbeat == "Disabled":
        return Agent.ABSENT
    return Agent.ANSWERING if state == "Running" and heartbeat in _HEARS else Agent.SILENT


def guest_addresses(told: Iterable[str]) -> tuple[str, ...]:
    """Without link-local ones, IPv4 first."""
    found = []
    for text in told:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if not (address.is_link_local or address.is_unspecified or address.is_multicast):
            found.append(address)
    return tuple(dict.fromkeys(str(address) for address in sorted(found, key=lambda one: one.version)))


# --- marks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """Our line in a machine's Notes: `{"deskyard":1,"installation":…,"key":…,"stage":…}`. Other lines are people's."""

    stamp: Stamp | None = None
    stage: str = ""
    """making, made, machine (ours), template (an administrator wrote that, or a landing of ours)."""


def read_mark(notes: str) -> Mark:
    """Of notes without such a line: an empty mark."""
    for line in notes.splitlines():
        if not line.strip().startswith('{"deskyard"'):
            continue
        try:
            told = json.loads(line)
        except ValueError:
            return Mark()
        installation, key = told.get("installation"), told.get("key")
        stamp = Stamp(str(installation), str(key)) if installation and key else None
        return Mark(stamp, str(told.get("stage") or ""))
    return Mark()


# --- what a host shows -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """One host's answer to the inventory script."""

    host: Host
    product: str
    version: str
    account: str
    may_list: bool
    """Without rights the listing is empty, whatever there is."""
    cluster: str
    nodes: tuple[str, ...]
    machines: tuple[Machine, ...]
    templates: tuple[Template, ...]
    switches: tuple[tuple[str, str], ...]
    """Name and type."""
    storages: tuple[Storage, ...]
    faults: tuple[str, ...]


def read_host(told: Told) -> Seen:
    facts, rights, cluster = told["host"], told["rights"], told.get("cluster") or {}
    host = Host(str(facts["name"]), str(facts["name"]), int(facts["vcpus"]), int(facts["memory_mib"]))
    storages = _storages(told["volumes"], is_cluster=bool(cluster))
    machines, templates = [], []
    for one in told["machines"]:
        mark, state = read_mark(str(one["notes"])), str(one["state"])
        is_template = mark.stage == "template"
        if is_template or (mark.stamp is None and state == "Off"):
            templates.append(_template(one, storages, mark.stamp))
        if not is_template:
            machines.append(_machine(one, host.id, mark))
    return Seen(
        host=host,
        product=str(facts["product"]),
        version=str(facts["version"]),
        account=str(rights["account"]),
        may_list=bool(rights["admin"] or rights["hyperv_admin"]),
        cluster=str(cluster.get("name", "")),
        nodes=tuple(str(node["name"]) for node in cluster.get("nodes", ())),
        machines=tuple(machines),
        templates=tuple(templates),
        switches=tuple((str(one["name"]), str(one["type"])) for one in told["switches"]),
        storages=storages,
        faults=tuple(str(fault) for fault in told["faults"]),
    )


def _storages(volumes: Iterable[Told], *, is_cluster: bool) -> tuple[Storage, ...]:
    """Drives of a stand-alone host; of a cluster only what all nodes share."""
    return tuple(
        Storage(
            id=str(volume["path"]),
            name=f"{volume['path']} {volume['label']}".strip(),
            capacity_mib=int(volume["size_mib"]),
            free_mib=int(volume["free_mib"]),
        )
        for volume in volumes
        if bool(volume["shared"]) == is_cluster
    )


def storage_of(path: str, storages: Iterable[Storage]) -> str:
    """The volume that a file lies on, "" for none of them."""
    lower = path.lower()
    fitting = [one.id for one in storages if lower.startswith(one.id.lower().rstrip("\\") + "\\")]
    return max(fitting, key=len, default="")


def _template(told: Told, storages: Iterable[Storage], stamp: Stamp | None) -> Template:
    disks = [str(path) for path in told["disks"]]
    storage = storage_of(disks[0], storages) if disks else ""
    return Template(
        id=str(told["id"]),
        name=str(told["name"]),
        storage=storage,
        vcpus=int(told["vcpus"]),
        memory_mib=int(told["memory_mib"]),
        disk_mib=sum(int(size) for size in told["disk_mib"]),
        cannot=_cannot_clone(str(told["state"]), disks, storage, has_checkpoints=bool(told["checkpoints"])),
        stamp=stamp,
    )


def _cannot_clone(state: str, disks: list[str], storage: str, *, has_checkpoints: bool) -> str:
    if state != "Off":
        return "It is switched on or saved."
    if has_checkpoints:
        return "It has checkpoints. Delete them."
    if not disks:
        return "It has no disk."
    if odd := [disk for disk in disks if not disk.lower().endswith((".vhd", ".vhdx"))]:
        return f"{odd[0]} is no VHD or VHDX file; only such disks can be cloned."
    return "" if storage else f"Disk {disks[0]} lies on no volume that desktops could share."


def _machine(told: Told, host: str, mark: Mark) -> Machine:
    state = str(told["state"])
    addresses = [str(address) for nic in told["nics"] for address in nic["addresses"]]
    return Machine(
        id=str(told["id"]),
        name=str(told["name"]),
        power=power_of(state),
        vcpus=int(told["vcpus"]),
        memory_mib=int(told["memory_mib"]),
        host=host,
        stamp=mark.stamp,
        agent=agent_of(str(told["heartbeat"]), state),
        addresses=guest_addresses(addresses) if state == "Running" else (),
    )


def networks_of(switches: Iterable[tuple[str, str]], vlans: Iterable[tuple[str, int]]) -> tuple[Network, ...]:
    """Each switch, and each VLAN that the settings name on it. A switch goes by its name: nodes of a cluster give the
    same one to switches that machines may move between, while ids differ."""
    kinds = dict(switches)
    plain = [
        Network(id=name, name=name, kind=f"{kind} switch", is_isolated=kind == "Private")
        for name, kind in kinds.items()
    ]
    tagged = [
        Network(
            id=network_id(name, vlan), name=f"{name}, VLAN {vlan}", kind=f"VLAN {vlan}",
            is_isolated=kinds[name] == "Private",
        )
        for name, vlan in vlans
        if name in kinds
    ]  # fmt: skip
    return (*plain, *tagged)


def network_id(switch: str, vlan: int) -> str:
    return f"{switch}#{vlan}" if vlan else switch


# --- orders ----------------------------------------------------------------------------------------------------------


def require_usable(name: str, what: str = "machine", longest: int = LONGEST_NAME) -> None:
    """Raises `Unsupported` for a name that Hyper-V would refuse or people could not read."""
    if not name.strip():
        raise Unsupported(f"The {what}'s name is empty. Give it a name.")
    if bad := sorted({char for char in name if not char.isprintable()}):
        shown = ", ".join(ascii(char) for char in bad)
        raise Unsupported(f"Hyper-V cannot take the {what}'s name {name[:80]!a}: it has {shown}. Choose another.")
    if len(name) > longest:
        raise Unsupported(
            f"The {what}'s name {name[:40]!a}… has {len(name)} characters; there is room for {longest}. Shorten it."
        )


def request_of(order: Order, settings: HypervSettings) -> dict[str, object]:
    """What the orders script is told. Raises `Unsupported` for what cannot be asked."""
    told: dict[str, object] = {"key": order.key}
    if isinstance(machine := getattr(order, "machine", None), MachineRef):
        told |= {"id": machine.id.lower(), "stamp": stamp_of(machine.stamp)}
    match order:
        case CloneMachine() | RecycleMachine():
            require_usable(order.name)
            seed = packed(seed_iso(order.seed, order.key)) if order.seed else ""
            told |= {
                "op": "clone" if isinstance(order, CloneMachine) else "recycle",
                "name": order.name,
                "template": order.template.lower(),
                "linked": order.linked,
                "storage": order.storage,
                "seed": seed,
                "power_on": order.power_on,
                "vcpus": None,
                "memory_mib": None,
                "networks": [],
                "master": None,
            }
            if isinstance(order, CloneMachine):
                wanted = order.networks or ((settings.switch,) if settings.switch else ())
                told |= {
                    "vcpus": order.vcpus,
                    "memory_mib": order.memory_mib,
                    "networks": [network_of(one, settings) for one in wanted],
                }
        case DeleteMachine():
            told["op"] = "delete"
        case SetPower():
            told |= {"op": "power", "action": str(order.action), "ask": False, "cut": False}
        case TakeSnapshot():
            require_usable(order.name, "checkpoint", LONGEST_SNAPSHOT_NAME)
            told |= {"op": "snapshot", "name": order.name}
        case RevertSnapshot():
            told |= {"op": "revert", "snapshot": order.snapshot.lower()}
        case DeleteSnapshot():
            told |= {"op": "forget", "snapshot": order.snapshot.lower()}
        case Reconfigure():
            told |= {"op": "resize", "vcpus": order.vcpus, "memory_mib": order.memory_mib}
        case ShareResources():
            share = order.share
            told |= {
                "op": "share",
                "weight": min(10_000, max(1, share.weight)),
                "reserve": share.cpu_reservation_percent,
                "maximum": share.cpu_limit_percent,
                "priority": memory_priority(share.weight),
            }
        case OpenScreen():
            told["op"] = "screen"
        case _:
            raise Unsupported(f"Hyper-V knows no order {type(order).__name__}.")
    return told


def memory_priority(weight: int) -> int:
    """100 is Hyper-V's normal 50; Hyper-V's scale ends at twice as much."""
    return min(100, max(0, round(NORMAL_PRIORITY * weight / 100)))


def stamp_of(stamp: Stamp | None) -> dict[str, str] | None:
    """As scripts are told of it."""
    return {"installation": stamp.installation, "key": stamp.key} if stamp else None


def network_of(wanted: str, settings: HypervSettings) -> dict[str, object]:
    """Switch and VLAN of what an inventory calls a network."""
    for switch, vlan in settings.vlans_of_switches:
        if network_id(switch, vlan) == wanted:
            return {"switch": switch, "vlan": vlan}
    return {"switch": wanted, "vlan": 0}


def made(told: Told, host: str) -> MachineMade:
    stamp = told["stamp"]
    return MachineMade(
        machine_id=str(told["id"]),
        name=str(told["name"]),
        disks=tuple(str(path) for path in told["disks"]),
        power=power_of(str(told["power"])),
        host=host,
        stamp=Stamp(str(stamp["installation"]), str(stamp["key"])),
    )


def doing(order: Order) -> str:
    """What failed, as a phrase."""
    match order:
        case CloneMachine():
            return f"making {order.name!a}"
        case RecycleMachine():
            return f"recycling {order.name!a}"
        case DeleteMachine():
            return f"deleting machine {order.machine.id or 'of an order'}"
        case SetPower():
            return f"{_POWER_WORDS[order.action]} machine {order.machine.id}"
        case TakeSnapshot():
            return f"taking a checkpoint of machine {order.machine.id}"
        case RevertSnapshot():
            return f"reverting machine {order.machine.id}"
        case DeleteSnapshot():
            return f"deleting a checkpoint of machine {order.machine.id}"
        case Reconfigure():
            return f"changing the size of machine {order.machine.id}"
        case ShareResources():
            return f"setting the share of machine {order.machine.id}"
        case OpenScreen():
            return f"opening the screen of machine {order.machine.id}"
        case _:
            return type(order).__name__


_POWER_WORDS = {
    PowerAction.ON: "switching on",
    PowerAction.OFF: "switching off",
    PowerAction.SHUTDOWN: "shutting down",
    PowerAction.REBOOT: "restarting",
    PowerAction.RESET: "resetting",
    PowerAction.SUSPEND: "suspending",
    PowerAction.RESUME: "resuming",
}
