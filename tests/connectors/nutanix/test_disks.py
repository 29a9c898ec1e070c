"""Points of machines on Prism Central: what is in them, and what is left behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from connectors.base import DeleteMachine, MachineRef, Stamp
from connectors.errors import (
    Busy,
    CapacityExhausted,
    Conflict,
    ConnectorError,
    NotFound,
    PlatformFault,
    Unsupported,
)
from connectors.nutanix import files
from connectors.nutanix.names import point_prefix
from connectors.replication import Consistency, PointWish, Replicates
from disks.errors import SourceLost, SourceRefused
from disks.vault.points import Drive, Nic
from tests.connectors.contract import OURS, THEIRS, clone, do, listing, made, new_key, ref, soon
from tests.connectors.nutanix.replicas import MIB, contents, left, quick, read, scribble, stand, switch_on, take
from tests.connectors.nutanix.worlds import PrismWorld


@pytest.fixture(autouse=True)
def soon_done(world: PrismWorld) -> None:
    quick(world)


def release(world: PrismWorld, machine_id: str) -> None:
    """By somebody who knows nothing of what was done before."""
    world.connector().release(MachineRef(machine_id), (), soon(30))


# --- what is in a point ----------------------------------------------------------------------------------------------


def test_a_point_is_the_disks_of_one_moment_though_the_machine_writes_on(world: PrismWorld) -> None:
    machine, connector = stand(world), world.connector()
    assert isinstance(connector, Replicates)
    switch_on(world, machine)
    before = contents(world, machine)
    point = take(connector, machine)
    scribble(world, machine)
    first, second = point.open("scsi-0"), point.open("scsi-1")
    scribble(world, machine)
    assert (first.read(0, first.size), second.read(0, second.size)) == (before[0], before[1])
    first.close()
    second.close()
    assert read(point) == before, "and once more, as copies read"
    assert before != contents(world, machine)
    connector.release(MachineRef(machine.id), (), soon())
    assert left(world) == {}


def test_one_byte_that_differs_shows(world: PrismWorld) -> None:
    """That the comparison of the others can fail."""
    machine, connector = stand(world, sizes=(5,)), world.connector()
    before = contents(world, machine)
    point = take(connector, machine)
    (image,) = world.server.replicas.images.images.values() or (None,)
    while image is None:
        with world.lab:
            image = next(iter(world.server.replicas.images.images.values()), None)
    with world.lab as lab:
        lab.write(image.disk, 4 * MIB, bytes([before[0][4 * MIB] ^ 1]))
    assert read(point) != before


def test_a_linked_clone_is_read_with_what_it_has_from_its_parent(world: PrismWorld) -> None:
    parent = stand(world, "parent")
    with world.lab as lab:
        machine = lab.clone(parent.id, name="child", linked=True)
    scribble(world, machine)
    assert contents(world, machine) != contents(world, parent)
    assert read(take(world.connector(), machine)) == contents(world, machine)


def test_each_of_five_points_is_what_the_disks_were(world: PrismWorld) -> None:
    machine, connector = stand(world), world.connector()
    for _ in range(5):
        scribble(world, machine)
        then = contents(world, machine)
        point = take(connector, machine, since=None)
        scribble(world, machine)
        assert read(point) == then
        connector.release(MachineRef(machine.id), (), soon())
        assert left(world) == {}


def test_a_point_says_what_the_machine_is_and_why_everything_is_read(world: PrismWorld) -> None:
    machine, connector = stand(world), world.connector()
    with world.lab:
        machine.marks |= {
            "firmware": "uefi", "secure_boot": True, "addresses": [["SATA", 0], ["PCI", 3]],
            "models": {machine.nics[0].id: "E1000"}, "sockets": 1, "cores": 2,
        }  # fmt: skip
    began = datetime.now(UTC)
    point = take(connector, machine)
    assert (point.name, point.bookmark, point.consistency) == ("source", None, Consistency.OFF)
    assert "whole disks only" in point.whole
    assert began <= point.taken_at <= datetime.now(UTC)
    found = point.configuration
    assert (found.vcpus, found.memory_mib, found.firmware, found.secure_boot) == (2, 1024, "uefi", True)
    assert found.disks == (Drive("sata-0", "sata", 12 * MIB), Drive("pci-3", "virtio", 5 * MIB))
    assert found.nics == (Nic("e1000", machine.nics[0].mac, "desktops"),)
    assert read(point) == contents(world, machine)


def test_only_the_wished_disks_are_read_and_one_that_is_not_there_is_not_found(world: PrismWorld) -> None:
    machine, connector = stand(world), world.connector()
    point = take(connector, machine, disks=["scsi-1"])
    assert [drive.name for drive in point.configuration.disks] == ["scsi-1"]
    assert read(point) == contents(world, machine)[1:]
    assert len(left(world)["images"]) == 1
    with pytest.raises(NotFound, match="no disk 'scsi-0'"):
        point.open("scsi-0")
    with pytest.raises(NotFound, match="no disk 'sata-7'"):
        take(connector, machine, disks=["sata-7"])


def test_a_guest_with_tools_is_brought_to_rest_and_one_that_cannot_be_is_read_all_the_same(world: PrismWorld) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    switch_on(world, machine)
    assert take(connector, machine).consistency is Consistency.GUEST
    world.server.replicas.recovery.quiesces = False
    assert take(connector, machine).consistency is Consistency.CRASH
    with world.lab:
        machine.guest.has_agent = False
    assert take(connector, machine).consistency is Consistency.CRASH


def test_bringing_a_guest_to_rest_never_cuts_the_logs_of_its_databases(world: PrismWorld) -> None:
    machine = stand(world, sizes=(5,))
    switch_on(world, machine)
    take(world.connector(), machine)
    (asked,) = [seen for seen in world.server.requests if seen.label == "POST dataprotection/config/recovery-points"]
    assert b'"backupType": "COPY_BACKUP"' in asked.body


@pytest.mark.parametrize("version", [(4, 0), (4, 1), (4, 3)], ids=lambda version: f"v{version[0]}.{version[1]}")
def test_every_version_gives_points(world: PrismWorld, version: tuple[int, int]) -> None:
    world.server.versions = dict.fromkeys(world.server.versions, version)
    machine = stand(world, sizes=(5,))
    assert read(take(world.connector(), machine)) == contents(world, machine)


# --- reading ---------------------------------------------------------------------------------------------------------

FILE = r"^GET vmm/content/images/\{\}/file$"


@pytest.mark.parametrize("ranges", [True, False], ids=["from the middle", "from the beginning"])
def test_a_line_that_breaks_is_taken_up_again(world: PrismWorld, ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAUSE_S", 0.0)
    world.server.replicas.has_ranges = ranges
    machine = stand(world)
    point = take(world.connector(), machine)
    rule = world.faults.add("truncate", FILE, count=2)
    assert read(point) == contents(world, machine)
    assert rule.struck == 2
    asked = [seen for seen in world.server.requests if seen.label.endswith("/file")]
    assert sum("Range" in seen.headers for seen in asked) == 2


def test_a_line_that_breaks_for_ever_ends_the_copy_and_it_may_be_tried_again(
    world: PrismWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAUSE_S", 0.0)
    point = take(world.connector(), stand(world, sizes=(5,)))
    world.faults.add("drop_before", FILE, count=-1)
    source = point.open("scsi-0")
    with pytest.raises(SourceLost, match="again and again") as lost:
        source.read(0, MIB)
    assert lost.value.retry
    source.close()


def test_a_session_that_ends_in_the_middle_is_opened_anew(world: PrismWorld) -> None:
    machine = stand(world)
    point = take(world.connector(), machine)
    world.faults.add("session_expires", r"^GET prism/config/tasks", count=1)
    world.faults.add("session_expires", FILE, count=1)
    assert read(point) == contents(world, machine)


def test_a_certificate_that_changes_is_not_read_from(world: PrismWorld) -> None:
    point = take(world.connector(), stand(world, sizes=(5,)))
    source = point.open("scsi-0")
    world.server.change_certificate()
    world.server.cut_off()
    world.server.come_back()
    with pytest.raises(SourceRefused, match="certificate that is not the trusted one"):
        source.read(0, MIB)
    source.close()


def test_readers_may_ask_out_of_order_and_far_apart(world: PrismWorld) -> None:
    machine = stand(world, sizes=(40,))
    (whole,) = contents(world, machine)
    source = take(world.connector(), machine).open("scsi-0")
    places = [2, 0, 1, 3, 30, 5, 31, 4]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda place: source.read(place * MIB + 7, MIB - 14), places))
    assert found == [whole[place * MIB + 7 : place * MIB + MIB - 7] for place in places]
    source.close()


def test_two_readers_cost_no_second_download(world: PrismWorld) -> None:
    """The second may be the faster one."""
    machine = stand(world, sizes=(8,))
    (whole,) = contents(world, machine)
    source = take(world.connector(), machine).open("scsi-0")
    found = {place: source.read(place * MIB, MIB) for place in (1, 0, 3, 2, 5, 6, 4, 7)}
    assert b"".join(found[place] for place in sorted(found)) == whole
    source.close()
    assert len([seen for seen in world.server.requests if seen.label.endswith("/file")]) == 1


def test_a_file_that_is_not_the_disk_as_it_is_is_refused(world: PrismWorld) -> None:
    point = take(world.connector(), stand(world, sizes=(5,)))
    source = point.open("scsi-0")
    with world.lab as lab:
        (image,) = world.server.replicas.images.images.values()
        lab.resize_disk(image.disk, 5 * MIB + 512)
    with pytest.raises(SourceRefused, match="not the disk's content as it is"):
        source.read(0, 512)
    source.close()


# --- what is left behind ---------------------------------------------------------------------------------------------


def of_others(world: PrismWorld, machine_id: str) -> set[str]:
    """Recovery points and images that nobody may touch: a policy's, another installation's, another machine's."""
    other = new_key()
    names = {
        "nightly", f"dsky-point.{machine_id}", point_prefix(THEIRS, machine_id) + "x", point_prefix(OURS, other) + "x"
    }  # fmt: skip
    with world.lab as lab:
        machine = lab.machines[machine_id]
        for name in names:
            world.server.replicas.recovery.take(machine, name, "CRASH_CONSISTENT", "")
            told = {"name": name, "type": "DISK_IMAGE"}
            world.server.replicas.images.from_disk(told, machine.disks[0])
    return names


