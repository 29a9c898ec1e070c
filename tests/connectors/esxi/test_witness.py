"""The vSphere connector before VMware's own simulator (govmomi simulator 0.24.2, API 6.5): a judge that is not ours.

It decodes each request by VMware's own types. What it does not do as a real vCenter does (links, rights, room, paging,
names that are unique, revert) is not claimed here: of those orders the *sent* requests are looked at.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    GuestSeed,
    Inventory,
    Machine,
    MachineMade,
    MachineRef,
    OpenScreen,
    Order,
    Outcome,
    Power,
    PowerAction,
    PowerSet,
    Receipt,
    Reconfigure,
    RecycleMachine,
    ResourceShare,
    RevertSnapshot,
    SetPower,
    ShareResources,
    SnapshotTaken,
    Stage,
    Stamp,
    Surroundings,
    TakeSnapshot,
)
from connectors.errors import Busy, CertificateRejected, ConnectorError, CredentialsRejected, Unreachable
from connectors.esxi.connector import EsxiConnector
from connectors.esxi.settings import EsxiSettings
from connectors.replication import LandingWish, PointWish
from disks.vault.points import Configuration, Drive, Nic
from tests.connectors.contract import new_key, soon
from tests.support.vcsim import PASSWORD, PEER, USER, Vcsim, running

OURS = "installation-ours"
BY = ("esxi", PEER)
LIMIT_S = 20.0


class Witness:
    """A simulator and connectors to it."""

    def __init__(self, sim: Vcsim, workdir: Path) -> None:
        self.sim = sim
        self.workdir = workdir
        self.settings = EsxiSettings(
            address=sim.address, port=sim.port, user=USER, password=PASSWORD, ca_certificate=sim.certificate.pem
        )
        self.opened: list[EsxiConnector] = []

    def connector(self, settings: EsxiSettings | None = None) -> EsxiConnector:
        made = EsxiConnector(settings or self.settings, Surroundings(OURS, self.workdir))
        self.opened.append(made)
        return made

    def template(self, connector: EsxiConnector) -> Machine:
        """One of the simulator's own machines, switched off: it has no stamp, so it serves as a template."""
        machine = min(connector.inventory(None, soon(30)).machines, key=lambda one: one.name)
        order = SetPower(key=new_key(), machine=MachineRef(machine.id), action=PowerAction.OFF)
        assert finish(connector, order).stage is Stage.DONE
        return machine


@pytest.fixture
def vcenter(vcsim_binary: Path, tmp_path: Path) -> Iterator[Witness]:
    with running(vcsim_binary, tmp_path) as sim:
        witness = Witness(sim, tmp_path)
        yield witness
        for connector in witness.opened:
            connector.close()
        assert not [body for body in sim.sent() if "<Fetch " in body], "no property is read lazily"


@pytest.fixture
def esxi(vcsim_binary: Path, tmp_path: Path) -> Iterator[Witness]:
    with running(vcsim_binary, tmp_path, "-esx") as sim:
        witness = Witness(sim, tmp_path)
        yield witness
        for connector in witness.opened:
            connector.close()


def finish(connector: EsxiConnector, order: Order, first: Outcome | None = None) -> Outcome:
    (outcome,) = [first] if first else connector.submit([order], soon())
    until = time.monotonic() + LIMIT_S
    while outcome.stage is Stage.RUNNING:
        assert time.monotonic() < until, outcome.step
        time.sleep(min(outcome.poll_after_s, 0.2))
        (outcome,) = connector.poll([Receipt(order, dict(outcome.receipt or {}))], soon())
    return outcome


def do(connector: EsxiConnector, order: Order) -> Outcome:
    outcome = finish(connector, order)
    words = f"{outcome.error} ({outcome.error.platform_words})" if outcome.error else ""
    assert outcome.stage is Stage.DONE, words
    return outcome


def made(connector: EsxiConnector, order: CloneMachine | RecycleMachine) -> MachineMade:
    result = do(connector, order).result
    assert isinstance(result, MachineMade)
    return result


