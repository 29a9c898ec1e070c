"""Snapshots of real guests, and the trap of mixing them with checkpoints."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    DeleteSnapshot,
    GuestSeed,
    MachineRef,
    RecycleMachine,
    RevertSnapshot,
    SnapshotTaken,
    TakeSnapshot,
)
from connectors.errors import Conflict, NotFound, Unsupported
from tests.connectors.contract import do, listing, made, new_key, ref, refuse
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.guests import guest_file_exists, run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost


@pytest.fixture
def booted(real: LibvirtWorld) -> MachineRef:
    """With a seed, whose raw read-only disk must not stand in the way of snapshots."""
    order = CloneMachine(key=new_key(), name="snap", template=real.template, seed=GuestSeed("snap"))
    machine = ref(real, made(real, real.connector(), order))
    wait_for_agent(real.conn.lookupByUUIDString(machine.id))
    return machine


def domain_of(real: LibvirtWorld, machine: MachineRef) -> Any:
    return real.conn.lookupByUUIDString(machine.id)


def test_a_revert_brings_back_the_moment_of_the_snapshot(real: LibvirtWorld, booted: MachineRef) -> None:
    connector, domain = real.connector(), domain_of(real, booted)
    run_in_guest(domain, "/bin/touch", "/mnt/before")
    taken = TakeSnapshot(key=new_key(), machine=booted, name="good state")
    assert do(real, connector, taken).result == SnapshotTaken("good state")
    assert do(real, connector, taken).result == SnapshotTaken("good state")
    assert len(domain.listAllSnapshots()) == 1, "the same key twice takes one snapshot"
    run_in_guest(domain, "/bin/touch", "/mnt/after")
    revert = RevertSnapshot(key=new_key(), machine=booted, snapshot="good state")
    do(real, connector, revert)
    wait_for_agent(domain)
    assert guest_file_exists(domain, "/mnt/before")
    assert not guest_file_exists(domain, "/mnt/after")
    assert real.machines()[booted.id] == booted.stamp
    run_in_guest(domain, "/bin/touch", "/mnt/later")
    do(real, real.connector(), revert)
    assert guest_file_exists(domain, "/mnt/later"), "a second attempt does not throw away what happened since"


def test_a_snapshot_is_deleted_once_and_twice(real: LibvirtWorld, booted: MachineRef) -> None:
    connector = real.connector()
    do(real, connector, TakeSnapshot(key=new_key(), machine=booted, name="s"))
    for _ in range(2):
        do(real, connector, DeleteSnapshot(key=new_key(), machine=booted, snapshot="s"))
    assert not domain_of(real, booted).listAllSnapshots()
    error = refuse(real, connector, RevertSnapshot(key=new_key(), machine=booted, snapshot="s"))
    assert isinstance(error, NotFound)


def test_a_snapshots_name_is_taken_only_once(real: LibvirtWorld, booted: MachineRef) -> None:
    connector = real.connector()
    do(real, connector, TakeSnapshot(key=new_key(), machine=booted, name="s"))
    assert isinstance(refuse(real, connector, TakeSnapshot(key=new_key(), machine=booted, name="s")), Conflict)
    assert isinstance(refuse(real, connector, TakeSnapshot(key=new_key(), machine=booted, name="a/b")), Unsupported)


def test_a_machine_with_snapshots_is_deleted_with_them(real: LibvirtWorld, booted: MachineRef) -> None:
    connector = real.connector()
    do(real, connector, TakeSnapshot(key=new_key(), machine=booted, name="s"))
    do(real, connector, DeleteMachine(key=new_key(), machine=booted))
    assert not real.machines()
    assert not real.litter()


def replicate(domain: Any, host: KvmHost) -> None:
    """Leave a checkpoint, as incremental replication does."""
    host.run("mkdir", "-p", "/run/libvirt/backup")
    scratch = f"/var/lib/libvirt/images/scratch-{uuid.uuid4().hex}"
    domain.backupBegin(
        "<domainbackup mode='pull'><server transport='unix' socket='/run/libvirt/backup/s'/><disks>"
        f"<disk name='vda' backup='yes' type='file'><scratch file='{scratch}'/></disk>"
        "<disk name='vdb' backup='no'/></disks></domainbackup>",
        "<domaincheckpoint><name>cp1</name><disks><disk name='vda' checkpoint='bitmap'/>"
        "<disk name='vdb' checkpoint='no'/></disks></domaincheckpoint>",
        0,
    )
    domain.abortJob()
    (host.images / Path(scratch).name).unlink(missing_ok=True)
    assert domain.listAllCheckpoints()


@pytest.fixture
def replicated(real: LibvirtWorld, booted: MachineRef, host: KvmHost) -> MachineRef:
    """The machine with a checkpoint."""
    replicate(domain_of(real, booted), host)
    return booted


def test_a_replicated_machine_is_neither_snapshotted_nor_reverted_and_stays_on(
    real: LibvirtWorld, booted: MachineRef, host: KvmHost
) -> None:
    """libvirt takes a checkpoint beside a snapshot; the revert would fail then and leave the machine off."""
    connector, domain = real.connector(), domain_of(real, booted)
    do(real, connector, TakeSnapshot(key=new_key(), machine=booted, name="old"))
    replicate(domain, host)
    run_in_guest(domain, "/bin/touch", "/mnt/after")
    for order in (
        TakeSnapshot(key=new_key(), machine=booted, name="new"),
        RevertSnapshot(key=new_key(), machine=booted, snapshot="old"),
    ):
        error = refuse(real, connector, order)
        assert type(error) is Unsupported, error
        assert "checkpoints" in error.message
        assert domain.isActive()
    assert guest_file_exists(domain, "/mnt/after"), "the guest goes on as if nothing had been asked"
    assert [snapshot.getName() for snapshot in domain.listAllSnapshots()] == ["old"]
    listed = {found.id: found for found in listing(connector).machines}[booted.id]
    assert set(listed.cannot) == {"TakeSnapshot", "RevertSnapshot"}


def test_a_replicated_machine_is_deleted_with_its_checkpoints(real: LibvirtWorld, replicated: MachineRef) -> None:
    """libvirt refuses to undefine a machine that has some, unless told to forget them."""
    do(real, real.connector(), DeleteMachine(key=new_key(), machine=replicated))
    assert not real.machines()
    assert not real.litter()


def test_a_replicated_machine_is_recycled_without_its_checkpoints(real: LibvirtWorld, replicated: MachineRef) -> None:
    connector = real.connector()
    order = RecycleMachine(key=new_key(), machine=replicated, name="snap", template=real.template, power_on=False)
    do(real, connector, order)
    assert not domain_of(real, replicated).listAllCheckpoints()
    do(real, connector, DeleteMachine(key=new_key(), machine=replicated))
    assert not real.litter()


def test_bitmaps_can_be_stored_in_an_overlay_we_made(real: LibvirtWorld, replicated: MachineRef, host: KvmHost) -> None:
    """ "Cannot store dirty bitmaps in qcow2 v2 files" is what compat 0.10 would answer."""
    domain_of(real, replicated).destroy()
    disk = next(path for path in real.litter() if path.endswith("vda.qcow2"))
    told = subprocess.run(
        ["qemu-img", "info", "-U", host.images / Path(disk).name], capture_output=True, text=True, check=True
    )
    assert "bitmaps" in told.stdout