def test_releasing_leaves_what_is_others_and_nothing_of_ours(world: PrismWorld) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    names = of_others(world, machine.id)
    point = take(connector, machine)
    read(point)
    for _ in range(2):
        connector.release(MachineRef(machine.id), (), soon())
        found = left(world)
        assert {kind: set(there) for kind, there in found.items()} == {"recovery points": names, "images": names}


def test_a_mover_that_is_lost_leaves_nothing_once_another_one_releases(world: PrismWorld) -> None:
    """Its images are still in the making when the other one looks for the first time."""
    machine = stand(world)
    world.lab.task_s["CreateImage"] = 8.0
    take(world.connector(), machine)
    assert "images" not in left(world)
    release(world, machine.id)
    assert left(world) == {}
    assert world.lab.machines[machine.id].disks == machine.disks


def test_who_took_the_point_waits_for_his_own_tasks_and_needs_no_second_look(world: PrismWorld) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector(listing_lag_s=60)
    world.lab.task_s["CreateRecoveryPoint"] = 60.0
    with pytest.raises(Busy, match="not done in time"):
        connector.take_point(_wish(machine.id), soon(0.8))
    assert left(world) == {}
    connector.release(MachineRef(machine.id), (), soon(20))
    with world.lab as lab:
        lab.clock.advance(60)
    assert left(world) == {}


