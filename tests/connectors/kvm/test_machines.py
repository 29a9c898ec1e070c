"""Machines made, recycled and deleted on a real host; what a kill, a full storage or a stranger in between does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    GuestSeed,
    MachineMade,
    MachineRef,
    Order,
    PowerAction,
    Reconfigure,
    RecycleMachine,
    RevertSnapshot,
    SetPower,
    Stage,
    Stamp,
    TakeSnapshot,
)
from connectors.errors import CapacityExhausted, Conflict, NotFound, Unsupported
from tests.connectors.contract import OURS, clone, do, finish, made, new_key, ref, refuse, soon, submit
from tests.connectors.kvm import dies
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.guests import guest_file_exists, run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost
from tests.support.prerequisites import REPOSITORY


def golden(host: KvmHost) -> Path:
    return next(host.images.glob("tiny-*.qcow2"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def unchanged_golden(host: KvmHost) -> Iterator[None]:
    """The golden image is bit for bit the same after the test."""
    before = digest(golden(host))
    yield
    assert digest(golden(host)) == before, "the golden image was written to"


def test_no_order_ever_writes_to_the_golden_image(real: LibvirtWorld, host: KvmHost, unchanged_golden: None) -> None:
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real, power_on=True)))
    domain = real.conn.lookupByUUIDString(machine.id)
    wait_for_agent(domain)
    run_in_guest(domain, "/bin/sh", "-c", "echo secret > /mnt/diary; sync")
    do(real, connector, TakeSnapshot(key=new_key(), machine=machine, name="one"))
    do(real, connector, RevertSnapshot(key=new_key(), machine=machine, snapshot="one"))
    do(real, connector, RecycleMachine(key=new_key(), machine=machine, name="fresh", template=real.template))
    do(real, connector, DeleteMachine(key=new_key(), machine=machine))


def test_an_overlay_is_as_large_as_its_base_and_can_hold_bitmaps(real: LibvirtWorld, host: KvmHost) -> None:
    machine = made(real, real.connector(), clone(real))
    info = host.image_info(machine.disks[0])
    assert info["virtual-size"] == 64 * 2**20
    assert info["backing-filename-format"] == "qcow2"
    assert Path(info["backing-filename"]).name == golden(host).name
    assert info["format-specific"]["data"]["compat"] == "1.1"


def test_a_full_clone_stands_alone(real: LibvirtWorld, host: KvmHost, unchanged_golden: None) -> None:
    machine = made(real, real.connector(), clone(real, linked=False))
    info = host.image_info(machine.disks[0])
    assert "backing-filename" not in info
    assert info["format-specific"]["data"]["compat"] == "1.1"
    copy = host.images / Path(machine.disks[0]).name
    subprocess.run(["qemu-img", "compare", golden(host), copy], check=True, capture_output=True)
    assert not real.conn.listAllSecrets(), "the mark of the copy is gone"


def test_a_guest_is_told_its_name_and_a_recycled_one_has_lost_its_files(real: LibvirtWorld) -> None:
    connector = real.connector()
    order = CloneMachine(key=new_key(), name="seeded", template=real.template, seed=GuestSeed("desk-7"), memory_mib=144)
    machine = ref(real, made(real, connector, order))
    domain = real.conn.lookupByUUIDString(machine.id)
    wait_for_agent(domain)
    assert run_in_guest(domain, "/bin/hostname").strip() == "desk-7"
    run_in_guest(domain, "/bin/sh", "-c", "echo secret > /mnt/diary; sync")
    assert guest_file_exists(domain, "/mnt/diary")
    again = RecycleMachine(
        key=new_key(), machine=machine, name="desk-8", template=real.template, seed=GuestSeed("desk-8")
    )
    recycled = made(real, connector, again)
    assert recycled.machine_id == machine.id
    assert recycled.stamp == machine.stamp
    assert real.names()[machine.id] == "desk-8"
    wait_for_agent(domain)
    assert not guest_file_exists(domain, "/mnt/diary")
    assert run_in_guest(domain, "/bin/hostname").strip() == "desk-8"


def test_saved_memory_and_snapshots_of_the_last_user_go_when_a_machine_is_recycled(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real, power_on=True)))
    do(real, connector, TakeSnapshot(key=new_key(), machine=machine, name="private"))
    domain = real.conn.lookupByUUIDString(machine.id)
    domain.managedSave()
    order = RecycleMachine(key=new_key(), machine=machine, name="n", template=real.template, power_on=False)
    do(real, connector, order)
    assert not domain.hasManagedSaveImage()
    assert not domain.listAllSnapshots()


def test_a_machine_is_not_recycled_under_the_name_of_another(real: LibvirtWorld) -> None:
    """libvirt itself would refuse only the rename, when the user's disk is gone already."""
    connector = real.connector()
    order = clone(real, power_on=True)
    machine, other = made(real, connector, order), made(real, connector, clone(real))
    litter = real.litter()
    recycle = RecycleMachine(
        key=new_key(), machine=ref(real, machine), name=other.name, template=real.template, power_on=False
    )
    error = refuse(real, connector, recycle)
    assert isinstance(error, Conflict)
    assert repr(other.name) in error.message
    assert real.names() == {machine.machine_id: order.name, other.machine_id: other.name}
    assert real.litter() == litter, "both keep their disks"
    assert real.conn.lookupByUUIDString(machine.machine_id).isActive(), "nothing was done to the machine"


