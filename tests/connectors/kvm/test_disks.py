"""Points of real running guests, read over SSH: what is in them, and what is left on the host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors.base import CloneMachine, MachineRef, Stamp, TakeSnapshot
from connectors.errors import Busy, Conflict, NotFound, Unsupported
from connectors.kvm import disks
from connectors.kvm.connector import KvmConnector
from connectors.replication import Bookmark, Consistency, Point, PointWish, Replicates
from disks.base import Source
from disks.copying import copy
from disks.raw import RawSink
from disks.vault.folder import FolderStore
from disks.vault.points import Drive, Origin, RecoveryPoint
from disks.vault.vault import Vault
from tests.connectors.contract import OURS, do, listing, made, new_key, ref, soon
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.guests import run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost
from tests.support.stack import wait_until


@pytest.fixture
def machine(by_ssh: LibvirtWorld) -> MachineRef:
    """A guest that answers."""
    order = CloneMachine(key=new_key(), name="replicated", template=by_ssh.template)
    found = ref(by_ssh, made(by_ssh, by_ssh.connector(), order))
    wait_for_agent(by_ssh.conn.lookupByUUIDString(found.id))
    return found


def domain_of(world: LibvirtWorld, machine: MachineRef) -> Any:
    return world.conn.lookupByUUIDString(machine.id)


def take(connector: KvmConnector, machine: MachineRef, since: Bookmark | None = None, **wish: Any) -> Point:
    return connector.take_point(PointWish(machine=machine, key=new_key(), since=since, **wish), soon())


def left_on(host: KvmHost, domain: Any) -> tuple[list[str], list[str]]:
    """Checkpoints and scratch files."""
    scratch = [file.name for file in host.images.iterdir() if "scratch" in file.name]
    return [checkpoint.getName() for checkpoint in domain.listAllCheckpoints()], scratch


def disk_now(host: KvmHost, domain: Any, to: Path) -> Path:
    """The paused guest's disk with all below it, by qemu-img alone."""
    path = Path(domain.XMLDesc(0).split("<source file='")[1].split("'")[0])
    overlay = to / "overlay.qcow2"
    shutil.copy(host.images / path.name, overlay)
    golden = Path(host.image_info(str(path))["full-backing-filename"]).name
    qemu_img("rebase", "-u", "-F", "qcow2", "-b", host.images / golden, overlay)
    return overlay


def qemu_img(*arguments: str | Path) -> None:
    done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def saved(source: Source, to: Path) -> Path:
    sink = RawSink(to, source.size)
    copy(source, sink)
    sink.commit()
    source.close()
    return to


def test_a_point_of_a_paused_guest_is_its_disk_byte_for_byte(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef, tmp_path: Path
) -> None:
    connector, domain = by_ssh.connector(), domain_of(by_ssh, machine)
    run_in_guest(domain, "/bin/sh", "-c", "dd if=/dev/urandom of=/mnt/noise bs=64k count=20 && sync")
    domain.suspend()
    point = take(connector, machine)
    copied = saved(point.open("vda"), tmp_path / "copy.raw")
    qemu_img("compare", "-f", "qcow2", "-F", "raw", disk_now(host, domain, tmp_path), copied)
    with copied.open("r+b") as file:
        file.seek(40 << 20)
        byte = file.read(1)
        file.seek(40 << 20)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(AssertionError, match="mismatch"):
        qemu_img("compare", "-f", "qcow2", "-F", "raw", tmp_path / "overlay.qcow2", copied)
    connector.release(machine, (), soon())


def test_a_point_says_what_the_machine_is(by_ssh: LibvirtWorld, machine: MachineRef) -> None:
    connector = by_ssh.connector()
    assert isinstance(connector, Replicates)
    point = take(connector, machine)
    assert point.consistency is Consistency.GUEST
    assert point.whole == "It is the first point."
    assert point.name == "replicated"
    found = point.configuration
    assert (found.vcpus, found.firmware, found.secure_boot) == (1, "bios", False)
    assert found.disks == (Drive("vda", "virtio", 64 << 20),)
    assert [(nic.model, nic.network) for nic in found.nics] == [("virtio", "default")]
    assert found.nics[0].mac
    run_in_guest(domain_of(by_ssh, machine), "/bin/touch", "/mnt/goes-on")
    connector.release(machine, (), soon())