def test_what_cannot_be_certain_in_time_is_busy(world: PrismWorld) -> None:
    machine = stand(world, sizes=(5,))
    take(world.connector(), machine)
    with pytest.raises(Busy, match="looked once more"):
        world.connector(listing_lag_s=60).release(MachineRef(machine.id), (), soon(20))


def test_a_point_that_was_never_released_goes_with_the_next_one(world: PrismWorld) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    read(take(world.connector(), machine))
    point = take(connector, machine)
    assert read(point) == contents(world, machine)
    assert {kind: len(there) for kind, there in left(world).items()} == {
        "recovery points": 1,
        "machines": 1,
        "images": 1,
    }
    connector.release(MachineRef(machine.id), (), soon())
    assert left(world) == {}


@pytest.mark.parametrize("kind", ["CreateRecoveryPoint", "RestoreRecoveryPoint", "CreateImage"])
def test_a_task_that_fails_midway_leaves_nothing_after_the_release(world: PrismWorld, kind: str) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    world.faults.add("task_fails", kind)
    with pytest.raises(PlatformFault) as fault:
        read(take(connector, machine))
    assert "broke off" in fault.value.platform_words
    connector.release(MachineRef(machine.id), (), soon())
    assert left(world) == {}
    assert read(take(connector, machine)) == contents(world, machine)


