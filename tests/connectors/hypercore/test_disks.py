"""Points of machines on a simulated cluster, by way of a real file server: what is in them, and what is left."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from connectors.base import CloneMachine, DeleteMachine, MachineRef, PowerAction, SetPower, Stamp, TakeSnapshot
from connectors.errors import (
    Busy,
    CapacityExhausted,
    CertificateRejected,
    Conflict,
    ConnectorError,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)
from connectors.hypercore import share as sharing_module
from connectors.hypercore.connector import HyperCoreConnector
from connectors.hypercore.exported import devices_of
from connectors.hypercore.scratch import Scratch
from connectors.hypercore.share import Share
from connectors.replication import Bookmark, Consistency, Point, PointWish, Replicates
from disks.base import Slow, Source
from disks.copying import copy
from disks.errors import DiskError, OutOfSpace, SourceLost
from disks.raw import RawSink
from disks.vault.points import Drive, Nic
from lab.hypercore.devices import MIB, extra_of
from lab.nouns import Machine
from tests.connectors.contract import OURS, THEIRS, do, listing, made, new_key, ref, soon
from tests.connectors.hypercore.worlds import HyperCoreWorld
from tests.support.prerequisites import REPOSITORY
from tests.support.samba import SambaServer


def the(machine: Machine) -> MachineRef:
    return MachineRef(machine.id)


def take(connector: HyperCoreConnector, machine: MachineRef, key: str = "", **wish: Any) -> Point:
    return connector.take_point(PointWish(machine=machine, key=key or new_key(), **wish), soon())


def saved(source: Source, to: Path) -> bytes:
    sink = RawSink(to / "copy.raw", source.size)
    try:
        copy(source, sink)
        sink.commit()
    finally:
        sink.abandon()
        source.close()
    return (to / "copy.raw").read_bytes()


def left(world: HyperCoreWorld, samba: SambaServer, but: Machine) -> tuple[list[str], list[str], list[str]]:
    """Machines beside that one and the template, snapshots, and what lies on the share."""
    with world.lab:
        machines = [one.name for one in world.lab.machines.values() if one.id not in (but.id, world.template)]
        points = [point.label for point in world.cluster.points.values()]
    return machines, points, sorted(path.name for path in samba.files.iterdir())


NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])


def export_ends(world: HyperCoreWorld) -> None:
    world.clock.advance(60)
    with world.lab:
        assert not world.cluster.beside()


def wait(source: Source) -> None:
    assert isinstance(source, Slow)
    while source.advance(time.monotonic() + 1):
        pass


def scratches(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.glob("hypercore-disks-*")]


# --- what is in a point ----------------------------------------------------------------------------------------------


def test_a_point_is_the_disk_at_its_moment_byte_for_byte_though_the_machine_writes_on(
    sharing: HyperCoreWorld, tmp_path: Path
) -> None:
    machine, connector = sharing.machine(size=64 * MIB), sharing.connector()
    with sharing.lab:
        sharing.lab.power_on(machine.id)
        sharing.clock.advance(60)
        sharing.lab.scribble(machine.id, "seed", times=10_000, every_s=0.2)
    before = sharing.content(machine.id)
    point = take(connector, the(machine))
    (frozen,) = sharing.cluster.points.values()
    then = sharing.lab.read(frozen.devices[0].disk, 0, 64 * MIB)
    got = saved(point.open("virtio0"), tmp_path)
    assert got == then
    assert got != before, "the guest wrote until the moment of the point"
    assert got != sharing.content(machine.id), "and went on"
    connector.release(the(machine), (), soon())


def test_a_point_of_a_machine_at_rest_is_compared_whole_and_one_flipped_byte_shows(
    sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path
) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    then = sharing.content(machine.id)
    point = take(connector, the(machine))
    sharing.write(machine.id, 0, bytes(4096))
    got = saved(point.open("virtio0"), tmp_path)
    assert got == then
    flipped = bytearray(got)
    flipped[MIB // 2] ^= 1
    assert bytes(flipped) != then
    assert scratches(tmp_path) == []
    connector.release(the(machine), (), soon())
    assert left(sharing, samba, machine) == NOTHING


def test_a_thin_copy_of_a_template_is_read_with_all_that_lies_below_it(sharing: HyperCoreWorld, tmp_path: Path) -> None:
    """The world keeps what a clone has of its own apart from what it shares; files of others would be half a disk."""
    connector = sharing.connector()
    order = CloneMachine(key=new_key(), name="clone", template=sharing.machine().id, power_on=False)
    machine = ref(sharing, made(sharing, connector, order))
    sharing.write(machine.id, 3 * MIB, b"its own")
    then = sharing.content(machine.id)
    assert then[:MIB].strip(b"\0")
    assert saved(take(connector, machine).open("virtio0"), tmp_path) == then
    connector.release(machine, (), soon())


def test_a_point_says_what_the_machine_is(sharing: HyperCoreWorld) -> None:
    machine, connector = sharing.machine("VIRTIO_DISK", "IDE_DISK"), sharing.connector()
    assert isinstance(connector, Replicates)
    with sharing.lab:
        extra_of(sharing.lab, machine).machine_type_keyword = "uefi"
    point = take(connector, the(machine))
    assert (point.name, point.consistency, point.bookmark) == ("source", Consistency.OFF, None)
    assert point.whole == "HyperCore gives whole disks only."
    found = point.configuration
    assert (found.vcpus, found.memory_mib, found.firmware) == (3, 1536, "uefi")
    assert found.disks == (Drive("virtio0", "virtio", 16 * MIB), Drive("ide0", "ide", 16 * MIB))
    assert found.nics == (Nic("VIRTIO", machine.nics[0].mac, "VLAN 20"),)
    point.close()
    connector.release(the(machine), (), soon())


def test_what_runs_is_found_as_after_a_power_cut(sharing: HyperCoreWorld) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    with sharing.lab:
        sharing.lab.power_on(machine.id)
    assert take(connector, the(machine)).consistency is Consistency.CRASH
    connector.release(the(machine), (), soon())


def test_each_disk_is_read_as_itself_and_only_those_that_are_wished(sharing: HyperCoreWorld, tmp_path: Path) -> None:
    machine, connector = sharing.machine("VIRTIO_DISK", "SCSI_DISK", "VIRTIO_DISK", "IDE_DISK"), sharing.connector()
    point = take(connector, the(machine), disks=("ide0", "virtio1"))
    assert {drive.name for drive in point.configuration.disks} == {"ide0", "virtio1"}
    assert saved(point.open("virtio1"), tmp_path) == sharing.content(machine.id, 2)
    assert saved(point.open("ide0"), tmp_path) == sharing.content(machine.id, 3)
    with pytest.raises(NotFound, match="no disk 'scsi0'"):
        point.open("scsi0")
    connector.release(the(machine), (), soon())


def test_points_follow_each_other_and_each_is_what_was(
    sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path
) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    for number in range(3):
        sharing.write(machine.id, number * MIB, f"of point {number}".encode())
        then = sharing.content(machine.id)
        # A bookmark of whatever origin changes nothing: everything is read.
        point = take(connector, the(machine), since=Bookmark({"of": "another"}))
        assert saved(point.open("virtio0"), tmp_path) == then
    connector.release(the(machine), (), soon())
    assert left(sharing, samba, machine) == NOTHING


def test_what_holds_nothing_is_named_as_zeros(sharing: HyperCoreWorld) -> None:
    machine, connector = sharing.machine(size=512 * MIB), sharing.connector()
    source = take(connector, the(machine)).open("virtio0")
    extents = list(source.extents())
    assert sum(extent.length for extent in extents) == source.size
    assert sum(extent.length for extent in extents if not extent.is_zero) <= 8 * MIB
    source.close()
    connector.release(the(machine), (), soon())


def test_a_disk_whose_capacity_is_no_whole_sectors_is_read_to_its_end(sharing: HyperCoreWorld, tmp_path: Path) -> None:
    machine, connector = sharing.machine(size=16 * MIB + 100), sharing.connector()
    point = take(connector, the(machine))
    assert point.configuration.disks[0].size == 16 * MIB + 512
    assert saved(point.open("virtio0"), tmp_path) == sharing.content(machine.id)
    connector.release(the(machine), (), soon())


def test_an_image_that_is_larger_than_its_disk_is_read_as_far_as_the_disk_goes(
    sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path
) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    with sharing.lab:
        sharing.lab.zero(machine.disks[0], 8 * MIB, 8 * MIB)  # so that zeros go on beyond the disk's end
    point = take(connector, the(machine))
    export_ends(sharing)
    (image,) = samba.files.glob("*/*.qcow2")
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", image, "17M"], check=True)
    source = point.open("virtio0")
    assert max(extent.end for extent in source.extents()) == source.size == 16 * MIB
    assert saved(source, tmp_path) == sharing.content(machine.id)
    connector.release(the(machine), (), soon())


# --- while it goes on ------------------------------------------------------------------------------------------------


def test_an_export_is_waited_for_in_slices_that_say_how_far_it_is(sharing: HyperCoreWorld, tmp_path: Path) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    sharing.cluster.task_s["Export"] = 1_000.0
    source = take(connector, the(machine)).open("virtio0")
    assert isinstance(source, Slow)
    sharing.clock.speed = 0
    said = set()
    for _ in range(2):
        said |= {source.advance(time.monotonic() + 0.1) for _ in range(2)}
        sharing.clock.advance(500)
    first, second = sorted(said)
    assert first.startswith("HyperCore writes its export of source: ")
    assert second > first
    sharing.clock.advance(1_000)
    sharing.clock.speed = 20
    assert saved(source, tmp_path) == sharing.content(machine.id)
    connector.release(the(machine), (), soon())


def test_the_machine_takes_orders_while_its_export_goes_on(sharing: HyperCoreWorld) -> None:
    connector = sharing.connector()
    order = CloneMachine(key=new_key(), name="clone", template=sharing.machine().id, power_on=False)
    machine = ref(sharing, made(sharing, connector, order))
    sharing.cluster.task_s["Export"] = 1_000.0
    take(connector, machine)
    pump = sharing.connector()
    do(sharing, pump, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))
    do(sharing, pump, SetPower(key=new_key(), machine=machine, action=PowerAction.OFF))
    assert sharing.cluster.beside(), "it still goes on"


def test_another_point_is_taken_while_an_export_goes_on(sharing: HyperCoreWorld) -> None:
    sharing.cluster.task_s["Export"] = 1_000.0
    connector = sharing.connector()
    for name in ("one", "another"):
        take(connector, the(sharing.machine(name=name)))
    assert len(sharing.cluster.beside()) == 2


def test_what_a_point_needs_on_the_cluster_is_in_no_inventory(sharing: HyperCoreWorld) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    before = listing(connector)
    take(connector, the(machine))
    assert len(sharing.lab.machines) == 3
    after = listing(connector)
    assert after.complete
    assert after.machines == before.machines
    assert after.templates == before.templates
    connector.release(the(machine), (), soon())


def test_a_task_of_somebody_else_is_waited_for(sharing: HyperCoreWorld) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    with sharing.lab:
        sharing.cluster.begin("Other", "Other work on %@", ["x"], lambda: None)
    take(connector, the(machine))
    connector.release(the(machine), (), soon())


def test_a_session_that_ends_in_between_is_begun_anew(sharing: HyperCoreWorld, tmp_path: Path) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    for call in ("GET .*/VirDomain ", "POST .*Snapshot", "POST .*/clone", "POST .*/export", "GET .*/TaskTag", "DELETE"):
        sharing.faults.add("session_expires", call)
    point = take(connector, the(machine))
    assert saved(point.open("virtio0"), tmp_path) == sharing.content(machine.id)
    connector.release(the(machine), (), soon())


# --- releasing -------------------------------------------------------------------------------------------------------


def test_after_a_crash_another_object_leaves_nothing_as_often_as_it_is_asked(
    sharing: HyperCoreWorld, samba: SambaServer
) -> None:
    machine = sharing.machine()
    source = take(sharing.connector(), the(machine)).open("virtio0")
    wait(source)
    machines, points, files = left(sharing, samba, machine)
    assert [len(machines), len(points), len(files)] == [1, 1, 1]
    for _ in range(2):
        sharing.connector().release(the(machine), (), soon())
        assert left(sharing, samba, machine) == NOTHING
    source.close()


def test_an_export_that_goes_on_is_waited_for_and_then_leaves_nothing(
    sharing: HyperCoreWorld, samba: SambaServer
) -> None:
    machine = sharing.machine()
    sharing.cluster.task_s["Export"] = 60.0
    take(sharing.connector(), the(machine))
    with pytest.raises(Busy, match="which goes on"):
        sharing.connector().release(the(machine), (), soon(1))
    sharing.clock.advance(60)
    sharing.connector().release(the(machine), (), soon())
    assert left(sharing, samba, machine) == NOTHING


def test_points_of_others_and_what_people_made_stay(sharing: HyperCoreWorld, samba: SambaServer) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    other = sharing.machine(name="other")
    stamped = ref(
        sharing, made(sharing, connector, CloneMachine(key=new_key(), name="d", template=machine.id, power_on=False))
    )
    do(sharing, connector, TakeSnapshot(key=new_key(), machine=stamped, name=f"deskyard point {OURS} mine"))
    take(sharing.connector(THEIRS), stamped)
    take(sharing.connector(), the(other))
    (samba.files / "somebody's").mkdir()
    (samba.files / "deskyard-point-notes.txt").touch()
    sharing.clock.advance(30)
    before = left(sharing, samba, machine)
    take(connector, stamped)
    sharing.clock.advance(30)
    connector.release(stamped, (), soon())
    assert left(sharing, samba, machine) == before
    assert [len(part) for part in before] == [4, 3, 4]


def test_a_machine_that_is_gone_is_released_all_the_same(sharing: HyperCoreWorld, samba: SambaServer) -> None:
    connector, source = sharing.connector(), sharing.machine()
    order = CloneMachine(key=new_key(), name="gone", template=source.id, power_on=False)
    machine = ref(sharing, made(sharing, connector, order))
    take(connector, machine)
    do(sharing, sharing.connector(), DeleteMachine(key=new_key(), machine=machine))
    connector.release(machine, (), soon())
    assert left(sharing, samba, source) == NOTHING


@pytest.mark.parametrize("kind", ["Snapshot", "Clone", "Export"])
def test_a_task_that_fails_midway_is_told_and_leaves_nothing(
    kind: str, sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path
) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    sharing.faults.add("task_fails", f"^{kind}$")
    if kind == "Export":
        source = take(connector, the(machine)).open("virtio0")
        with pytest.raises(SourceLost, match="Internal failure") as lost:
            saved(source, tmp_path)
        assert lost.value.retry
        assert left(sharing, samba, machine)[2], "half an export"
    else:
        with pytest.raises(PlatformFault):
            take(connector, the(machine))
    sharing.connector().release(the(machine), (), soon())
    assert left(sharing, samba, machine) == NOTHING
    assert scratches(tmp_path) == []


@pytest.mark.parametrize(
    "call",
    [
        r"POST /rest/v1/VirDomainSnapshot ",
        r"POST /rest/v1/VirDomain/[^/]+/clone",
        r"POST /rest/v1/VirDomain/[^/]+/export",
    ],
)
@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
def test_what_was_asked_and_never_answered_leaves_nothing(
    call: str, fault: str, sharing: HyperCoreWorld, samba: SambaServer
) -> None:
    sharing.cluster.marks_source = False  # nothing shows that a copy is being made
    machine, connector = sharing.machine(), sharing.connector()
    sharing.faults.add(fault, call)
    with pytest.raises(Unreachable):
        take(connector, the(machine))
    connector.release(the(machine), (), soon())
    sharing.clock.advance(30)
    assert left(sharing, samba, machine) == NOTHING
    take(connector, the(machine))
    connector.release(the(machine), (), soon())


# --- the share -------------------------------------------------------------------------------------------------------


def test_without_a_share_it_is_said_which_setting_to_give(world: HyperCoreWorld) -> None:
    machine, connector = world.machine(), world.connector()
    with pytest.raises(Unsupported, match="Share for exports"):
        take(connector, the(machine))
    connector.release(the(machine), (), soon())
    assert not world.asked("POST", "VirDomainSnapshot")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"share_password": "wrong"}, "Check the share's user and password"),
        ({"share_user": "somebody"}, "Check the share's user and password"),
        ({"share": "nothing"}, "no such share"),
        ({"share": "exports/missing"}, "There is no folder"),
    ],
)
def test_a_share_that_refuses_us_is_told_before_anything_is_begun(
    change: dict[str, str], word: str, sharing: HyperCoreWorld, samba: SambaServer
) -> None:
    if "share" in change:
        change = {"share": samba.address.replace("exports", change["share"])}
    machine, connector = sharing.machine(), sharing.connector(**change)
    with pytest.raises(Unsupported, match=word):
        take(connector, the(machine))
    assert not sharing.asked("POST", "VirDomainSnapshot")
    assert any(word in warning for warning in connector.check(soon()).warnings)


def test_a_share_that_the_cluster_may_not_write_is_told(
    sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path
) -> None:
    machine = sharing.machine()
    connector = sharing.connector(share=samba.address.replace("exports", "read-only"))
    source = take(connector, the(machine)).open("virtio0")
    with pytest.raises(SourceLost, match="ACCESS_DENIED"):
        saved(source, tmp_path)
    connector.release(the(machine), (), soon())
    assert left(sharing, samba, machine) == NOTHING


def test_a_folder_of_the_share_serves_as_well(sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path) -> None:
    (samba.files / "of us" / "& others").mkdir(parents=True)
    machine, connector = sharing.machine(), sharing.connector(share=f"{samba.address}/of us/& others")
    point = take(connector, the(machine))
    assert saved(point.open("virtio0"), tmp_path) == sharing.content(machine.id)
    assert [path.name for path in samba.files.iterdir()] == ["of us"]
    connector.release(the(machine), (), soon())
    assert list((samba.files / "of us" / "& others").iterdir()) == []


def test_a_file_server_that_dies_in_the_middle_costs_the_attempt_and_leaves_nothing_once_it_is_back(
    sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path
) -> None:
    machine, connector = sharing.machine(size=64 * MIB, bytes_each=16 * MIB), sharing.connector()
    source = take(connector, the(machine)).open("virtio0")
    assert isinstance(source, Slow)
    while not source.advance(0).startswith("Fetches"):
        pass
    samba.stop()
    with pytest.raises(SourceLost, match="does not answer") as lost:
        saved(source, tmp_path)
    assert lost.value.retry
    assert scratches(tmp_path) == []
    with pytest.raises(Unreachable, match="does not answer"):
        connector.release(the(machine), (), soon())
    samba.start()
    connector.release(the(machine), (), soon())
    assert left(sharing, samba, machine) == NOTHING


def test_a_file_server_that_falls_silent_is_given_up_in_time_and_asked_again_later(
    sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing_module, "ANSWER_S", 1.0)
    machine, connector = sharing.machine(size=64 * MIB, bytes_each=16 * MIB), sharing.connector()
    point = take(connector, the(machine))
    source = point.open("virtio0")
    assert isinstance(source, Slow)
    while not source.advance(0).startswith("Fetches"):
        pass
    samba.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(SourceLost, match="does not answer"):
            saved(source, tmp_path)
        assert time.monotonic() - began < 20
    finally:
        samba.freeze(again=True)
    assert saved(point.open("virtio0"), tmp_path) == sharing.content(machine.id)
    connector.release(the(machine), (), soon())


@pytest.mark.parametrize("damage", ["garbage", "short", "missing", "definition"])
def test_an_export_that_is_not_whole_is_not_taken_for_one(
    damage: str, sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path
) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    source = take(connector, the(machine)).open("virtio0")
    export_ends(sharing)
    (image,), (definition,) = samba.files.glob("*/*.qcow2"), samba.files.glob("*/*.xml")
    if damage == "garbage":
        image.write_bytes(os.urandom(image.stat().st_size))
    elif damage == "short":
        os.truncate(image, image.stat().st_size // 4)
    elif damage == "missing":
        image.unlink()
    else:
        definition.write_bytes(definition.read_bytes()[:100])
    with pytest.raises(SourceLost, match=r"anew|not there"):
        saved(source, tmp_path)
    assert scratches(tmp_path) == []
    connector.release(the(machine), (), soon())


def test_the_definition_is_read_as_appliances_write_it() -> None:
    text = (
        b"<?xml version='1.0'?><domain><devices><disk type='network' device='cdrom'><source name='scribe/iso'/></disk>"
        b"<disk type='network' device='disk'><source protocol='scribe' name='scribe/one'/></disk>\0\0"
        b"<disk type='network' device='disk'><source name='two'/></disk></devices></domain>\0\0\0"
    )
    assert devices_of(text) == ["one", "two"]
    with pytest.raises(SourceLost, match="cannot be read"):
        devices_of(text[:90])
    entity = b"<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/hostname'>]>"
    with pytest.raises(SourceLost, match="cannot be read"):
        devices_of(entity + b"<d><disk device='disk'><source name='&a;'/></disk></d>")


def test_no_secret_is_in_anything_that_is_said(
    sharing: HyperCoreWorld, samba: SambaServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    machine = sharing.machine()
    for where in ("read-only", "exports", "nothing"):
        connector = sharing.connector(share=samba.address.replace("exports", where))
        try:
            point = take(connector, the(machine))
            said += [repr(point), repr(connector)]
            source = point.open("virtio0")
            said += [repr(source)]
            saved(source, tmp_path)
        except (ConnectorError, DiskError) as error:
            said += [str(error), repr(error), str(getattr(error, "platform_words", ""))]
        sharing.connector().release(the(machine), (), soon())
    sharing.faults.add("status", "/export", status=400, body='{"error": "Bad pathURI ' + sharing.secrets[2] + '"}')
    with pytest.raises(PlatformFault) as refused:
        take(sharing.connector(), the(machine))
    said += [str(refused.value), refused.value.platform_words]
    said += [repr(sharing.settings), repr(Share(sharing.settings)), *caplog.messages]
    paths = [seen.raw_path for node in sharing.nodes for seen in node.requests]
    text = "\n".join(said + paths)
    assert "Bad pathURI" in text
    assert not [secret for secret in sharing.secrets if secret in text]


def test_the_address_given_to_the_cluster_has_each_part_encoded(world: HyperCoreWorld) -> None:
    settings = dataclasses.replace(
        world.settings, share="//nas.example/vm store/a&b", share_user="CONTOSO\\joe d", share_password="p@s/s:w%"
    )
    assert Share(settings).address("x") == "smb://CONTOSO;joe%20d:p%40s%2Fs%3Aw%25@nas.example/vm%20store/a%26b/x"
    assert Share(dataclasses.replace(settings, share="[fd00::1]:44/s", share_user="joe")).address("x") == (
        "smb://joe:p%40s%2Fs%3Aw%25@[fd00::1]:44/s/x"
    )


# --- what cannot be read ---------------------------------------------------------------------------------------------


def test_what_cannot_be_replicated_is_said_in_words(sharing: HyperCoreWorld, samba: SambaServer) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    with pytest.raises(NotFound, match="no disk 'virtio7'"):
        take(connector, the(machine), disks=("virtio7",))
    with pytest.raises(NotFound, match="not on HyperCore"):
        take(connector, MachineRef(new_key()))
    with pytest.raises(Conflict, match="stamp differs"):
        take(connector, MachineRef(machine.id, Stamp(OURS, new_key())))
    with sharing.lab:
        extra_of(sharing.lab, machine).replica_of = "another cluster's"
    with pytest.raises(Unsupported, match="Replicate the original"):
        take(connector, the(machine))
    with sharing.lab:
        empty = sharing.lab.create("empty", networks=())
    with pytest.raises(Unsupported, match="no disk to replicate"):
        take(connector, the(empty))
    assert left(sharing, samba, machine)[1:] == ([], [])


def test_a_machine_of_the_same_name_is_another_machine(sharing: HyperCoreWorld) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    reference = MachineRef(machine.id)
    sharing.remove(machine.id)
    sharing.machine()
    with pytest.raises(NotFound, match="not on HyperCore"):
        take(connector, reference)


def test_a_full_tier_is_told_in_words(sharing: HyperCoreWorld, samba: SambaServer) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    sharing.cluster.tier_percent = 95
    with pytest.raises(CapacityExhausted, match="95% full"):
        take(connector, the(machine))
    assert left(sharing, samba, machine) == NOTHING


def test_a_share_without_room_is_told_in_words(
    sharing: HyperCoreWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.hypercore import shares

    def full(*_: object) -> None:
        raise shares.ShareFailed("No space left on //server/share")

    machine, connector = sharing.machine(), sharing.connector()
    monkeypatch.setattr(shares.Share, "put", full)
    with pytest.raises(OutOfSpace, match="Make room on the share"):
        saved(take(connector, the(machine)).open("virtio0"), tmp_path)
    connector.release(the(machine), (), soon())


def test_a_certificate_that_changed_stops_it(sharing: HyperCoreWorld) -> None:
    machine, connector = sharing.machine(), sharing.connector()
    for node in sharing.nodes:
        node.change_certificate()
    with pytest.raises(CertificateRejected):
        take(connector, the(machine))


def test_without_libnbd_it_is_said_what_is_missing(sharing: HyperCoreWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("disks.nbd", "disks.images"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("disks.nbd", raising=False)
    monkeypatch.delattr("disks.images", raising=False)
    monkeypatch.setitem(sys.modules, "nbd", None)
    with pytest.raises(Unsupported, match="python3-libnbd"):
        take(sharing.connector(), the(sharing.machine()))


# --- places on this machine ------------------------------------------------------------------------------------------


def test_scratch_images_of_a_killed_mover_are_removed_by_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    (tmp_path / "alive").mkdir()
    code = (
        "import sys, os, signal; from pathlib import Path; from connectors.hypercore.scratch import Scratch;"
        "(Scratch(Path(sys.argv[1])).folder / 'disk.qcow2').write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "dead")], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "dead").iterdir())
    mine = Scratch(tmp_path / "alive")
    assert not list((tmp_path / "dead").iterdir())
    other = Scratch(tmp_path / "alive")
    assert mine.folder.exists()
    for scratch in (mine, other):
        scratch.close()
    assert not list((tmp_path / "alive").iterdir())
