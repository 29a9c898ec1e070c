"""Prism's JSON <-> our data. Pure, and forgiving: real servers leave fields out and send ones that no SDK knows.

Field names and enum words: vendor SDKs ntnx_vmm_py_client 4.3.2, ntnx_prism_py_client 4.4.2,
ntnx_clustermgmt_py_client 4.3.2, ntnx_networking_py_client 4.4.2.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID, uuid5

from connectors.base import Agent, GuestSeed, Host, Network, Power, Stamp, Storage
from connectors.errors import Unsupported
from connectors.nutanix import names
from connectors.nutanix.client import Json, message_words

MIB = 1024 * 1024
NAME_LIMIT = 80
"""Vm.name."""
SCRIPT_LIMIT = 32_000
"""Unattendxml.value and CloudInit.metadata; Userdata.value takes 128,000 since v4.3, and no more than this before."""

_REQUESTS = UUID("8f0c7a52-3a37-5d0e-9d0b-2f3c1f5b6a10")


# --- identity --------------------------------------------------------------------------------------------------------

_STAMP = re.compile(r"\[deskyard (\S+) (\S+)\]")
_TEMPLATE = re.compile(r"\[deskyard template (\S+) (\S+)\]")
"""What a template that was landed bears instead of a stamp: only what bears none is cloned, and no order deletes it."""
_FRESH = re.compile(r"dsky\.(.+)\.([0-9a-fA-F-]{36})")


def request_id(key: str, step: str, attempt: int = 0) -> str:
    """The idempotence token of one step of one order: the same in every process and after every crash."""
    return str(uuid5(_REQUESTS, f"{key}/{step}/{attempt}"))


def fresh_name(stamp: Stamp) -> str:
    """What a clone is called until its description bears the stamp. A clone request takes a name and no description, so
    this is how a machine bears its stamp from its first moment."""
    return f"dsky.{_short(stamp.installation)}.{stamp.key}"


def _short(installation: str) -> str:
    told = quote(installation, safe="")
    return told if len(told) <= 38 else hashlib.sha256(installation.encode()).hexdigest()[:32]


def stamp_of(name: str, description: str) -> Stamp | None:
    """Who made a machine. A fresh clone's name counts before its description, which it has from its template; a
    stand-in has its description from the machine that it stands for."""
    if names.is_stand_in(name):
        return None
    if fresh := _FRESH.fullmatch(name):
        return Stamp(unquote(fresh[1]), fresh[2])
    found = _STAMP.search(description)
    return Stamp(unquote(found[1]), unquote(found[2])) if found else None


def is_fresh(name: str) -> bool:
    return _FRESH.fullmatch(name) is not None


def stamped(description: str, stamp: Stamp) -> str:
    """The description with this stamp, in place of any other, and of the mark that a clone has from its template."""
    text = _TEMPLATE.sub("", _STAMP.sub("", description)).strip()
    mark = f"[deskyard {quote(stamp.installation, safe='')} {quote(stamp.key, safe='')}]"
    return f"{text}\n{mark}" if text else mark


def template_mark(stamp: Stamp) -> str:
    """What stands in the description of a template that the landing of this key made."""
    return f"[deskyard template {quote(stamp.installation, safe='')} {quote(stamp.key, safe='')}]"


def template_stamp(description: str) -> Stamp | None:
    """Which landing made this template; None for what none made."""
    found = _TEMPLATE.search(description)
    return Stamp(unquote(found[1]), unquote(found[2])) if found else None


def require_usable(name: str, what: str = "machine") -> None:
    """Raises `Unsupported` for a name that Prism would refuse or change, or that only fresh clones have."""
    if not name.strip() or name != name.strip():
        raise Unsupported(f"The name of a {what} may not be empty, nor begin or end with a space.")
    if len(name) > NAME_LIMIT:
        raise Unsupported(f"The name {name[:20]!r}… of a {what} is longer than {NAME_LIMIT} characters.")
    if not name.isprintable():
        raise Unsupported(f"The name {name!r} of a {what} holds characters that cannot be printed.")
    if is_fresh(name) or names.is_stand_in(name):
        raise Unsupported(f"The name {name!r} is kept for machines that are being made.")


# --- machines --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disk:
    id: str
    container: str
    size_mib: int


@dataclass(frozen=True, slots=True)
class Nic:
    subnet: str
    addresses: tuple[str, ...]
    """Best first: what the guest told, then what Prism's own address management gave."""


