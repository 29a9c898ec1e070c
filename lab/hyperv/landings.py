"""Machines made of disks that a mover brings: what a host does when `landing 1` asks it."""

from __future__ import annotations

import ntpath
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lab.errors import WorldError
from lab.hyperv.host import mark_of, write_mark
from lab.hyperv.words import COMMANDS, Thrown, fault_of
from lab.nouns import Machine

if TYPE_CHECKING:
    from lab.hyperv.host import HypervHost

Told = dict[str, Any]

DVD = ("IDE", 1, 0)
"""Where New-VM puts the drive of a machine of generation 1."""


def act(host: HypervHost, parameters: Told, *, is_admin: bool) -> Told:
    """Raises `Thrown`."""
    if not is_admin:
        raise Thrown("Deskyard.NoRights")
    ops: Mapping[str, Callable[[HypervHost, Told], Told]] = {
        "look": _look, "begin": _begin, "pull": _pull, "errand": _errand, "finish": _finish, "clear": _clear,
    }  # fmt: skip
    try:
        told = ops[str(parameters["op"])](host, parameters)
    except (Thrown, WorldError) as error:
        told = {"state": "failed", "fault": fault_of(error)}
    return told | {"host": host.world.hosts[host.id].name}


def _home(parameters: Told) -> str:
    return ntpath.join(str(parameters["storage"]), "Deskyard", str(parameters["key"]))


def _path(parameters: Told, number: object) -> str:
    return f"{_home(parameters)}\\disk{number}.vhdx"


def _finished(host: HypervHost, parameters: Told) -> Machine | None:
    machine = host.find_made(str(parameters["installation"]), str(parameters["key"]))
    return machine if machine is not None and mark_of(machine).get("stage") in ("made", "machine", "template") else None


def _look(host: HypervHost, parameters: Told) -> Told:
    world = host.world
    with world:
        there = world.hosts[host.id]
        made = _finished(host, parameters)
        return {
            "state": "done",
            "made": made.id if made else "",
            "storage": parameters["storage"] in world.storages,
            "switches": [it.name for it in world.networks.values()],
            "macs": [nic.mac.replace(":", "").upper() for it in world.machines.values() for nic in it.nics],
            "vcpus": there.vcpus,
            "free_memory_mib": there.memory_mib - world.used_memory_mib(host.id),
        }


def _begin(host: HypervHost, parameters: Told) -> Told:
    with host.world:
        if parameters["storage"] not in host.world.storages:
            raise Thrown("Deskyard.NoStorage")
    _clear(host, parameters)
    host.estate.homes.add(_home(parameters))
    return {"state": "done"}


def _pull(host: HypervHost, parameters: Told) -> Told:
    if _home(parameters) not in host.estate.homes:
        raise Thrown("Deskyard.LandingGone")
    number = parameters["number"]
    parameters["errand"]["p"]["target"] = _path(parameters, number)
    host.errands.start(parameters, str(parameters["key"]), f"{parameters['key']}-{number}", "pull 1")
    return {"state": "done"}


def _errand(host: HypervHost, parameters: Told) -> Told:
    name = f"{parameters['key']}-{parameters['number']}"
    told = host.errands.told(str(parameters["owner"]), str(parameters["key"]), name)
    is_there = _path(parameters, parameters["number"]) in host.estate.files
    return {"state": "done"} if told["state"] == "ended" and is_there else told


def _clear(host: HypervHost, parameters: Told) -> Told:
    _stop_errands(host, parameters)
    with host.world:
        if _finished(host, parameters) is None:
            host.undo(parameters, str(parameters["key"]))
            host.estate.homes = {it for it in host.estate.homes if not it.endswith(f"\\{parameters['key']}")}
    return {"state": "done"}


def _stop_errands(host: HypervHost, parameters: Told) -> None:
    for name in host.errands.of(str(parameters["owner"]), str(parameters["key"])):
        host.errands.stop(str(parameters["owner"]), str(parameters["key"]), name)


# --- the machine -----------------------------------------------------------------------------------------------------


def _finish(host: HypervHost, parameters: Told) -> Told:
    with host.world:
        machine = _finished(host, parameters) or _make(host, parameters)
    _stop_errands(host, parameters)
    return {"state": "done", "id": machine.id}


def _make(host: HypervHost, parameters: Told) -> Machine:
    world, estate = host.world, host.estate
    paths = [_path(parameters, disk["number"]) for disk in parameters["disks"]]
    if any(path not in estate.files for path in paths):
        raise Thrown("Deskyard.LandingGone")
    slots = _slots(int(parameters["generation"]), parameters["disks"])
    if int(parameters["memory_mib"]) % 2:
        raise Thrown(f"InvalidParameter,{COMMANDS}.NewVM")
    if int(parameters["vcpus"]) > world.hosts[host.id].vcpus:
        raise Thrown(f"InvalidParameter,{COMMANDS}.SetVMProcessor")
    switches = [host.switch(it["switch"]) if it["switch"] else "" for it in parameters["networks"]]
    disks = [estate.files[path] for path in paths]
    machine = world.create(
        str(parameters["name"]),
        vcpus=int(parameters["vcpus"]),
        memory_mib=int(parameters["memory_mib"]),
        disks=tuple(disks),
        host=host.id,
        networks=tuple(it or next(iter(world.networks)) for it in switches),
    )
    for nic, switch, wanted in zip(machine.nics, switches, parameters["networks"], strict=True):
        nic.is_connected = bool(switch)
        if wanted["mac"]:
            nic.mac = ":".join(wanted["mac"][at : at + 2] for at in range(0, 12, 2)).lower()
    machine.marks |= {
        "paths": dict(zip(disks, paths, strict=True)),
        "home": _home(parameters),
        "generation": int(parameters["generation"]),
        "vlans": [int(it["vlan"]) for it in parameters["networks"]],
        "slots": slots,
        "secure": "Off",
    }
    for path in paths:
        estate.files.pop(path)
    estate.homes.discard(_home(parameters))
    stage = "template" if parameters.get("template") else "made"
    write_mark(machine, {"installation": parameters["installation"], "key": parameters["key"]}, stage=stage)
    world.touch(machine)
    return machine


def _slots(generation: int, disks: list[Told]) -> list[str]:
    """Where the disks hang. A machine of generation 2 has no IDE; one of generation 1 starts from IDE alone."""
    found = [(str(it["controller"]), int(it["controller_number"]), int(it["location"])) for it in disks]
    has_ide = any(kind == "IDE" for kind, _, _ in found)
    wrong = len(set(found)) < len(found) or (generation == 2 and has_ide)
    if generation == 1:
        wrong = wrong or DVD in found or found[:1] != [("IDE", 0, 0)]
        wrong = wrong or any(kind == "IDE" and (number > 1 or location > 1) for kind, number, location in found)
    if wrong:
        raise Thrown(f"InvalidParameter,{COMMANDS}.AddVMHardDiskDrive")
    return [f"{kind.lower()}-{number}-{location}" for kind, number, location in found]
