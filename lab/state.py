"""A world as JSON, so that it outlives its process. Tasks end with it, as they do when a platform is restarted."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.nouns import Disk, Guest, Host, Machine, Network, Nic, Power, Snapshot, Storage
from lab.world import MIB, World


def save(world: World, path: Path) -> None:
    """Whole or not at all. What is on the disks lies in the world's folder already: only where is saved here."""
    fresh = path.with_suffix(".new")
    with world:
        fresh.write_text(json.dumps(dump(world)))
        os.replace(fresh, path)
        world.contents.saved(world.disks)


def load(world: World, path: Path) -> bool:
    """Fill an empty world with what was saved; False if nothing was."""
    if not path.exists():
        return False
    with world:
        restore(world, json.loads(path.read_text()))
    return True


def dump(world: World) -> dict[str, Any]:
    return {
        "now_s": world.now,
        "sequence": world.sequence,
        "random": world.random.getrandbits(64),
        "hosts": [asdict(host) for host in world.hosts.values()],
        "storages": [asdict(storage) for storage in world.storages.values()],
        "networks": [asdict(network) for network in world.networks.values()],
        "disks": [asdict(disk) for disk in world.disks.values()],
        "contents": world.contents.dump(),
        "machines": [asdict(machine) for machine in world.machines.values()],
        "hidden": sorted(world.hidden),
        "forbidden": sorted(world.forbidden),
    }


def restore(world: World, data: dict[str, Any]) -> None:
    """Guests that were up are up again at once; those that were booting boot anew. Time goes on from where it stood."""
    world.clock.advance(max(0.0, data["now_s"] - world.now))
    world.sequence = data["sequence"]
    world.random.seed(data["random"])
    world.hosts = {it["id"]: Host(**it) for it in data["hosts"]}
    world.storages = {it["id"]: Storage(**it) for it in data["storages"]}
    world.networks = {it["id"]: Network(**it) for it in data["networks"]}
    world.contents.restore(data.get("contents", {"layers": [], "histories": []}))
    for it in data["disks"]:
        _restore_disk(world, it)
    for it in data["machines"]:
        world.machines[it["id"]] = machine = _machine(it)
        world.touch_id(machine.id)
        if machine.power is Power.ON:
            world.settle_guest(machine)
    world.number_from(max((machine.number for machine in world.machines.values()), default=0) + 1)
    world.hidden, world.forbidden = set(data["hidden"]), set(data["forbidden"])


def _restore_disk(world: World, it: dict[str, Any]) -> None:
    """Worlds that were saved before disks had files bear sizes in MiB, and bytes in their midst."""
    extents = it.pop("extents", ())
    if "capacity_mib" in it:
        it["capacity"] = it.pop("capacity_mib") * MIB
    disk = world.disks[it["id"]] = Disk(**it | {"layers": tuple(it.get("layers", ()))})
    for at, text in extents:
        world.contents.write(disk, int(at), base64.b64decode(text))


def _machine(it: dict[str, Any]) -> Machine:
    snapshots = {
        id: Snapshot(**point | {"disks": tuple(point["disks"]), "power": Power(point["power"])})
        for id, point in it.pop("snapshots").items()
    }
    guest, nics, power = Guest(**it.pop("guest")), [Nic(**nic) for nic in it.pop("nics")], Power(it.pop("power"))
    return Machine(**it | {"tasks": 0}, guest=guest, nics=nics, power=power, snapshots=snapshots)