def test_another_installation_on_the_same_host_is_left_alone(real: LibvirtWorld) -> None:
    theirs = made(real, real.connector("somebody-else"), clone(real))
    stamp = real.machines()[theirs.machine_id]
    assert stamp is not None
    for wrong in (None, Stamp(OURS, stamp.key)):
        order = DeleteMachine(key=new_key(), machine=MachineRef(theirs.machine_id, wrong))
        assert isinstance(refuse(real, real.connector(), order), Conflict)
    assert theirs.machine_id in real.machines()


# --- what must never be deleted --------------------------------------------------------------------------------------


def test_a_disk_that_another_overlay_hangs_from_is_not_deleted(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = made(real, connector, clone(real, power_on=True))
    pool = real.conn.storagePoolLookupByName("default")
    overlay = pool.createXML(
        "<volume><name>hanging.qcow2</name><capacity unit='MiB'>64</capacity><target><format type='qcow2'/></target>"
        f"<backingStore><path>{machine.disks[0]}</path><format type='qcow2'/></backingStore></volume>"
    )
    try:
        error = refuse(real, connector, DeleteMachine(key=new_key(), machine=ref(real, machine)))
        assert isinstance(error, Unsupported)
        assert "hanging.qcow2" in error.message
        assert real.conn.lookupByUUIDString(machine.machine_id).isActive(), "nothing was done to the machine"
        assert machine.disks[0] in real.litter()
    finally:
        overlay.delete()


def test_a_disk_that_another_machine_uses_is_not_deleted(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = made(real, connector, clone(real))
    definition = etree.fromstring(real.conn.lookupByUUIDString(machine.machine_id).XMLDesc())
    _remove(definition, "uuid", "metadata", "devices/interface/mac")
    _child(definition, "name").text = "second user of the disk"
    other = real.conn.defineXML(etree.tostring(definition, encoding="unicode"))
    error = refuse(real, connector, DeleteMachine(key=new_key(), machine=ref(real, machine)))
    assert isinstance(error, Unsupported)
    assert other.UUIDString() in error.message
    assert machine.disks[0] in real.litter()


def test_a_template_is_neither_deleted_nor_recycled_nor_switched_on(real: LibvirtWorld, unchanged_golden: None) -> None:
    connector = real.connector()
    made(real, connector, clone(real))
    template = MachineRef(real.template, None)
    for order in (
        DeleteMachine(key=new_key(), machine=template),
        RecycleMachine(key=new_key(), machine=template, name="tiny", template=real.template),
        SetPower(key=new_key(), machine=template, action=PowerAction.ON),
    ):
        assert isinstance(refuse(real, connector, order), Conflict)
    assert not real.conn.lookupByUUIDString(real.template).isActive()


def test_a_desktop_is_no_template(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = made(real, connector, clone(real))
    order = CloneMachine(key=new_key(), name="child", template=machine.machine_id)
    assert isinstance(refuse(real, connector, order), Unsupported)


def test_a_template_that_is_on_is_not_cloned(real: LibvirtWorld) -> None:
    domain = real.conn.lookupByUUIDString(real.template)
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    try:
        assert isinstance(refuse(real, real.connector(), clone(real)), Conflict)
    finally:
        domain.destroy()
    assert not real.litter()


def test_disks_in_a_stopped_pool_are_not_forgotten(real: LibvirtWorld, host: KvmHost) -> None:
    connector = real.connector()
    order = CloneMachine(
        key=new_key(), name="elsewhere", template=real.template, storage=host.small_pool_name, power_on=False
    )
    machine = ref(real, made(real, connector, order))
    pool = real.conn.storagePoolLookupByName(host.small_pool_name)
    pool.destroy()
    try:
        error = refuse(real, connector, DeleteMachine(key=new_key(), machine=machine))
        assert isinstance(error, Conflict)
        assert machine.id in real.machines()
    finally:
        pool.create()
    do(real, connector, DeleteMachine(key=new_key(), machine=machine))
    assert not real.litter()


# --- failures in the middle ------------------------------------------------------------------------------------------


def test_a_full_storage_is_said_and_nothing_is_left(real: LibvirtWorld, host: KvmHost) -> None:
    pool = real.conn.storagePoolLookupByName(host.small_pool_name)
    host.run("sh", "-c", "dd if=/dev/zero of=/var/lib/libvirt/small/filling bs=64k || true")
    pool.refresh()
    try:
        for linked in (True, False):
            order = CloneMachine(
                key=new_key(), name="no room", template=real.template, storage=pool.UUIDString(), linked=linked
            )
            error = refuse(real, real.connector(), order)
            assert isinstance(error, CapacityExhausted), error.platform_words
    finally:
        host.run("rm", "/var/lib/libvirt/small/filling")
        pool.refresh()
    assert not real.machines()
    assert not real.litter()
    assert not real.conn.listAllSecrets()


def test_a_machine_that_cannot_start_is_not_left_behind(real: LibvirtWorld) -> None:
    order = CloneMachine(key=new_key(), name="too large", template=real.template, memory_mib=2**31)
    error = refuse(real, real.connector(), order)
    assert error.platform_words, "libvirt's own words are kept"
    assert not real.machines()
    assert not real.litter()


def test_a_failed_recycle_leaves_the_machine_and_no_disk_made_in_vain(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = made(real, connector, clone(real))
    order = RecycleMachine(key=new_key(), machine=ref(real, machine), name="n", template=new_key())
    assert isinstance(refuse(real, connector, order), NotFound)
    assert real.litter() == set(machine.disks)


KINDS = [CloneMachine, RecycleMachine, DeleteMachine]


@pytest.mark.parametrize(("kind", "boundary"), list(zip(KINDS, (4, 5, 4), strict=True)))
def test_a_kill_in_the_middle_is_mended_by_the_next_attempt(
    kind: type[Order], boundary: int, real: LibvirtWorld, tmp_path: Path, unchanged_golden: None
) -> None:
    assert _is_mended(kind, boundary, real, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_before_any_step_is_mended_by_the_next_attempt(
    kind: type[Order], real: LibvirtWorld, tmp_path: Path, unchanged_golden: None
) -> None:
    boundary = 0
    while _is_mended(kind, boundary, real, tmp_path):
        real.wipe()
        boundary += 1
    assert boundary >= 4, "the order has that many steps at least"


def _is_mended(kind: type[Order], boundary: int, real: LibvirtWorld, tmp_path: Path) -> bool:
    """Kill before that step, send the order again, and look; False if the order has no such step."""
    order, connector = _order_to_be_killed(kind, real), real.connector()
    status = _run_and_kill(real, order, boundary, tmp_path)
    if status == 0:
        return False
    assert status == -9
    result = do(real, connector, order).result
    if isinstance(order, DeleteMachine):
        assert not real.machines(), f"killed before step {boundary}"
        assert not real.litter(), f"killed before step {boundary}"
        return True
    assert isinstance(result, MachineMade)
    assert list(real.machines()) == [result.machine_id], f"killed before step {boundary}"
    seed = {path for path in real.litter() if path.endswith(".iso")}
    assert real.litter() - seed == set(result.disks), f"killed before step {boundary}"
    return True


def _order_to_be_killed(kind: type[Order], real: LibvirtWorld) -> Order:
    if kind is CloneMachine:
        return CloneMachine(key=new_key(), name="killed", template=real.template, seed=GuestSeed("k"))
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real, power_on=True)))
    connector.close()
    if kind is DeleteMachine:
        return DeleteMachine(key=new_key(), machine=machine)
    return RecycleMachine(key=new_key(), machine=machine, name="renamed", template=real.template)


def _run_and_kill(real: LibvirtWorld, order: Order, boundary: int, tmp_path: Path) -> int:
    return subprocess.run(_asking(real, order, boundary, tmp_path), cwd=REPOSITORY, check=False).returncode


NEVER = 10_000
"""A boundary that no order has."""


def _asking(real: LibvirtWorld, order: Order, boundary: int, tmp_path: Path) -> list[str]:
    """The command of a process that sends the order and dies before that step."""
    file = tmp_path / "order.json"
    file.write_text(dies.written(real.settings, OURS, order))
    return [sys.executable, "-m", "tests.connectors.kvm.dies", str(file), str(boundary)]


def _child(root: etree._Element, path: str) -> etree._Element:
    found = root.find(path)
    assert found is not None
    return found


def _remove(root: etree._Element, *paths: str) -> None:
    for path in paths:
        element = _child(root, path)
        parent = element.getparent()
        assert parent is not None
        parent.remove(element)


@pytest.fixture
def heavy_template(real: LibvirtWorld, host: KvmHost) -> Iterator[str]:
    """A template whose disk takes a second or two to copy."""
    disk = host.images / "tiny-heavy.raw"
    with Path("/dev/urandom").open("rb") as noise, disk.open("wb") as file:
        for _ in range(600):
            file.write(noise.read(2**20))
    real.conn.storagePoolLookupByName("default").refresh()
    definition = etree.fromstring(real.conn.lookupByUUIDString(real.template).XMLDesc())
    _child(definition, "name").text = "heavy"
    _remove(definition, "uuid", "devices/interface/mac")
    _child(definition, "devices/disk/source").set("file", f"/var/lib/libvirt/images/{disk.name}")
    _child(definition, "devices/disk/driver").set("type", "raw")
    domain = real.conn.defineXML(etree.tostring(definition, encoding="unicode"))
    yield domain.UUIDString()
    real.conn.lookupByUUIDString(domain.UUIDString()).undefine()
    disk.unlink()
    real.conn.storagePoolLookupByName("default").refresh()


@contextmanager
def _copy_standing_still(host: KvmHost, order: CloneMachine) -> Iterator[Path]:
    """The volume of a copy that has begun and, however fast the disk is, is not whole within the block."""
    until = time.monotonic() + 20
    try:
        while (volume := _copy_stopped(host, order)) is None:
            assert time.monotonic() < until, "no copy was seen under way"
            time.sleep(0.01)
        yield volume
    finally:
        host.thaw_copying()


def _copy_stopped(host: KvmHost, order: CloneMachine) -> Path | None:
    if not host.freeze_copying():
        return None
    for found in host.images.glob(f"deskyard-{order.key}-*"):
        if found.stat().st_size > 2**20:
            return found
    host.thaw_copying()
    return None


def test_a_copy_goes_on_when_the_one_who_asked_for_it_is_killed(
    real: LibvirtWorld, host: KvmHost, heavy_template: str, tmp_path: Path
) -> None:
    order = CloneMachine(key=new_key(), name="copy", template=heavy_template, linked=False, power_on=False)
    connector = real.connector()
    with subprocess.Popen(_asking(real, order, NEVER, tmp_path), cwd=REPOSITORY) as asker:
        try:
            with _copy_standing_still(host, order) as volume, volume.open("rb") as begun:
                asker.kill()
                assert asker.wait() == -9, "it was waiting for the copy"
                first = submit(connector, [order])[order.key]
                assert first.stage is Stage.RUNNING, "half a copy is none"
                host.thaw_copying()
                outcome = finish(real, connector, order, first)
                assert isinstance(outcome.result, MachineMade), outcome.error
                assert os.fstat(begun.fileno()).st_nlink == 1, "the copy under way was used, not made again"
        finally:
            asker.kill()
    _compare(host, volume)


def test_a_copy_torn_by_the_daemons_death_is_made_again(real: LibvirtWorld, host: KvmHost, heavy_template: str) -> None:
    order = CloneMachine(key=new_key(), name="copy", template=heavy_template, linked=False, power_on=False)
    connector = real.connector()
    with ThreadPoolExecutor(1) as thread:
        submitted = thread.submit(submit, connector, [order])
        with _copy_standing_still(host, order) as volume, volume.open("rb") as begun:
            assert submitted.result()[order.key].stage is Stage.RUNNING
            host.kill_libvirtd()
            host.start_libvirtd()
            host.thaw_copying()
            real.reconnect()
            result = do(real, real.connector(), order).result
            assert isinstance(result, MachineMade)
            assert os.fstat(begun.fileno()).st_nlink == 0, "nobody knows whether the first copy is whole"
    _compare(host, volume)


def _compare(host: KvmHost, volume: Path) -> None:
    command = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(host.images / "tiny-heavy.raw"), str(volume)]
    subprocess.run(command, check=True, capture_output=True)


# --- size ------------------------------------------------------------------------------------------------------------


def test_a_machine_is_resized_while_off_and_not_while_on(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real)))
    do(real, connector, Reconfigure(key=new_key(), machine=machine, vcpus=2, memory_mib=160))
    listed = next(found for found in connector.inventory(None, soon()).machines if found.id == machine.id)
    assert (listed.vcpus, listed.memory_mib) == (2, 160)
    do(real, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))
    error = refuse(real, connector, Reconfigure(key=new_key(), machine=machine, vcpus=1))
    assert isinstance(error, Unsupported)
    do(real, connector, Reconfigure(key=new_key(), machine=machine, vcpus=2, memory_mib=160))