@dataclass(frozen=True, slots=True)
class Vm:
    """A machine as Prism shows it."""

    id: str
    name: str
    description: str
    stamp: Stamp | None
    power: Power
    sockets: int
    cores: int
    memory_mib: int
    cluster: str
    host: str | None
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    categories: frozenset[str]
    agent: Agent
    is_agent_vm: bool = False
    """A helper of the platform's own: never ours to touch."""

    @property
    def vcpus(self) -> int:
        return self.sockets * self.cores

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(address for nic in self.nics for address in nic.addresses))


_POWER = {"ON": Power.ON, "OFF": Power.OFF, "PAUSED": Power.SUSPENDED}


def read_vm(seen: Json) -> Vm:
    name, description = _text(seen, "name"), _text(seen, "description")
    power = _POWER.get(_text(seen, "powerState"), Power.UNKNOWN)
    return Vm(
        id=_text(seen, "extId"),
        name=name,
        description=description,
        stamp=stamp_of(name, description),
        power=power,
        sockets=_number(seen, "numSockets", 1),
        cores=_number(seen, "numCoresPerSocket", 1),
        memory_mib=_number(seen, "memorySizeBytes") // MIB,
        cluster=_reference(seen, "cluster"),
        host=_reference(seen, "host") or None,
        disks=tuple(disk for item in _objects(seen, "disks") if (disk := _read_disk(item))),
        nics=tuple(_read_nic(item) for item in _objects(seen, "nics")),
        categories=frozenset(_text(item, "extId") for item in _objects(seen, "categories")),
        agent=_agent(seen.get("guestTools"), power),
        is_agent_vm=seen.get("isAgentVm") is True,
    )


def _read_disk(item: Json) -> Disk | None:
    """None for a volume group, which is not the machine's own."""
    backing = item.get("backingInfo")
    if not isinstance(backing, dict) or str(backing.get("$objectType", "")).endswith("ADSFVolumeGroupReference"):
        return None
    return Disk(
        id=_text(backing, "diskExtId") or _text(item, "extId"),
        container=_reference(backing, "storageContainer"),
        size_mib=_number(backing, "diskSizeBytes") // MIB,
    )


def _read_nic(item: Json) -> Nic:
    """Both spellings: `networkInfo` (v4.0) and `nicNetworkInfo` (since v4.1)."""
    subnet, learned, managed = "", list[str](), list[str]()
    for name in ("nicNetworkInfo", "networkInfo"):
        info = item.get(name)
        if not isinstance(info, dict):
            continue
        subnet = subnet or _reference(info, "subnet")
        told = info.get("ipv4Info")
        learned += (
            [_text(one, "value") for one in _objects(told, "learnedIpAddresses")] if isinstance(told, dict) else []
        )
        given = info.get("ipv4Config")
        if isinstance(given, dict) and isinstance(given.get("ipAddress"), dict):
            managed.append(_text(given["ipAddress"], "value"))
    return Nic(subnet, guest_addresses([*learned, *managed]))


_OUR_OWN = IPv4Network("127.0.0.0/10")
"""Loopback as guests have it. The rest of 127.0.0.0/8 is where simulated guests live."""


def guest_addresses(told: Iterable[str]) -> tuple[str, ...]:
    """Addresses by which a guest can be reached: link-local ones are told before DHCP has answered
    (terraform-provider-nutanix issue 871) and lead nowhere."""
    found: list[str] = []
    for text in told:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        is_local = address.is_link_local or address.is_unspecified or address.is_multicast
        is_loopback = address in _OUR_OWN if address.version == 4 else address.is_loopback
        if not is_local and not is_loopback and str(address) not in found:
            found.append(str(address))
    return tuple(found)


def _agent(tools: object, power: Power) -> Agent:
    """Nutanix Guest Tools: `isReachable` means that they answered Prism."""
    if not isinstance(tools, dict) or tools.get("isInstalled") is not True:
        return Agent.ABSENT
    return Agent.ANSWERING if tools.get("isReachable") is True and power is Power.ON else Agent.SILENT


# --- what is asked of machines ---------------------------------------------------------------------------------------


def clone_body(
    *,
    name: str,
    vcpus: int | None,
    memory_mib: int | None,
    subnets: Sequence[str],
    seed: GuestSeed | None,
    instance: str,
    version: tuple[int, int],
) -> dict[str, Any]:
    """CloneOverrideParams: what is left out is as the template has it."""
    body: dict[str, Any] = {"$objectType": "vmm.v4.ahv.config.CloneOverrideParams", "name": name}
    if vcpus:
        body |= {"numSockets": vcpus, "numCoresPerSocket": 1}
    if memory_mib:
        body["memorySizeBytes"] = memory_mib * MIB
    if subnets:
        body["nics"] = [_new_nic(subnet, version) for subnet in subnets]
    if seed is not None:
        body["guestCustomization"] = customization(seed, instance, version)
    return body


