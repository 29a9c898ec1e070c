"""A host that stands alone: no CloneVM, files in a folder of their own, parents that are never touched."""

from __future__ import annotations

import dataclasses
import time

import pytest

from connectors.base import CloneMachine, DeleteMachine, GuestSeed, MachineRef, Stage, Stamp
from connectors.errors import Conflict, NotFound, Unreachable, Unsupported
from connectors.esxi import names
from tests.connectors.contract import OURS, again, clone, do, finish, made, new_key, ref, refuse, submit
from tests.connectors.esxi.worlds import EsxiWorld


def base_disks(esxi: EsxiWorld) -> dict[str, int]:
    """The template's disks and their sizes: they must be there after everything."""
    with esxi.world:
        template = esxi.world.machines[esxi.template]
        ids = {*template.disks, *(disk for point in template.snapshots.values() for disk in point.disks)}
        return {disk: esxi.world.disks[disk].capacity_mib for disk in ids}


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "full"])
def test_all_files_lie_in_a_folder_of_their_own(linked: bool, esxi: EsxiWorld) -> None:
    order = clone(esxi, linked=linked)
    machine = made(esxi, esxi.connector(), order)
    folder = f"[fast] deskyard-{names.uuid_of(order.key)}/"
    assert all(disk.startswith(folder) for disk in machine.disks)
    assert esxi.machine(machine.machine_id).marks["vmx"].startswith(folder)


def test_deleting_a_linked_clone_leaves_its_parent(esxi: EsxiWorld) -> None:
    connector = esxi.connector()
    one, other = made(esxi, connector, clone(esxi)), made(esxi, connector, clone(esxi))
    before = base_disks(esxi)
    do(esxi, connector, DeleteMachine(key=new_key(), machine=ref(esxi, one)))
    assert base_disks(esxi) == before
    assert list(esxi.machines()) == [other.machine_id]
    assert not esxi.sent("Destroy_Task"), "it would follow the link"


def test_a_copy_that_nobody_knows_of_any_more_is_begun_anew(esxi: EsxiWorld) -> None:
    """The answer with the task's id was lost: half a copy cannot be told from a whole one."""
    order = clone(esxi, linked=False)
    esxi.faults.add("drop_after", "^CopyVirtualDisk_Task$")
    with pytest.raises(Unreachable):
        finish(esxi, esxi.connector(), order)
    machine = made(esxi, esxi.connector(), again(order))
    assert list(esxi.machines()) == [machine.machine_id]
    assert len(esxi.sent("CopyVirtualDisk_Task")) == 2
    do(esxi, esxi.connector(), DeleteMachine(key=new_key(), machine=ref(esxi, machine)))
    assert not esxi.litter()


def test_a_copy_that_is_still_running_is_waited_for(esxi: EsxiWorld) -> None:
    order = clone(esxi, linked=False)
    esxi.clock.speed = 0.0
    outcome = submit(esxi.connector(), [order])[order.key]
    assert outcome.step == "Copying the disk"
    connector = esxi.connector()
    second = submit(connector, [again(order)])[order.key]
    assert second.step == "Waiting for an earlier attempt"
    esxi.clock.speed = 60.0
    assert finish(esxi, connector, again(order), second).stage is Stage.DONE
    assert len(esxi.machines()) == 1


def test_the_rest_of_a_clone_of_unknown_outcome_is_found_by_its_folder(esxi: EsxiWorld) -> None:
    order = clone(esxi, linked=False)
    esxi.faults.add("drop_after", "^CopyVirtualDisk_Task$")
    with pytest.raises(Unreachable):
        finish(esxi, esxi.connector(), order)
    esxi.clock.advance(60)
    assert esxi.litter()
    rest = MachineRef("", Stamp(OURS, order.key))
    do(esxi, esxi.connector(), DeleteMachine(key=new_key(), machine=rest))
    assert not esxi.litter()


