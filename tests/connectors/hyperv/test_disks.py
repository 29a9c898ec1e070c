"""Points of machines on Hyper-V hosts of the lab: what is in them, and what is left on the host."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from connectors.base import CloneMachine, MachineRef, PowerAction, RevertSnapshot, SetPower, SnapshotTaken, TakeSnapshot
from connectors.errors import Busy, Conflict, HostDown, NotFound, PlatformFault, Unreachable, Unsupported
from connectors.hyperv import disks, faults
from connectors.hyperv.asking import Questions
from connectors.hyperv.connector import HypervConnector
from connectors.hyperv.dock import Dock
from connectors.hyperv.nodes import TASK_COMMAND, errand
from connectors.replication import Bookmark, Consistency, PointWish, Replicates
from disks.copying import copy
from disks.errors import SourceLost
from disks.extents import Widened
from disks.vault.folder import FolderStore
from disks.vault.points import Drive, Origin, RecoveryPoint
from disks.vault.vault import Vault
from lab.hyperv import Account
from lab.hyperv.server import WinRmServer
from tests.connectors.contract import OURS, do, made, new_key, ref, refuse, soon
from tests.connectors.hyperv.replicating import (
    MIB,
    checkpoints,
    errands,
    is_same,
    kept,
    noise,
    nothing_is_left,
    now,
    others,
    references,
    running,
    saved,
    take,
    until,
    write,
)
from tests.connectors.hyperv.worlds import HypervWorld

ONLY = "scsi-0-0"


def hasty(connector: HypervConnector) -> HypervConnector:
    """One that gives up sooner."""
    connector.reader = dataclasses.replace(connector.reader, silence_s=1.0, connect_s=1.0)
    return connector


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_a_point_is_the_disk_byte_for_byte_though_the_machine_writes_on(world: HypervWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), running(world)
    then = now(world, machine)
    point = take(connector, machine)
    source = point.open(ONLY)
    write(world, machine, 0, b"written during the point")
    write(world, machine, 20 * MIB, noise(70_000, 2))
    copied, _ = saved(source, tmp_path / "copy.raw")
    assert is_same(copied, then)
    assert not is_same(copied, now(world, machine))
    one_differs = bytearray(copied)
    one_differs[9_000_000] ^= 1
    assert not is_same(bytes(one_differs), then)
    point.close()
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_a_linked_clone_is_read_with_all_that_it_hangs_from(world: HypervWorld, tmp_path: Path) -> None:
    connector = world.connector()
    order = CloneMachine(key=new_key(), name="linked", template=world.template)
    machine = ref(world, made(world, connector, order))
    write(world, machine, 3 * MIB + 512, noise(100_000, 3))
    with world.world as there:
        top = there.disks[there.machine(machine.id).disks[0]]
        assert top.parent
    point = take(connector, machine)
    source = point.open(ONLY)
    for area in world.world.allocated(top.id):
        assert source.read(area.offset, area.length) == there.read(top.id, area.offset, area.length)
    assert source.read(3 * MIB + 512, 100_000) == noise(100_000, 3)
    point.close()
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_five_points_in_a_vault_are_each_what_the_disk_was_and_cost_what_changed(
    world: HypervWorld, tmp_path: Path
) -> None:
    connector, machine = world.connector(), running(world)
    (tmp_path / "vault").mkdir()
    vault = Vault.create(FolderStore(tmp_path / "vault"))
    base: RecoveryPoint | None = None
    bookmark: Bookmark | None = None
    points: list[tuple[RecoveryPoint, bytes]] = []
    for number in range(5):
        write(world, machine, (number + 9) * MIB + 512, noise(150_000, number))
        point = take(connector, machine, bookmark)
        assert (point.whole == "") == (number > 0)
        then = now(world, machine)
        write(world, machine, 2 * MIB, noise(5_000, 100 + number))
        run = vault.begin(OURS, machine.id, base)
        disk = run.disk(ONLY, point.configuration.disks[0].size)
        source = point.open(ONLY)
        progress = copy(source, disk)
        disk.commit()
        base = run.commit(
            origin=Origin(machine.id, point.name), configuration=point.configuration, read_at=point.taken_at
        )
        points.append((base, then))
        bookmark = point.bookmark
        point.close()
        connector.release(machine, kept(bookmark), soon())
        assert (checkpoints(world, machine), references(world, machine)) == ([], 1)
        if number > 0:
            assert 0 < progress.moved <= 6 * 65536
    for point_then, bytes_then in points:
        restored, _ = saved(vault.open_disk(point_then, ONLY), tmp_path / "restored.raw")
        assert is_same(restored, bytes_then)
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_a_second_point_without_writes_between_names_next_to_nothing(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    first = take(connector, machine)
    first.close()
    connector.release(machine, kept(first.bookmark), soon())
    second = take(connector, machine, first.bookmark)
    assert second.whole == ""
    assert sum(extent.length for extent in second.open(ONLY).extents()) < 24 * MIB * 0.02
    second.close()
    connector.release(machine, (), soon())


def test_changes_are_asked_for_in_parts_that_join(world: HypervWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may look at less than it was asked; what touches at the seam is one extent."""
    connector, machine = world.connector(), running(world)
    first = take(connector, machine)
    first.close()
    connector.release(machine, kept(first.bookmark), soon())
    for offset in (0, 8 * MIB - 65536, 8 * MIB, 16 * MIB + 1024):
        write(world, machine, offset, noise(1024, offset))
    second = take(connector, machine, first.bookmark)
    whole = [(it.offset, it.length) for it in second.open(ONLY).extents()]
    assert whole == [(0, 65536), (8 * MIB - 65536, 131072), (16 * MIB, 65536)]
    monkeypatch.setattr(disks, "LOOK", 8 * MIB)
    assert [(it.offset, it.length) for it in second.open(ONLY).extents()] == whole
    monkeypatch.setattr("lab.hyperv.errands.MOST_CHANGES", MIB)
    assert [(it.offset, it.length) for it in second.open(ONLY).extents()] == whole
    second.close()
    connector.release(machine, (), soon())