def test_five_points_in_a_vault_are_each_what_the_disk_was_and_cost_what_changed(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef, tmp_path: Path
) -> None:
    connector, domain = by_ssh.connector(), domain_of(by_ssh, machine)
    (tmp_path / "vault").mkdir()
    vault = Vault.create(FolderStore(tmp_path / "vault"))
    base: RecoveryPoint | None = None
    bookmark: Bookmark | None = None
    points: list[tuple[RecoveryPoint, Path]] = []
    for number in range(5):
        run_in_guest(domain, "/bin/sh", "-c", f"dd if=/dev/urandom of=/mnt/file{number} bs=64k count=8 && sync")
        domain.suspend()
        point = take(connector, machine, bookmark)
        assert (point.whole == "") == (number > 0)
        run = vault.begin(OURS, machine.id, base)
        disk = run.disk("vda", point.configuration.disks[0].size)
        source = point.open("vda")
        progress = copy(source, disk)
        source.close()
        disk.commit()
        base = run.commit(
            origin=Origin(machine.id, point.name),
            configuration=point.configuration,
            read_at=point.taken_at,
        )
        there = tmp_path / f"then-{number}"
        there.mkdir()
        points.append((base, disk_now(host, domain, there)))
        bookmark = point.bookmark
        connector.release(machine, kept(bookmark), soon())
        domain.resume()
        if number > 0:
            assert progress.moved < 8 << 20, "half a MiB was written, and what ext4 writes with it"
    for point_then, image in points:
        restored = saved(vault.open_disk(point_then, "vda"), image.parent / "restored.raw")
        qemu_img("compare", "-f", "qcow2", "-F", "raw", image, restored)
    connector.release(machine, (), soon())
    assert left_on(host, domain) == ([], [])


def kept(bookmark: Bookmark | None) -> list[Bookmark]:
    assert bookmark is not None
    return [bookmark]


def test_copies_to_two_places_do_not_disturb_each_other(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef, tmp_path: Path
) -> None:
    """Each place's bookmark is of another moment, and goes on to tell all that was written since."""
    connector, domain = by_ssh.connector(), domain_of(by_ssh, machine)
    marks: dict[str, Bookmark] = {}
    for number, place in enumerate(("here", "there", "here", "there", "there", "here")):
        run_in_guest(domain, "/bin/sh", "-c", f"dd if=/dev/urandom of=/mnt/file{number} bs=64k count=4 && sync")
        domain.suspend()
        others = [mark for name, mark in marks.items() if name != place]
        point = take(connector, machine, marks.get(place), keep=others)
        assert (point.whole == "") == (place in marks)
        brought_up_to_date(point.open("vda"), tmp_path / place)
        marks[place] = kept(point.bookmark)[0]
        connector.release(machine, list(marks.values()), soon())
        then = tmp_path / f"then-{number}"
        then.mkdir()
        qemu_img("compare", "-f", "qcow2", "-F", "raw", disk_now(host, domain, then), tmp_path / place)
        domain.resume()
    connector.release(machine, (), soon())
    assert left_on(host, domain) == ([], [])


def brought_up_to_date(source: Source, replica: Path) -> int:
    """What the source names is in the replica too; how many bytes were read for that."""
    read = 0
    with replica.open("r+b" if replica.exists() else "w+b") as file:
        file.truncate(source.size)
        for extent in source.extents():
            file.seek(extent.offset)
            file.write(bytes(extent.length) if extent.is_zero else source.read(extent.offset, extent.length))
            read += 0 if extent.is_zero else extent.length
    source.close()
    return read


def test_a_second_point_without_writes_between_names_next_to_nothing(by_ssh: LibvirtWorld, machine: MachineRef) -> None:
    connector, domain = by_ssh.connector(), domain_of(by_ssh, machine)
    run_in_guest(domain, "/bin/sync")
    domain.suspend()
    first = take(connector, machine)
    connector.release(machine, kept(first.bookmark), soon())
    source = take(connector, machine, first.bookmark).open("vda")
    assert sum(extent.length for extent in source.extents()) < source.size * 0.02
    source.close()
    connector.release(machine, (), soon())