def machine_of(connector: EsxiConnector, id: str) -> Machine:
    return {one.id: one for one in connector.inventory(None, soon(30)).machines}[id]


# --- signing in and looking ------------------------------------------------------------------------------------------


def test_it_says_what_stands_there(vcenter: Witness) -> None:
    platform = vcenter.connector().check(soon())
    assert "vCenter" in platform.product
    assert platform.version.startswith("6.5")


def test_a_wrong_password_is_told_and_not_tried_again(vcenter: Witness) -> None:
    connector = vcenter.connector(dataclasses.replace(vcenter.settings, password="wrong"))
    for _ in range(3):
        with pytest.raises(CredentialsRejected) as told:
            connector.check(soon())
        assert "wrong" not in str(told.value) + told.value.platform_words
    assert len([body for body in vcenter.sim.sent() if "<Login " in body]) == 1


def test_its_fingerprint_is_enough(vcenter: Witness) -> None:
    pinned = dataclasses.replace(vcenter.settings, ca_certificate="", fingerprint=vcenter.sim.certificate.sha256)
    assert vcenter.connector(pinned).check(soon()).product
    wrong = dataclasses.replace(pinned, fingerprint="ab" * 32)
    vcenter.sim.sent()
    with pytest.raises(CertificateRejected):
        vcenter.connector(wrong).check(soon())
    assert not vcenter.sim.sent(), "nothing was sent"


def test_a_listing_holds_hosts_machines_networks_and_storages(vcenter: Witness) -> None:
    seen = vcenter.connector().inventory(None, soon(30))
    assert seen.complete, seen.partial
    assert len(seen.hosts) == 4
    assert all(host.vcpus and host.memory_mib for host in seen.hosts)
    assert len(seen.machines) == 4
    assert all(machine.power is Power.ON and machine.memory_mib == 32 for machine in seen.machines)
    assert {machine.host for machine in seen.machines} <= {host.id for host in seen.hosts}
    assert [storage.name for storage in seen.storages] == ["LocalDS_0"]
    assert seen.storages[0].free_mib > 0
    assert {network.name for network in seen.networks} >= {"VM Network", "DC0_DVPG0"}


def test_machines_that_come_change_and_go_are_told(vcenter: Witness) -> None:
    watcher, actor = vcenter.connector(), vcenter.connector()
    seen = watcher.inventory(None, soon(30))
    machine = seen.machines[0]
    do(actor, SetPower(key=new_key(), machine=MachineRef(machine.id), action=PowerAction.OFF))
    seen = _until(
        watcher, seen, lambda told: [one.power for one in told.machines if one.id == machine.id] == [Power.OFF]
    )
    do(actor, DeleteMachine(key=new_key(), machine=MachineRef(machine.id)))
    _until(watcher, seen, lambda told: machine.id in told.gone)


def _until(watcher: EsxiConnector, seen: Inventory, is_told: object) -> Inventory:
    until = time.monotonic() + 8
    while True:
        seen = watcher.inventory(seen.cursor, soon())
        assert not seen.complete, "an increment"
        if is_told(seen):  # type: ignore[operator]
            return seen
        assert time.monotonic() < until
        time.sleep(0.1)


# --- machines --------------------------------------------------------------------------------------------------------


@pytest.mark.judges(*BY, CloneMachine)
def test_a_clone_bears_its_stamp_its_size_and_its_seed(vcenter: Witness) -> None:
    connector = vcenter.connector()
    template = vcenter.template(connector)
    order = CloneMachine(
        key=new_key(), name="desk 1", template=template.id, linked=False, vcpus=2, memory_mib=64, power_on=True,
        seed=GuestSeed("desk-1", "#cloud-config\n{}\n"),
    )  # fmt: skip
    machine = made(connector, order)
    assert machine.stamp == Stamp(OURS, order.key)
    assert machine.name == "desk 1"
    assert machine.power is Power.ON
    seen = machine_of(vcenter.connector(), machine.machine_id)
    assert seen.stamp == Stamp(OURS, order.key)
    sent = next(body for body in vcenter.sim.sent() if "<CloneVM_Task " in body)
    assert "<numCPUs>2</numCPUs><memoryMB>64</memoryMB>" in sent, "the simulator looks at neither"
    assert "guestinfo.metadata" in sent
    assert "guestinfo.userdata.encoding" in sent