def _new_nic(subnet: str, version: tuple[int, int]) -> dict[str, Any]:
    info: dict[str, Any] = {"nicType": "NORMAL_NIC", "subnet": {"extId": subnet}}
    if version >= (4, 1):
        info["$objectType"] = "vmm.v4.ahv.config.VirtualEthernetNicNetworkInfo"
        backing = {"$objectType": "vmm.v4.ahv.config.VirtualEthernetNic", "isConnected": True}
        return {"$objectType": "vmm.v4.ahv.config.Nic", "nicBackingInfo": backing, "nicNetworkInfo": info}
    return {"$objectType": "vmm.v4.ahv.config.Nic", "backingInfo": {"isConnected": True}, "networkInfo": info}


def customization(seed: GuestSeed, instance: str, version: tuple[int, int]) -> dict[str, Any]:
    """GuestCustomizationParams: Sysprep if there is an answer file, else cloud-init. Raises `Unsupported` if too long.

    `instance` is new for every new disk, so that cloud-init runs again on it.
    """
    if seed.answer_file:
        script = {"$objectType": "vmm.v4.ahv.config.Unattendxml", "value": _base64(seed.answer_file, "The answer file")}
        config: dict[str, Any] = {
            "$objectType": "vmm.v4.ahv.config.Sysprep",
            "installType": "PREPARED",
            "sysprepScript": script,
        }
    else:
        metadata = json.dumps({"uuid": instance, "hostname": seed.hostname, "local-hostname": seed.hostname})
        limit = 128_000 if version >= (4, 3) else SCRIPT_LIMIT
        user_data = seed.user_data or f"#cloud-config\nhostname: {json.dumps(seed.hostname)}\n"
        config = {
            "$objectType": "vmm.v4.ahv.config.CloudInit",
            "datasourceType": "CONFIG_DRIVE_V2",
            "metadata": _base64(metadata, "The guest's metadata"),
            "cloudInitScript": {
                "$objectType": "vmm.v4.ahv.config.Userdata",
                "value": _base64(user_data, "The cloud-init document", limit),
            },
        }
    return {"$objectType": "vmm.v4.ahv.config.GuestCustomizationParams", "config": config}


def _base64(text: str, what: str, limit: int = SCRIPT_LIMIT) -> str:
    coded = b64encode(text.encode()).decode()
    if len(coded) > limit:
        raise Unsupported(
            f"{what} is too long for Prism: {len(coded)} characters in base64, and {limit} are allowed. Shorten it."
        )
    return coded


def updated_vm(seen: Json, changes: Mapping[str, object]) -> dict[str, Any]:
    """The body of a PUT: all that GET told, unknown fields too, with the changes; so nothing is lost by it."""
    return {name: value for name, value in seen.items() if value is not None} | dict(changes)


# --- tasks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    id: str
    is_over: bool
    is_done: bool
    percent: int | None
    entities: tuple[tuple[str, str], ...]
    """(rel, id)."""
    details: Mapping[str, str]
    words: str
    """What it says of its failure."""

    def made(self, rel: str, *, but: str = "") -> str:
        """The id of what it made: a clone's task names its source too. Empty if it does not say."""
        found = [id for told, id in self.entities if told == rel and id != but]
        return found[0] if found else ""


VM_REL = "vmm:ahv:config:vm"

_OVER = {"SUCCEEDED", "FAILED", "CANCELED"}


def read_task(seen: Json) -> Task:
    status = _text(seen, "status")
    words = [message_words(item) for item in _objects(seen, "errorMessages")]
    if legacy := _text(seen, "legacyErrorMessage"):
        words.append(legacy)
    percent = seen.get("progressPercentage")
    return Task(
        id=_text(seen, "extId"),
        is_over=status in _OVER,
        is_done=status == "SUCCEEDED",
        percent=max(0, min(100, percent)) if isinstance(percent, int) and not isinstance(percent, bool) else None,
        entities=tuple((_text(item, "rel"), _text(item, "extId")) for item in _objects(seen, "entitiesAffected")),
        details={_text(item, "name"): str(item.get("value", "")) for item in _objects(seen, "completionDetails")},
        words="\n".join(words) or status,
    )


def task_id(data: object) -> str:
    """Of a TaskReference. Empty if there is none."""
    return _text(data, "extId") if isinstance(data, dict) else ""