def test_several_disks_are_of_one_moment_and_may_be_chosen_among(world: HypervWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), running(world, sizes_mib=(8, 16))
    then = [now(world, machine, disk) for disk in (0, 1)]
    point = take(connector, machine)
    write(world, machine, 0, b"later", 0)
    write(world, machine, 0, b"later", 1)
    assert [saved(point.open(f"scsi-0-{disk}"), tmp_path / "copy.raw")[0] for disk in (0, 1)] == then
    point.close()
    connector.release(machine, (), soon())
    one = take(connector, machine, disks=["scsi-0-1"])
    assert one.configuration.disks == (Drive("scsi-0-1", "scsi", 16 * MIB),)
    with pytest.raises(NotFound, match="holds no disk 'scsi-0-0'"):
        one.open("scsi-0-0")
    one.close()
    connector.release(machine, (), soon())


def test_any_stretch_can_be_read_from_several_threads(world: HypervWorld) -> None:
    """What is damaged in a vault is read anew wherever it lies; raw disks are read in whole sectors."""
    connector, machine = world.connector(), running(world)
    then = now(world, machine)
    point = take(connector, machine)
    source = Widened(point.open(ONLY), ())
    places = [(1, 5), (4095, 2), (511, 1025), (24 * MIB - 7, 7), (MIB - 3, 9 * MIB)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: source.read(*place), places))
    assert found == [then[offset : offset + length] for offset, length in places]
    point.close()
    connector.release(machine, (), soon())


# --- what a point says -----------------------------------------------------------------------------------------------