def test_a_link_is_asked_for_by_a_snapshot_and_a_child_disk(vcenter: Witness) -> None:
    connector = vcenter.connector()
    template = vcenter.template(connector)
    made(connector, CloneMachine(key=new_key(), name="linked", template=template.id, power_on=False))
    bodies = vcenter.sim.sent()
    assert [body for body in bodies if "<CreateSnapshot_Task " in body], "the template had no snapshot"
    sent = next(body for body in bodies if "<CloneVM_Task " in body)
    assert "<diskMoveType>createNewChildDiskBacking</diskMoveType>" in sent
    assert re.search(r'<snapshot type="VirtualMachineSnapshot">snapshot-\d+</snapshot>', sent)


def test_a_lost_answer_leaves_one_machine(vcenter: Witness) -> None:
    connector = vcenter.connector()
    template = vcenter.template(connector)
    order = CloneMachine(key=new_key(), name="lost", template=template.id, linked=False, power_on=False)
    vcenter.sim.fail({"Method": "CloneVM_Task", "Kind": "drop-after", "Count": 1})
    with pytest.raises(Unreachable):
        finish(connector, order)
    machine = made(vcenter.connector(), dataclasses.replace(order, attempt=2))
    ours = [one for one in vcenter.connector().inventory(None, soon(30)).machines if one.stamp]
    assert [one.id for one in ours] == [machine.machine_id]


@pytest.mark.parametrize("kind", ["drop", "truncate", "503"])
def test_a_listing_says_that_nobody_answers(kind: str, vcenter: Witness) -> None:
    connector = vcenter.connector()
    connector.check(soon())
    vcenter.sim.fail({"Method": "RetrievePropertiesEx", "Kind": kind, "Count": -1})
    with pytest.raises((Unreachable, Busy)):
        connector.inventory(None, soon())
    vcenter.sim.fail()
    assert connector.inventory(None, soon(30)).complete


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("InsufficientResourcesFault", "capacity_exhausted"), ("NoDiskSpace", "capacity_exhausted"),
     ("NotSupported", "unsupported"), ("NoPermission", "unsupported"), ("InvalidState", "conflict")],
)  # fmt: skip
def test_a_fault_of_a_clone_is_what_the_broker_does_next(fault: str, kind: str, vcenter: Witness) -> None:
    connector = vcenter.connector()
    template = vcenter.template(connector)
    vcenter.sim.fail({"Method": "CloneVM_Task", "Kind": "soap", "Fault": fault, "Count": -1})
    order = CloneMachine(key=new_key(), name="x", template=template.id, linked=False)
    outcome = finish(connector, order)
    assert outcome.error is not None
    assert (outcome.error.kind, fault in outcome.error.platform_words) == (kind, True)


def test_a_session_that_ends_is_renewed(vcenter: Witness) -> None:
    connector = vcenter.connector()
    connector.check(soon())
    vcenter.sim.fail({"Method": "CreateContainerView", "Kind": "soap", "Fault": "NotAuthenticated", "Count": 1})
    vcenter.sim.sent()
    assert connector.inventory(None, soon(30)).complete
    assert len([body for body in vcenter.sim.sent() if "<Login " in body]) == 1


@pytest.mark.judges(*BY, DeleteMachine)
def test_a_deleted_machine_is_gone_and_twice_is_success(vcenter: Witness) -> None:
    connector = vcenter.connector()
    template = vcenter.template(connector)
    order = CloneMachine(key=new_key(), name="brief", template=template.id, linked=False, power_on=True)
    machine = MachineRef(made(connector, order).machine_id, Stamp(OURS, order.key))
    for _ in range(2):
        do(connector, DeleteMachine(key=new_key(), machine=machine))
    assert not [one for one in connector.inventory(None, soon(30)).machines if one.stamp]