def test_a_stand_in_whose_making_failed_is_removed_too(world: PrismWorld) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    world.server.replicas.recovery.breaks_late = True
    with pytest.raises(ConnectorError):
        take(connector, machine)
    assert left(world)["machines"]
    connector.release(MachineRef(machine.id), (), soon())
    assert left(world) == {}


@pytest.mark.parametrize("label", ["recovery-points$", "restore$", "content/images$"])
def test_an_answer_that_is_lost_makes_nothing_twice(world: PrismWorld, label: str) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    rule = world.faults.add("drop_after", rf"^POST .*{label}")
    assert read(take(connector, machine)) == contents(world, machine)
    assert rule.struck == 1
    assert {len(there) for there in left(world).values()} == {1}
    connector.release(MachineRef(machine.id), (), soon())
    assert left(world) == {}


def test_full_storage_is_said_and_nothing_is_left(world: PrismWorld) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    with world.lab as lab:
        lab.fill(next(iter(lab.storages)))
    with pytest.raises(CapacityExhausted):
        take(connector, machine)
    connector.release(MachineRef(machine.id), (), soon())
    assert left(world) == {}


def test_a_machine_that_is_gone_is_released_all_the_same(world: PrismWorld) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    read(take(connector, machine))
    world.remove(machine.id)
    connector.release(MachineRef(machine.id), (), soon())
    connector.release(MachineRef(new_key()), (), soon())
    assert left(world) == {}


def test_a_deadline_is_kept_and_it_is_tried_again(world: PrismWorld) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    world.faults.add("task_hangs", "RestoreRecoveryPoint")
    with pytest.raises(Busy, match="not done in time"):
        connector.take_point(_wish(machine.id), soon(2))
    world.faults.clear()


# --- who and what ----------------------------------------------------------------------------------------------------


def _wish(machine_id: str, stamp: Stamp | None = None) -> PointWish:
    return PointWish(machine=MachineRef(machine_id, stamp), key=new_key())


def test_another_machine_than_was_meant_is_not_read(world: PrismWorld) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world)))
    with pytest.raises(Conflict, match="somebody else may own it"):
        connector.take_point(_wish(machine.id), soon())
    with pytest.raises(Conflict, match="somebody else may own it"):
        connector.take_point(_wish(machine.id, Stamp(THEIRS, new_key())), soon())
    world.remove(machine.id)
    stand(world, "recreated under the same name", sizes=(5,))
    with pytest.raises(NotFound, match="not on"):
        connector.take_point(_wish(machine.id, machine.stamp), soon())
    assert left(world) == {}


def test_what_cannot_be_replicated_is_said_in_words(world: PrismWorld) -> None:
    connector, machine = world.connector(), stand(world, sizes=(5,))
    with world.lab as lab:
        machine.marks["volume_groups"] = [lab.new_id()]
    with pytest.raises(Unsupported, match=r"Disk scsi-1 of 'source' is a volume group.*Choose the other disks alone"):
        take(connector, machine)
    assert read(take(connector, machine, disks=["scsi-0"])) == contents(world, machine)
    with pytest.raises(Unsupported, match="has no disk to replicate"):
        take(connector, stand(world, "diskless", sizes=()))


@pytest.mark.parametrize("right", ["Create_Recovery_Point", "Create_Image"])
def test_a_missing_right_is_said(world: PrismWorld, right: str) -> None:
    machine, connector = stand(world, sizes=(5,)), world.connector()
    world.lab.forbidden = {right}
    with pytest.raises(Unsupported, match="role does not allow it"):
        take(connector, machine)
    world.lab.forbidden = set()
    connector.release(MachineRef(machine.id), (), soon())
    assert left(world) == {}


def test_a_stand_in_is_in_no_listing_and_is_never_taken_for_its_machine(world: PrismWorld) -> None:
    """It bears all that the machine bears, the stamp in its description too."""
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world)))
    before = listing(world.connector())
    point = connector.take_point(_wish(machine.id, machine.stamp), soon())
    (name,) = left(world)["machines"]
    assert point.name != name
    now = listing(world.connector())
    assert {one.id for one in now.machines} == {one.id for one in before.machines}
    assert {one.id for one in now.templates} == {one.id for one in before.templates}
    world.remove(machine.id)
    do(world, connector, DeleteMachine(key=new_key(), machine=MachineRef("", machine.stamp)))
    assert left(world)["machines"] == [name]