def test_a_folder_that_another_machine_uses_is_let_be(esxi: EsxiWorld) -> None:
    """Somebody registered the machine anew: its uuid is another one, its files are the same."""
    connector = esxi.connector()
    machine = made(esxi, connector, clone(esxi))
    gone = ref(esxi, machine)
    with esxi.world:
        there = esxi.world.machines.pop(machine.machine_id)
        there.id = esxi.world.new_id()
        esxi.world.machines[there.id] = there
    error = refuse(esxi, connector, DeleteMachine(key=new_key(), machine=gone))
    assert isinstance(error, Conflict)
    assert list(esxi.machines()) == [there.id]
    with esxi.world:
        assert all(disk in esxi.world.disks for disk in there.disks)


def test_a_machine_on_another_datastore_is_deleted_there(esxi: EsxiWorld) -> None:
    connector = esxi.connector()
    order = dataclasses.replace(clone(esxi, linked=False), storage="datastore-12")
    machine = made(esxi, connector, order)
    assert machine.disks[0].startswith("[slow] ")
    do(esxi, connector, DeleteMachine(key=new_key(), machine=ref(esxi, machine)))
    assert not esxi.litter()


def test_a_machine_of_others_that_hangs_from_a_foreign_disk_is_not_deleted(esxi: EsxiWorld) -> None:
    with esxi.world:
        point = esxi.world.take_snapshot(esxi.template, "x")
        theirs = esxi.world.create("theirs")
        theirs.disks = [esxi.world.copy_disk(point.disks[0], linked=True).id]
    error = refuse(esxi, esxi.connector(), DeleteMachine(key=new_key(), machine=MachineRef(theirs.id)))
    assert isinstance(error, Unsupported)
    assert theirs.id in esxi.machines()


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"host": "host-99"}, NotFound, "stands alone"),
        ({"storage": "datastore-99"}, NotFound, "datastore-99"),
        ({"networks": ("network-99",)}, NotFound, "network-99"),
        ({"seed": GuestSeed("d", answer_file="<unattend>Secret1</unattend>")}, Unsupported, "vCenter"),
    ],
)
def test_what_a_host_alone_has_not_is_told(
    change: dict[str, object], kind: type[Exception], word: str, esxi: EsxiWorld
) -> None:
    order: CloneMachine = dataclasses.replace(clone(esxi), **change)  # type: ignore[arg-type]
    error = refuse(esxi, esxi.connector(), order)
    assert isinstance(error, kind)
    assert word in error.message
    assert "Secret1" not in error.message
    assert not esxi.machines()
    assert not esxi.litter()


def test_a_copied_machine_is_like_its_template(esxi: EsxiWorld) -> None:
    with esxi.world:
        esxi.world.machines[esxi.template].marks |= {"guestId": "windows11_64Guest", "version": "vmx-20"}
    machine = made(esxi, esxi.connector(), dataclasses.replace(clone(esxi, linked=False), vcpus=3))
    there = esxi.machine(machine.machine_id)
    assert (there.vcpus, there.memory_mib) == (3, 2048)
    assert (there.marks["guestId"], there.marks["version"], there.marks["firmware"]) == (
        "windows11_64Guest", "vmx-20", "efi",
    )  # fmt: skip
    assert len(there.nics) == 1


def test_two_disks_are_copied_one_after_the_other(esxi: EsxiWorld) -> None:
    with esxi.world:
        template = esxi.world.machines[esxi.template]
        template.disks.append(esxi.world.new_disk("datastore-11", 512).id)
        esxi._kept |= set(template.disks)
    machine = made(esxi, esxi.connector(), clone(esxi, linked=False))
    assert [disk.rpartition("/")[2] for disk in machine.disks] == ["disk-0.vmdk", "disk-1.vmdk"]
    assert len(esxi.sent("CopyVirtualDisk_Task")) == 2


def test_many_clones_at_once_do_not_get_in_each_others_way(esxi: EsxiWorld) -> None:
    connector = esxi.connector()
    orders = [clone(esxi, linked=number % 2 == 0) for number in range(6)]
    first = submit(connector, orders)
    began = time.monotonic()
    for order in orders:
        assert finish(esxi, connector, order, first[order.key]).stage is Stage.DONE
    assert time.monotonic() - began < 20
    assert len(esxi.machines()) == 6