@pytest.mark.judges(*BY, RecycleMachine)
def test_a_recycled_machine_is_another_one_of_the_same_name(vcenter: Witness) -> None:
    connector = vcenter.connector()
    template = vcenter.template(connector)
    first = CloneMachine(key=new_key(), name="again", template=template.id, linked=False, power_on=False)
    old = made(connector, first)
    order = RecycleMachine(
        key=new_key(), machine=MachineRef(old.machine_id, old.stamp), name="again", template=template.id, linked=False
    )
    new = made(connector, order)
    assert (new.name, new.stamp, new.power) == ("again", Stamp(OURS, order.key), Power.ON)
    ours = [one for one in vcenter.connector().inventory(None, soon(30)).machines if one.stamp]
    assert [one.id for one in ours] == [new.machine_id]


@pytest.mark.judges(*BY, SetPower)
def test_powers_follow_one_another(vcenter: Witness) -> None:
    connector = vcenter.connector()
    machine = MachineRef(min(connector.inventory(None, soon(30)).machines, key=lambda one: one.name).id)
    for action, expected in (
        (PowerAction.SUSPEND, Power.SUSPENDED), (PowerAction.RESUME, Power.ON), (PowerAction.RESET, Power.ON),
        (PowerAction.REBOOT, Power.ON), (PowerAction.OFF, Power.OFF), (PowerAction.ON, Power.ON),
        (PowerAction.SHUTDOWN, Power.OFF),
    ):  # fmt: skip
        result = do(connector, SetPower(key=new_key(), machine=machine, action=action)).result
        assert result == PowerSet(expected), action


@pytest.mark.judges(*BY, Reconfigure, ShareResources)
def test_sizes_and_shares_are_as_ordered(vcenter: Witness) -> None:
    connector = vcenter.connector()
    template = vcenter.template(connector)
    ref = MachineRef(template.id)
    do(connector, Reconfigure(key=new_key(), machine=ref, vcpus=4, memory_mib=128))
    seen = machine_of(connector, template.id)
    assert (seen.vcpus, seen.memory_mib) == (4, 128)
    share = ResourceShare(weight=150, cpu_reservation_percent=10, cpu_limit_percent=50, memory_reservation_percent=25)
    vcenter.sim.sent()
    do(connector, ShareResources(key=new_key(), machine=ref, share=share))
    do(connector, ShareResources(key=new_key(), machine=ref, share=share))
    sent = [body for body in vcenter.sim.sent() if "<ReconfigVM_Task " in body]
    assert len(sent) == 1, "what is set already is not set again"
    assert "<shares>6000</shares><level>custom</level>" in re.sub(r' versionId="[^"]*"', "", sent[0])


@pytest.mark.judges(*BY, TakeSnapshot)
def test_a_snapshot_is_taken_once_and_reverted_to(vcenter: Witness) -> None:
    connector = vcenter.connector()
    template = vcenter.template(connector)
    order = TakeSnapshot(key=new_key(), machine=MachineRef(template.id), name="before")
    first, second = do(connector, order).result, do(connector, dataclasses.replace(order, attempt=2)).result
    assert isinstance(first, SnapshotTaken)
    assert first == second
    do(connector, RevertSnapshot(key=new_key(), machine=MachineRef(template.id), snapshot=first.snapshot_id))


def test_a_screen_is_the_guests_own(vcenter: Witness) -> None:
    connector = vcenter.connector()
    machine = connector.inventory(None, soon(30)).machines[0]
    outcome = next(iter(connector.submit([OpenScreen(key=new_key(), machine=MachineRef(machine.id))], soon())))
    assert outcome.stage is Stage.RUNNING, "the simulator's guests have no address"
    assert "address" in outcome.step


