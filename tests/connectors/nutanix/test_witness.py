"""Nutanix's own client libraries judge what connector and lab say to each other, and drive the lab themselves.

A check counts once it has been seen to fail: planted mistakes must be found.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    DeleteSnapshot,
    GuestSeed,
    MachineRef,
    Order,
    PowerAction,
    Receipt,
    Reconfigure,
    RecycleMachine,
    RevertSnapshot,
    SetPower,
    SnapshotTaken,
    Stage,
    Stamp,
    TakeSnapshot,
)
from lab.nutanix import PrismServer
from tests.connectors.contract import OURS, clone, do, finish, listing, made, new_key, poll, refuse, soon, submit
from tests.connectors.nutanix.replicas import fill, quick, stand, switch_on, take, wish_for
from tests.connectors.nutanix.worlds import PrismWorld
from tests.witnesses.ntnx.client import KNOWN_DRIFT, Exchange, drive, judge, record

ORDERS = (
    CloneMachine, RecycleMachine, DeleteMachine, SetPower, TakeSnapshot, RevertSnapshot, DeleteSnapshot, Reconfigure
)  # fmt: skip


def everything(world: PrismWorld) -> None:
    """Each order and each kind of reading, and some refusals."""
    connector = world.connector(template_category="Deskyard:Template")
    world.server.categories[world.lab.new_id()] = ("Deskyard", "Template")
    connector.check(soon())
    networks = tuple(world.lab.networks)
    order = CloneMachine(
        key=new_key(), name="desk-1", template=world.template, vcpus=4, memory_mib=4096, networks=networks,
        seed=GuestSeed("desk-1", "#cloud-config\n{}\n"),
    )  # fmt: skip
    first = made(world, connector, order)
    machine = MachineRef(first.machine_id, Stamp(OURS, order.key))

    def order_it(kind: type[Order], **how: Any) -> Any:
        return do(world, connector, kind(key=new_key(), machine=machine, **how)).result  # type: ignore[call-arg]

    taken = order_it(TakeSnapshot, name="before")
    assert isinstance(taken, SnapshotTaken)
    for action in (PowerAction.REBOOT, PowerAction.RESET, PowerAction.SHUTDOWN):
        order_it(SetPower, action=action, grace_s=3)
    order_it(RevertSnapshot, snapshot=taken.snapshot_id)
    order_it(DeleteSnapshot, snapshot=taken.snapshot_id)
    order_it(Reconfigure, vcpus=2, memory_mib=2048)
    recycle = RecycleMachine(
        key=new_key(), machine=machine, name="desk-1", template=world.template,
        seed=GuestSeed("desk-1", answer_file="<unattend/>"),
    )  # fmt: skip
    second = made(world, connector, recycle)
    refuse(world, connector, CloneMachine(key=new_key(), name="nowhere", template=new_key()))
    listing(world.connector())
    in_a_batch(world)
    do(world, connector, DeleteMachine(key=new_key(), machine=MachineRef(second.machine_id, Stamp(OURS, recycle.key))))
    do(world, connector, DeleteMachine(key=new_key(), machine=MachineRef("", Stamp(OURS, new_key()))))


def in_a_batch(world: PrismWorld) -> None:
    """Two at once, whose tasks are asked after in one call."""
    connector = world.connector()
    orders = [clone(world), clone(world)]
    outcomes = submit(connector, orders)
    outcomes = poll(connector, [Receipt(order, outcomes[order.key].receipt or {}) for order in orders])
    for order in orders:
        assert finish(world, connector, order, outcomes[order.key]).stage is Stage.DONE


def replicate(world: PrismWorld) -> None:
    """A machine is read, brought up again, and nothing else is left."""
    quick(world)
    machine, connector = stand(world, sizes=(2,)), world.connector()
    switch_on(world, machine)
    point = take(connector, machine)
    landing = connector.land(wish_for(world, point), soon(30))
    fill(point, landing)
    landing.finish(soon(30))
    connector.release(MachineRef(machine.id), (), soon(30))


def problems(exchanges: list[Exchange]) -> list[str]:
    """Findings, with the call they are about, but for what real servers are known to say too."""
    return [
        f"{exchange.verb} {exchange.path.split('?')[0]} {problem}"
        for exchange, found in zip(exchanges, judge(exchanges), strict=True)
        for problem in found
        if not problem.endswith(KNOWN_DRIFT)
    ]


@pytest.mark.judges("nutanix", "Nutanix's client libraries", *ORDERS)
@pytest.mark.parametrize("version", [(4, 0), (4, 1), (4, 2), (4, 3)], ids=lambda version: f"v{version[0]}.{version[1]}")
def test_every_request_and_answer_is_as_nutanix_has_them(world: PrismWorld, version: tuple[int, int]) -> None:
    world.server.versions = dict.fromkeys(world.server.versions, version)
    exchanges = record(world.server)
    if version >= (4, 1):
        everything(world)
    else:
        machine = made(world, world.connector(), CloneMachine(key=new_key(), name="desk-1", template=world.template))
        assert machine.machine_id in {found.id for found in listing(world.connector()).machines}
    replicate(world)
    assert len(exchanges) > 20
    assert any(one.is_file for one in exchanges)
    assert version < (4, 1) or any("/config/tasks?" in one.path and "%20or%20" in one.path for one in exchanges)
    assert problems(exchanges) == []


def test_nutanixs_own_client_drives_the_lab(tmp_path: Path) -> None:
    world = PrismWorld(tmp_path)
    server = PrismServer(world.lab, "127.0.0.4", tls=False)
    server.rates = world.server.rates
    exchanges = record(server)
    try:
        with server:
            seen = drive(server, stand(world, "small", sizes=(2,)).id)
    finally:
        world.close()
    assert seen == {
        "clusters": [["prism-ahv", ["AOS"]], ["Unnamed", ["PRISM_CENTRAL"]]],
        "hosts": ["ahv-01", "ahv-02"],
        "containers": ["default-container"],
        "subnets": ["desktops", "servers"],
        "machines": ["golden", "small"],
        "clone without If-Match": 428,
        "clone": "SUCCEEDED",
        "clone's etag": True,
        "power-on": "SUCCEEDED",
        "machine": ["by-the-vendor", "ON", 1, "VmDisk"],
        "restored": ["beside", "OFF", 2],
        "disks kept": 1,
        "file is the whole image": True,
        "point": "SUCCEEDED",
        "points": ["by-the-vendor"],
        "delete": "SUCCEEDED",
        "gone": 404,
        "unknown": {"machine": []},
    }
    assert problems(exchanges) == []


CLONE = {"$objectType": "vmm.v4.ahv.config.CloneOverrideParams", "name": "x"}
SCRIPT = {"config": {"installType": "PREPARED"}}


PLANTED: tuple[tuple[dict[str, Any], str], ...] = (
    ({**CLONE, "vmName": "x"}, "unknown to"),
    ({**CLONE, "name": "x" * 81}, "name"),
    ({**CLONE, "numSockets": 0}, "num_sockets"),
    ({**CLONE, "numSockets": "2"}, "is no int"),
    ({**CLONE, "guestCustomization": SCRIPT}, "$objectType is None"),
    ({"$objectType": "vmm.v4.ahv.config.Vm", "name": "x"}, "says it is a"),
    ({**CLONE, "nics": [{"networkInfo": {"subnet": {"extId": "nowhere"}}}]}, "ext_id"),
    ({**CLONE, "nics": [{"networkInfo": {"nicType": "NORMAL"}}]}, "none of"),
)
"""Body of a clone, and what has to be said of it: a field, a length, a range, a type, an alternative, ..."""


def test_planted_mistakes_in_a_request_are_found() -> None:
    path = f"/api/vmm/v4.2/ahv/config/vms/{new_key()}/$actions/clone"
    sent = [Exchange("POST", path, {"NTNX-Request-Id": "1"}, json.dumps(body), 500, "") for body, _ in PLANTED]
    for found, (body, finding) in zip(judge(sent), PLANTED, strict=True):
        assert any(finding in problem for problem in found), (body, found)


def test_a_planted_mistake_in_an_answer_a_path_or_a_query_is_found(world: PrismWorld) -> None:
    exchanges = record(world.server)
    listing(world.connector())
    (good,) = [one for one in exchanges if "/ahv/config/vms?" in one.path]
    assert problems([good]) == []
    bad = [
        replace(good, answer=good.answer.replace('"OFF"', '"SLEEPING"')),
        replace(good, answer=good.answer.replace('"numSockets"', '"sockets"')),
        replace(good, path=good.path.replace("/vms", "/virtual-machines")),
        replace(good, path=good.path + "&$size=5"),
        replace(good, verb="DELETE", headers={}),
    ]
    assert all(judge(bad))


def test_a_planted_mistake_in_asking_after_tasks_is_found(world: PrismWorld) -> None:
    exchanges = record(world.server)
    in_a_batch(world)
    good = next(one for one in exchanges if "/config/tasks?" in one.path)
    assert "$filter=extId%20eq%20%27ZXJnb24%3D%3A" in good.path
    assert problems([good]) == []
    bad = [
        replace(good, path=good.path.replace("$filter", "$where")),
        replace(good, answer=good.answer.replace('"RUNNING"', '"WALKING"')),
    ]
    assert all(judge(bad))