def test_whatever_becomes_of_the_mover_releasing_leaves_nothing_but_the_mark(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef
) -> None:
    domain = domain_of(by_ssh, machine)
    first = take(by_ssh.connector(), machine)
    assert first.bookmark is not None
    by_ssh.connector().release(machine, kept(first.bookmark), soon())
    take(by_ssh.connector(), machine, first.bookmark)  # and nobody ever hears of it again
    assert left_on(host, domain)[1]
    for _ in range(2):
        by_ssh.connector().release(machine, kept(first.bookmark), soon())
        assert left_on(host, domain) == ([str(first.bookmark.data["checkpoint"])], [])
    by_ssh.connector().release(machine, (), soon())
    assert left_on(host, domain) == ([], [])
    run_in_guest(domain, "/bin/touch", "/mnt/alive")


def test_a_scratch_file_whose_job_ended_without_us_is_removed_too(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef
) -> None:
    """A mover died between the job's end and the file."""
    domain = domain_of(by_ssh, machine)
    take(by_ssh.connector(), machine)
    (scratch,) = left_on(host, domain)[1]
    domain.abortJob()
    wait_until(lambda: not disks._has_job(domain), 10, "the job has ended")
    (host.images / scratch).touch()
    by_ssh.connector().release(machine, (), soon())
    assert left_on(host, domain) == ([], [])


def test_a_point_taken_while_an_earlier_one_was_never_released_ends_that_one(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef
) -> None:
    connector = by_ssh.connector()
    take(connector, machine)
    second = take(connector, machine)
    assert len(left_on(host, domain_of(by_ssh, machine))[0]) == 1
    source = second.open("vda")
    assert len(source.read(0, 512)) == 512
    source.close()
    connector.release(machine, (), soon())


def test_a_forgotten_checkpoint_means_that_everything_is_read_and_it_says_so(
    by_ssh: LibvirtWorld, machine: MachineRef
) -> None:
    connector = by_ssh.connector()
    first = take(connector, machine)
    connector.release(machine, (), soon())
    second = take(connector, machine, first.bookmark)
    assert "does not remember the last point" in second.whole
    source = second.open("vda")
    assert sum(extent.length for extent in source.extents()) == source.size
    source.close()
    connector.release(machine, (), soon())


def test_somebody_elses_backup_is_neither_ended_nor_overtaken(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef
) -> None:
    domain = domain_of(by_ssh, machine)
    host.run("mkdir", "-p", "/run/libvirt/backup")
    domain.backupBegin(
        "<domainbackup mode='pull'><server transport='unix' socket='/run/libvirt/backup/theirs'/><disks>"
        "<disk name='vda' backup='yes' type='file'><scratch file='/var/lib/libvirt/images/theirs'/></disk></disks>"
        "</domainbackup>",
        None,
        0,
    )
    with pytest.raises(Busy, match="somebody else"):
        take(by_ssh.connector(), machine)
    by_ssh.connector().release(machine, (), soon())
    assert domain.backupGetXMLDesc(0)
    domain.abortJob()


def test_what_cannot_be_replicated_is_said_in_words(by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef) -> None:
    connector, domain = by_ssh.connector(), domain_of(by_ssh, machine)
    with pytest.raises(NotFound, match="no disk 'vdz'"):
        take(connector, machine, disks=["vdz"])
    with pytest.raises(Conflict, match="somebody else may own it"):
        take(connector, MachineRef(machine.id, Stamp(OURS, new_key())))
    with pytest.raises(NotFound, match="not on"):
        take(connector, MachineRef(new_key(), machine.stamp))
    do(by_ssh, connector, TakeSnapshot(key=new_key(), machine=machine, name="s"))
    with pytest.raises(Unsupported, match="has snapshots"):
        take(connector, machine)
    domain.snapshotLookupByName("s").delete()
    connector.release(MachineRef(new_key(), machine.stamp), (), soon())
    assert left_on(host, domain) == ([], [])


def test_without_libnbd_the_connector_works_and_says_what_is_missing(
    by_ssh: LibvirtWorld, machine: MachineRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "disks.nbd")
    monkeypatch.delattr("disks.nbd", raising=False)
    monkeypatch.setitem(sys.modules, "nbd", None)
    with pytest.raises(Unsupported, match="python3-libnbd"):
        take(by_ssh.connector(), machine)
    assert listing(by_ssh.connector()).machines


def test_a_host_reached_by_tls_is_told_to_be_registered_with_ssh(real: LibvirtWorld) -> None:
    with pytest.raises(Unsupported, match="Register the host with SSH"):
        take(real.connector(), MachineRef(new_key()))