# --- a host that stands alone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "full"])
def test_a_stand_alone_host_is_never_asked_for_a_clone(linked: bool, esxi: Witness) -> None:
    esxi.sim.fail({"Method": "CloneVM_Task", "Kind": "soap", "Fault": "NotSupported", "Count": -1})
    connector = esxi.connector()
    template = esxi.template(connector)
    order = CloneMachine(key=new_key(), name="alone", template=template.id, linked=linked, power_on=True)
    machine = made(connector, order)
    assert machine.stamp == Stamp(OURS, order.key)
    assert machine.machine_id in {one.id for one in connector.inventory(None, soon(30)).machines}
    do(connector, DeleteMachine(key=new_key(), machine=MachineRef(machine.machine_id, machine.stamp)))
    assert [one.id for one in connector.inventory(None, soon(30)).machines if one.stamp] == []
    sent = esxi.sim.sent()
    assert not [body for body in sent if "<CloneVM_Task " in body or "<Fetch " in body]
    assert not [body for body in sent if "<Destroy_Task " in body], "it would follow a link to the parent's files"
    copies = [body for body in sent if "<CopyVirtualDisk_Task " in body]
    assert bool(copies) is not linked
    parents = [body for body in sent if "<CreateVM_Task " in body and "<parent" in body]
    assert bool(parents) is linked


def test_errors_of_the_wire_tell_no_secret(vcenter: Witness) -> None:
    connector = vcenter.connector()
    vcenter.sim.fail({"Method": "Login", "Kind": "soap", "Fault": "InvalidLogin", "Count": -1})
    with pytest.raises(ConnectorError) as told:
        connector.check(soon())
    assert PASSWORD not in str(told.value) + repr(told.value) + told.value.platform_words


# --- from recovery points --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["vcenter", "esxi"])
def test_a_machine_is_imported_and_gets_its_name_and_stamp_at_the_end(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The simulator takes the bytes and throws them away: the calls are what it judges."""
    witness: Witness = request.getfixturevalue(place)
    connector, key = witness.connector(), new_key()
    there = connector.inventory(None, soon(30))
    wished = Configuration(
        vcpus=2, memory_mib=1024, firmware="uefi", secure_boot=True, nics=(Nic("vmxnet3", "52:54:00:00:00:01", "net"),),
        disks=(Drive("scsi0:0", "lsilogic", 8 << 20),),
    )  # fmt: skip
    wish = LandingWish(
        key=key, name="landed", configuration=wished, storage=there.storages[0].id, networks=(there.networks[0].id,)
    )
    landing = connector.land(wish, soon(30))
    assert "landed" not in {one.name for one in connector.inventory(None, soon(30)).machines}
    sink = landing.open("scsi0:0")
    sink.write(0, b"first" * 1000)
    sink.commit()
    made = landing.finish(soon(30))
    landing.close()
    assert machine_of(connector, made.id).name == "landed"
    assert machine_of(connector, made.id).stamp == Stamp(OURS, key)
    again = connector.land(wish, soon(30))
    assert again.is_done
    assert again.finish(soon()) == made
    again.close()


def test_a_landing_that_is_given_up_leaves_nothing(vcenter: Witness) -> None:
    connector, key = vcenter.connector(), new_key()
    there = connector.inventory(None, soon(30))
    wished = Configuration(vcpus=1, memory_mib=512, firmware="bios", disks=(Drive("a", "sata", 8 << 20),))
    landing = connector.land(
        LandingWish(key=key, name="landed", configuration=wished, storage=there.storages[0].id), soon(30)
    )
    landing.close()
    connector.clear(key, soon(30))
    connector.clear(key, soon(30))
    listed = connector.inventory(None, soon(30))
    assert [one.id for one in listed.machines] == [one.id for one in there.machines]


def test_a_snapshot_for_a_point_is_taken_and_removed(vcenter: Witness) -> None:
    """The simulator knows no changed areas and exports nothing: how the disks would be read is not its to say."""
    connector = vcenter.connector()
    machine = min(connector.inventory(None, soon(30)).machines, key=lambda one: one.name)
    point = connector.take_point(PointWish(machine=MachineRef(machine.id), key=new_key()), soon(30))
    assert point.whole
    assert point.configuration.disks
    vcenter.sim.sent()
    connector.release(MachineRef(machine.id), (), soon(30))
    assert [body for body in vcenter.sim.sent() if "<RemoveSnapshot_Task " in body]