def test_a_point_says_what_the_machine_is(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    assert isinstance(connector, Replicates)
    point = take(connector, machine)
    assert (point.name, point.consistency, point.whole) == (
        "replicated",
        Consistency.GUEST,
        "It is the first point.",
    )
    found = point.configuration
    assert (found.vcpus, found.memory_mib, found.firmware, found.secure_boot) == (2, 2048, "uefi", True)
    assert found.disks == (Drive(ONLY, "scsi", 24 * MIB),)
    (nic,) = found.nics
    assert (nic.model, nic.network) == ("synthetic", "Office")
    assert nic.mac == world.machine(machine.id).nics[0].mac
    point.close()
    connector.release(machine, (), soon())


def test_a_machine_of_generation_1_has_bios_and_ide(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    world.machine(machine.id).marks["generation"] = 1
    point = take(connector, machine)
    assert (point.configuration.firmware, point.configuration.secure_boot) == ("bios", False)
    assert point.configuration.disks == (Drive("ide-0-0", "ide", 24 * MIB),)
    point.close()
    connector.release(machine, (), soon())


def test_a_guest_that_does_not_hear_is_taken_as_after_a_power_cut(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    world.machine(machine.id).guest.has_agent = False
    point = take(connector, machine)
    assert point.consistency is Consistency.CRASH
    assert point.whole == "It is the first point."
    point.close()
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_a_machine_of_ours_that_is_off_can_be_switched_on_during_its_point(world: HypervWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), running(world)
    with world.world as there:
        there.power_off(machine.id)
    then = now(world, machine)
    point = take(connector, machine)
    assert point.consistency is Consistency.OFF
    source = point.open(ONLY)
    assert source.read(0, 4096)
    do(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))
    write(world, machine, 0, b"booting")
    assert is_same(saved(source, tmp_path / "copy.raw")[0], then)
    point.close()
    connector.release(machine, (), soon())


def test_a_golden_image_is_read_as_it_stands_and_its_clones_live_on(world: HypervWorld) -> None:
    """A checkpoint of it would be merged into the disk that they hang from."""
    connector = world.connector()
    clone = made(world, connector, CloneMachine(key=new_key(), name="linked", template=world.template, power_on=False))
    template = MachineRef(world.template)
    point = take(connector, template)
    assert checkpoints(world, template) == []
    assert (point.consistency, point.bookmark) == (Consistency.OFF, None)
    assert "whole disks only" in point.whole
    source = point.open(ONLY)
    with world.world as there:
        (disk,) = there.machine(world.template).disks
        areas = there.allocated(disk)
    for area in areas:
        assert source.read(area.offset, area.length) == world.world.read(disk, area.offset, area.length)
    assert sum(extent.length for extent in source.extents()) == source.size
    order = SetPower(key=new_key(), machine=template, action=PowerAction.ON)
    assert isinstance(refuse(world, connector, order), Conflict)
    point.close()
    connector.release(template, (), soon())
    nothing_is_left(world, template)
    do(world, connector, SetPower(key=new_key(), machine=ref(world, clone), action=PowerAction.ON))


def test_a_machine_that_is_not_ours_and_off_cannot_be_switched_on_while_it_is_read(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world, stamped=False)
    with world.world as there:
        there.power_off(machine.id)
    point = take(connector, machine)
    point.open(ONLY).read(0, 4096)
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.ON)
    assert isinstance(refuse(world, connector, order), Busy)
    point.close()
    connector.release(machine, (), soon())
    do(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))


@pytest.mark.parametrize("how", ["forgotten", "released", "empty", "reverted"])
def test_a_host_that_does_not_remember_the_last_point_has_everything_read_and_it_says_so(
    world: HypervWorld, how: str
) -> None:
    connector, machine = world.connector(), running(world)
    snapshot = do(world, connector, TakeSnapshot(key=new_key(), machine=machine, name="before")).result
    assert isinstance(snapshot, SnapshotTaken)
    if how == "empty":  # as some releases of Windows leave it
        world.server.host.tells_changes = False
    first = take(connector, machine)
    first.close()
    connector.release(machine, () if how == "released" else kept(first.bookmark), soon())
    if how == "forgotten":
        with world.world as there:
            there.forget_changes(there.machine(machine.id).disks[0])
    if how == "reverted":
        do(world, connector, RevertSnapshot(key=new_key(), machine=machine, snapshot=snapshot.snapshot_id))
    second = take(connector, machine, first.bookmark)
    assert "does not remember the last point" in second.whole
    source = second.open(ONLY)
    assert sum(extent.length for extent in source.extents()) == source.size
    second.close()
    connector.release(machine, (), soon())
    assert checkpoints(world, machine) == []