# --- what stands around them -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cluster:
    id: str
    name: str
    is_prism_central: bool
    """Prism Central lists itself as a cluster ("Unnamed"): it has no hosts and takes no machines."""
    version: str
    machines: int


def read_cluster(seen: Json) -> Cluster:
    config = seen.get("config")
    config = config if isinstance(config, dict) else {}
    build = config.get("buildInfo")
    functions = config.get("clusterFunction") or ()
    return Cluster(
        id=_text(seen, "extId"),
        name=_text(seen, "name"),
        is_prism_central="PRISM_CENTRAL" in functions,
        version=_text(build, "version") if isinstance(build, dict) else "",
        machines=_number(seen, "vmCount"),
    )


def read_host(seen: Json) -> Host:
    threads = _number(seen, "numberOfCpuThreads") or _number(seen, "numberOfCpuCores")
    hypervisor = seen.get("hypervisor")
    hypervisor = hypervisor if isinstance(hypervisor, dict) else {}
    is_away = _text(hypervisor, "state") in _AWAY or _text(hypervisor, "acropolisConnectionState") == "DISCONNECTED"
    return Host(
        id=_text(seen, "extId"),
        name=_text(seen, "hostName") or _text(seen, "extId"),
        vcpus=threads,
        memory_mib=_number(seen, "memorySizeBytes") // MIB,
        is_up=not is_away,
    )


_AWAY = {
    "ENTERING_MAINTENANCE_MODE",
    "ENTERED_MAINTENANCE_MODE",
    "ENTERING_MAINTENANCE_MODE_FROM_HA_FAILOVER",
    "HA_FAILOVER_SOURCE",
}
"""HypervisorState of hosts that take no machines. A word that is not known is no reason to write a host off."""


def cluster_of_host(seen: Json) -> str:
    cluster = seen.get("cluster")
    return _text(cluster, "uuid") or _text(cluster, "extId") if isinstance(cluster, dict) else ""


def read_network(seen: Json) -> Network:
    kind = _text(seen, "subnetType")
    vlan = seen.get("networkId")
    words = f"VLAN {vlan}" if kind == "VLAN" and isinstance(vlan, int) else kind.lower()
    return Network(id=_text(seen, "extId"), name=_text(seen, "name"), kind=words)


def clusters_of_subnet(seen: Json) -> tuple[str, ...]:
    found = [_text(seen, "clusterReference"), *(str(one) for one in seen.get("clusterReferenceList") or ())]
    return tuple(one for one in found if one)


def container_id(seen: Json) -> str:
    return _text(seen, "containerExtId") or _text(seen, "extId")


def read_storage(seen: Json, free_bytes: int | None) -> Storage:
    capacity = _number(seen, "maxCapacityBytes")
    is_leaving = seen.get("isMarkedForRemoval") is True or seen.get("markedForRemoval") is True
    return Storage(
        id=container_id(seen),
        name=_text(seen, "name"),
        capacity_mib=capacity // MIB,
        free_mib=(capacity if free_bytes is None else min(free_bytes, capacity or free_bytes)) // MIB,
        is_up=not is_leaving,
    )


def latest(series: object) -> int | None:
    """The newest value of a time series; None if it is empty."""
    points = [
        (str(point.get("timestamp", "")), point["value"])
        for point in (series if isinstance(series, list) else ())
        if isinstance(point, dict) and isinstance(point.get("value"), int)
    ]
    return max(points)[1] if points else None


# --- recovery points -------------------------------------------------------------------------------------------------

_POINT = re.compile(r" \[deskyard (\S+)\]$")


@dataclass(frozen=True, slots=True)
class Point:
    id: str
    name: str
    machine: str
    key: str
    """Of the order that took it; empty for a point that is not ours, such as a protection policy's."""


def point_name(name: str, key: str) -> str:
    return f"{name} [deskyard {key}]"


def read_point(seen: Json) -> Point:
    name = _text(seen, "name")
    found = _POINT.search(name)
    return Point(_text(seen, "extId"), name, _text(seen, "vmExtId"), found[1] if found else "")


# --- reading with care -----------------------------------------------------------------------------------------------


def _text(seen: object, name: str) -> str:
    value = seen.get(name) if isinstance(seen, dict) else None
    return value if isinstance(value, str) else ""


def _number(seen: Json, name: str, default: int = 0) -> int:
    value = seen.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _objects(seen: Json, name: str) -> list[Json]:
    value = seen.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _reference(seen: Json, name: str) -> str:
    return _text(seen.get(name), "extId")