def test_a_resized_machine_still_lets_nobody_look_at_its_screen(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real)))
    do(real, connector, Reconfigure(key=new_key(), machine=machine, vcpus=2))
    xml = real.conn.lookupByUUIDString(machine.id).XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
    assert "passwd=" in xml


# --- networks --------------------------------------------------------------------------------------------------------


def test_machines_get_the_networks_they_are_ordered_with(real: LibvirtWorld, host: KvmHost) -> None:
    network = real.conn.networkLookupByName(host.network_name).UUIDString()
    order = CloneMachine(
        key=new_key(), name="two nics", template=real.template, networks=(network, network), power_on=False
    )
    machine = made(real, real.connector(), order)
    definition = etree.fromstring(real.conn.lookupByUUIDString(machine.machine_id).XMLDesc())
    assert len(definition.findall("devices/interface")) == 2
    unknown = CloneMachine(key=new_key(), name="nowhere", template=real.template, networks=(new_key(),))
    assert isinstance(refuse(real, real.connector(), unknown), NotFound)
    assert real.litter() == set(machine.disks)


def test_twenty_clones_at_once_are_twenty_machines(real: LibvirtWorld) -> None:
    connector, orders = real.connector(), [clone(real) for _ in range(20)]
    outcomes = submit(connector, orders)
    results = [finish(real, connector, order, outcomes[order.key]).result for order in orders]
    assert len({made.machine_id for made in results if isinstance(made, MachineMade)}) == 20
    assert len(real.machines()) == 20