def test_bookmarks_of_copies_to_other_places_are_kept(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    marks: list[Bookmark] = []
    for _ in range(3):
        point = take(connector, machine, keep=marks)
        marks += kept(point.bookmark)
        point.close()
        connector.release(machine, marks, soon())
    assert references(world, machine) == 3
    write(world, machine, 0, b"since")
    last = take(connector, machine, marks[0], keep=marks[2:])
    assert last.whole == ""
    last.close()
    connector.release(machine, marks[2:], soon())
    assert references(world, machine) == 1
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


# --- what is left ----------------------------------------------------------------------------------------------------


def test_whatever_becomes_of_the_mover_releasing_leaves_nothing_but_the_mark(world: HypervWorld) -> None:
    machine = running(world)
    first = take(world.connector(), machine)
    first.close()
    world.connector().release(machine, kept(first.bookmark), soon())
    point = take(world.connector(), machine, first.bookmark)  # and nobody ever hears of it again
    point.open(ONLY).read(0, 4096)
    assert (len(checkpoints(world, machine)), errands(world)) == (1, 1)
    for _ in range(2):
        world.connector().release(machine, kept(first.bookmark), soon())
        assert (checkpoints(world, machine), references(world, machine), errands(world)) == ([], 1, 0)
    world.connector().release(machine, (), soon())
    nothing_is_left(world, machine)
    write(world, machine, 0, b"alive")
    point.close()


def test_a_point_whose_mover_died_while_it_was_made_is_found_and_removed(world: HypervWorld) -> None:
    """The service goes on with the checkpoint; it has no name of ours yet when it is there."""
    world.world.clock.speed = 0
    machine = running(world)
    with pytest.raises(Busy, match="still going on"):
        world.connector().take_point(PointWish(machine=machine, key=new_key()), time.monotonic() + 1.5)
    world.world.clock.advance(10)
    with world.world:
        pass
    assert checkpoints(world, machine) == ["Unnamed"]
    world.world.clock.speed = 60
    world.connector().release(machine, (), soon())
    nothing_is_left(world, machine)


def test_a_point_taken_while_an_earlier_one_was_never_released_ends_that_one(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    first = take(connector, machine)
    first.open(ONLY).read(0, 4096)
    second = take(connector, machine)
    assert (len(checkpoints(world, machine)), errands(world)) == (1, 1)
    assert len(second.open(ONLY).read(0, 512)) == 512
    first.close()
    second.close()
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_points_of_others_are_not_touched(world: HypervWorld) -> None:
    machine = running(world)
    others(world, machine)
    theirs = world.connector(installation="somebody-else")
    their_point = take(theirs, machine)
    source = their_point.open(ONLY)
    mine = world.connector()
    point = take(mine, machine)
    assert len(checkpoints(world, machine)) == 3
    point.close()
    mine.release(machine, kept(point.bookmark), soon())
    mine.release(machine, (), soon())
    left = checkpoints(world, machine)
    assert len(left) == 2
    assert "Somebody's backup" in left
    assert source.read(0, 4096) == now(world, machine)[:4096]
    their_point.close()
    theirs.release(machine, kept(their_point.bookmark), soon())
    mine.release(machine, (), soon())
    assert (checkpoints(world, machine), references(world, machine)) == (["Somebody's backup"], 1)
    assert take(theirs, machine, their_point.bookmark).whole == ""


def test_peoples_notes_and_the_stamp_stay_as_they_are(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    with world.world as there:
        there.machine(machine.id).marks["notes"] += "\nAsk Dana before touching this."
        before = str(there.machine(machine.id).marks["notes"])
    point = take(connector, machine)
    point.close()
    connector.release(machine, kept(point.bookmark), soon())
    assert str(world.machine(machine.id).marks["notes"]).startswith(before)
    connector.release(machine, (), soon())
    assert world.machine(machine.id).marks["notes"] == before


def test_releasing_a_machine_that_is_gone_is_success(world: HypervWorld) -> None:
    world.connector().release(MachineRef(new_key()), (), soon())
    with pytest.raises(NotFound, match="not on HV1 any more"):
        take(world.connector(), MachineRef(new_key()))


def test_another_machine_of_the_same_name_is_not_taken_for_it(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    world.remove(machine.id)
    again = running(world)
    assert world.names()[again.id] == "replicated"
    with pytest.raises(NotFound):
        take(connector, machine)
    assert machine.stamp is not None
    with pytest.raises(Conflict, match="somebody else may own it"):
        take(connector, MachineRef(again.id, machine.stamp))
    nothing_is_left(world, again)


def test_what_cannot_be_replicated_is_said_in_words(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    with pytest.raises(NotFound, match="no such disk"):
        take(connector, machine, disks=["scsi-0-9"])
    with world.world as there:
        found = there.machine(machine.id)
        found.marks.setdefault("paths", {})[found.disks[0]] = "D:\\Shared\\quorum.vhds"
    with pytest.raises(Unsupported, match="no VHD or VHDX file"):
        take(connector, machine)
    with world.world as there:
        bare = there.create("bare")
    with pytest.raises(Unsupported, match="has no disk"):
        take(connector, MachineRef(bare.id))
    nothing_is_left(world, machine)


# --- when things break -----------------------------------------------------------------------------------------------


def test_a_checkpoint_that_fails_is_tried_without_the_guest_and_then_told(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    world.faults.add("task_fails", "CreateSnapshot")
    point = take(connector, machine)
    assert point.consistency is Consistency.CRASH
    point.close()
    world.faults.add("task_fails", "CreateSnapshot", count=2)
    with pytest.raises(PlatformFault, match="did not make the checkpoint"):
        take(connector, machine)
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_a_point_that_cannot_become_a_reference_point_goes_all_the_same(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    point = take(connector, machine)
    point.close()
    world.faults.add("task_fails", "ConvertToReferencePoint")
    connector.release(machine, kept(point.bookmark), soon())
    nothing_is_left(world, machine)
    assert "does not remember" in take(connector, machine, point.bookmark).whole


def test_a_line_that_breaks_in_mid_read_is_taken_up_again(world: HypervWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), running(world)
    then = now(world, machine)
    point = take(connector, machine)
    rule = world.faults.add("drop_before", "serve", count=3, skip=4)
    assert is_same(saved(point.open(ONLY), tmp_path / "copy.raw")[0], then)
    assert rule.struck == 3
    point.close()
    connector.release(machine, (), soon())


def test_an_errand_that_dies_in_mid_read_is_told_and_leaves_nothing(world: HypervWorld, tmp_path: Path) -> None:
    connector, machine = hasty(world.connector()), running(world)
    point = take(connector, machine)
    source = point.open(ONLY)
    world.faults.add("task_fails", "serve", skip=3)
    with pytest.raises(SourceLost, match="not heard of") as lost:
        saved(source, tmp_path / "copy.raw")
    assert lost.value.retry
    point.close()
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_a_host_that_dies_in_mid_read_is_told(world: HypervWorld, tmp_path: Path) -> None:
    connector, machine = hasty(world.connector()), running(world)
    point = take(connector, machine)
    source = point.open(ONLY)
    world.faults.add("drop_before", "serve", count=-1, skip=3)
    with pytest.raises(SourceLost):
        saved(source, tmp_path / "copy.raw")
    point.close()
    world.faults.clear()
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_a_host_that_cannot_reach_the_mover_is_told_with_what_to_do_and_nothing_is_left(world: HypervWorld) -> None:
    connector, machine = hasty(world.connector()), running(world)
    world.faults.add("drop_before", "serve", count=-1)
    with pytest.raises(
        Unreachable, match=r"did not come to this mover at https://127\.0\.0\.1:\d+\. Check the movers'"
    ):
        take(connector, machine)
    nothing_is_left(world, machine)


def test_sessions_and_shells_that_are_lost_between_point_and_release_do_no_harm(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    point = take(connector, machine)
    world.server.lose_shells()
    world.server.expire_sessions()
    assert point.open(ONLY).read(0, 4096) == now(world, machine)[:4096]
    point.close()
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_a_connection_that_breaks_while_a_point_is_taken_leaves_nothing_after_the_release(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    for where in ("Send points", "Receive points", "Command"):
        for kind in ("drop_before", "drop_after", "truncate"):
            world.faults.add(kind, where)
            try:
                take(connector, machine).close()
            except Unreachable:
                connector.release(machine, (), soon())
                nothing_is_left(world, machine)
            world.faults.clear()
    connector.release(machine, (), soon())
    nothing_is_left(world, machine)


def test_a_host_that_hangs_costs_no_more_than_the_deadline(world: HypervWorld) -> None:
    connector, machine = world.connector(), running(world)
    connector.release(machine, (), soon())
    world.faults.add("hang", "Receive points")
    began_at = time.monotonic()
    with pytest.raises((Busy, Unreachable)):
        connector.take_point(PointWish(machine=machine, key=new_key()), time.monotonic() + 1.5)
    assert time.monotonic() < began_at + 6


def test_a_host_that_sees_another_certificate_sends_nothing(world: HypervWorld, tmp_path: Path) -> None:
    questions = Questions()
    way = Dock(world.server.address, world.settings, tmp_path, questions)
    told = {"to": way.told | {"thumbprint": "00" * 32}, "disks": []}
    parameters = {"owner": "us", "task_command": TASK_COMMAND, "errand": errand("serve", told)}
    host = world.server.host
    host.errands.start(parameters, "machine", "point", "serve 1")
    until(lambda: host.errands.told("us", "machine", "point")["state"] == "failed")
    fault = host.errands.told("us", "machine", "point")["fault"]
    assert fault["id"] == "Deskyard.WrongCertificate"
    assert "opens TLS" in faults.of_answer(fault, "taking a point", "HV1").message
    assert questions.heard_at == 0
    way.close()


# --- how it goes over the wire ---------------------------------------------------------------------------------------


def test_bytes_of_disks_do_not_go_over_winrm(world: HypervWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), running(world)
    starts = world.starts
    point = take(connector, machine)
    assert world.starts == starts + 2
    before = len(world.server.requests)
    saved(point.open(ONLY), tmp_path / "copy.raw")
    assert len(world.server.requests) == before
    assert sum(len(seen.body) for seen in world.server.requests) < 200_000
    point.close()
    connector.release(machine, (), soon())
    assert world.starts == starts + 3


def test_over_http_the_token_is_sealed(sealed: HypervWorld, tmp_path: Path) -> None:
    connector, machine = sealed.connector(), running(sealed)
    then = now(sealed, machine)
    point = take(connector, machine)
    assert is_same(saved(point.open(ONLY), tmp_path / "copy.raw")[0], then)
    point.close()
    connector.release(machine, (), soon())


def test_an_account_without_rights_is_told_so(world: HypervWorld) -> None:
    machine = running(world)
    guest = Account("LAB", "nobody-special", "hunter3-and-more", is_admin=False)
    world.server.add_account(guest)
    connector = world.connector(user="LAB\\nobody-special", password=guest.password)
    with pytest.raises(Unsupported, match="no administrator"):
        take(connector, machine)


# --- clusters --------------------------------------------------------------------------------------------------------


def test_a_machine_is_found_on_its_node_and_after_it_has_moved(cluster: HypervWorld, tmp_path: Path) -> None:
    machine = running(cluster, host="HV2")
    connector = cluster.connector()
    then = now(cluster, machine)
    point = take(connector, machine)
    with cluster.world as there:
        there.machine(machine.id).host = "HV3"
    assert is_same(saved(point.open(ONLY), tmp_path / "copy.raw")[0], then)
    point.close()
    connector.release(machine, kept(point.bookmark), soon())
    assert (checkpoints(cluster, machine), references(cluster, machine), errands(cluster)) == ([], 1, 0)
    second = take(connector, machine, point.bookmark)
    assert second.whole == ""
    second.close()
    connector.release(machine, (), soon())
    nothing_is_left(cluster, machine)


def test_what_was_left_on_the_node_that_the_machine_has_gone_from_goes_too(cluster: HypervWorld) -> None:
    """By a mover that died: its successor knows nothing of either."""
    machine = running(cluster, host="HV2")
    point = take(cluster.connector(), machine)
    with cluster.world as there:
        there.machine(machine.id).host = "HV1"
    assert errands(cluster) == 1
    cluster.connector().release(machine, (), soon())
    nothing_is_left(cluster, machine)
    point.close()


def test_a_node_that_does_not_answer_may_have_the_machine(cluster: HypervWorld) -> None:
    machine = running(cluster, host="HV3")
    last: WinRmServer = cluster.servers[2]
    last.cut_off()
    with pytest.raises(HostDown, match="no other node can"):
        take(cluster.connector(), machine)
    with pytest.raises(HostDown):
        cluster.connector().release(machine, (), soon())
    last.come_back()
    take(cluster.connector(), machine).close()
    cluster.connector().release(machine, (), soon())
    nothing_is_left(cluster, machine)
