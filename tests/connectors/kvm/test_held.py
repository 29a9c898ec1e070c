"""Points of machines that are off: what is in them, and that nobody sees the machine as anything but off."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import libvirt
import pytest

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    MachineRef,
    OpenScreen,
    Power,
    PowerAction,
    PowerSet,
    Reconfigure,
    SetPower,
    Stage,
)
from connectors.errors import Busy, Conflict, Unsupported
from connectors.kvm import held, mapping
from connectors.kvm.connector import KvmConnector
from connectors.replication import Bookmark, Consistency, Point
from disks.base import Slow
from disks.copying import copy
from disks.errors import SourceLost
from disks.raw import RawSink
from tests.connectors.contract import do, listing, made, new_key, ref, refuse, soon, submit
from tests.connectors.kvm.test_disks import (
    brought_up_to_date,
    disk_now,
    kept,
    left_on,
    qemu_img,
    saved,
    take,
)
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.guests import guest_file_exists, run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost


@pytest.fixture
def machine(by_ssh: LibvirtWorld) -> MachineRef:
    """One that is off. It has never run: its disk holds what the template's does."""
    order = CloneMachine(key=new_key(), name="asleep", template=by_ssh.template, power_on=False)
    return ref(by_ssh, made(by_ssh, by_ssh.connector(), order))


@pytest.fixture
def used(by_ssh: LibvirtWorld, machine: MachineRef) -> MachineRef:
    """One that has run and is off."""
    write_in_guest(by_ssh, machine, 1)
    return machine


def domain_of(world: LibvirtWorld, machine: MachineRef) -> Any:
    return world.conn.lookupByUUIDString(machine.id)


def write_in_guest(world: LibvirtWorld, machine: MachineRef, number: int) -> None:
    """Half a MiB, between a start and a shutdown."""
    domain = domain_of(world, machine)
    if not domain.isActive():
        domain.create()
    wait_for_agent(domain)
    run_in_guest(domain, "/bin/sh", "-c", f"dd if=/dev/urandom of=/mnt/file{number} bs=64k count=8 && sync")
    do(world, world.connector(), SetPower(key=new_key(), machine=machine, action=PowerAction.OFF))


def power_of(connector: KvmConnector, machine: MachineRef) -> Power:
    return next(one.power for one in listing(connector).machines if one.id == machine.id)


def read(point: Point, to: Path) -> Path:
    return saved(point.open("vda"), to)


def is_clean(world: LibvirtWorld, host: KvmHost, machine: MachineRef) -> bool:
    domain = domain_of(world, machine)
    marks = mapping.HELD_NAMESPACE in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    return not domain.isActive() and not marks and left_on(host, domain)[1] == []


def test_a_point_of_a_machine_that_is_off_is_its_disk_byte_for_byte(
    by_ssh: LibvirtWorld, host: KvmHost, used: MachineRef, tmp_path: Path
) -> None:
    connector = by_ssh.connector()
    before = disk_now(host, domain_of(by_ssh, used), tmp_path)
    point = take(connector, used)
    assert point.consistency is Consistency.OFF
    assert point.whole == "It is the first point."
    assert point.configuration.disks[0].name == "vda"
    copied = read(point, tmp_path / "copy.raw")
    qemu_img("compare", "-f", "qcow2", "-F", "raw", before, copied)
    with copied.open("r+b") as file:
        file.seek(40 << 20)
        byte = file.read(1)
        file.seek(40 << 20)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(AssertionError, match="mismatch"):
        qemu_img("compare", "-f", "qcow2", "-F", "raw", before, copied)
    connector.release(used, (), soon())
    assert is_clean(by_ssh, host, used)
    assert left_on(host, domain_of(by_ssh, used))[0] == []


def test_off_or_on_the_next_point_names_what_was_written_since_the_last_one(
    by_ssh: LibvirtWorld, host: KvmHost, used: MachineRef, tmp_path: Path
) -> None:
    """Off, off, on, off: what changed is kept by a QEMU that is ended, whichever way it was begun."""
    connector, bookmark = by_ssh.connector(), None
    replica = tmp_path / "replica.raw"
    for number, is_on in enumerate((False, False, True, False)):
        if is_on:
            domain_of(by_ssh, used).create()
            wait_for_agent(domain_of(by_ssh, used))
            domain_of(by_ssh, used).suspend()
        point = take(connector, used, bookmark)
        assert (point.consistency is Consistency.OFF) != is_on
        assert (point.whole == "") == (number > 0)
        moved = brought_up_to_date(point.open("vda"), replica)
        if number > 0:
            assert moved < 8 << 20
        connector.release(used, kept(point.bookmark), soon())
        there = tmp_path / f"then-{number}"
        there.mkdir()
        qemu_img("compare", "-f", "qcow2", "-F", "raw", disk_now(host, domain_of(by_ssh, used), there), replica)
        bookmark = point.bookmark
        if is_on:
            domain_of(by_ssh, used).resume()
        write_in_guest(by_ssh, used, number + 2)
    connector.release(used, (), soon())
    assert is_clean(by_ssh, host, used)


def test_to_everybody_a_machine_that_is_read_is_off(by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef) -> None:
    connector = by_ssh.connector()
    assert power_of(connector, machine) is Power.OFF
    take(connector, machine)
    assert domain_of(by_ssh, machine).isActive()
    assert power_of(by_ssh.connector(), machine) is Power.OFF
    for action in (PowerAction.OFF, PowerAction.SHUTDOWN):
        result = do(by_ssh, connector, SetPower(key=new_key(), machine=machine, action=action)).result
        assert result == PowerSet(Power.OFF)
    assert domain_of(by_ssh, machine).isActive(), "it is off already: the reading goes on"
    for action in (PowerAction.REBOOT, PowerAction.RESET, PowerAction.SUSPEND, PowerAction.RESUME):
        error = refuse(by_ssh, connector, SetPower(key=new_key(), machine=machine, action=action))
        assert isinstance(error, Conflict)
        assert "is off" in error.message
    assert isinstance(refuse(by_ssh, connector, OpenScreen(key=new_key(), machine=machine)), Conflict)
    error = refuse(by_ssh, connector, Reconfigure(key=new_key(), machine=machine, vcpus=2))
    assert isinstance(error, Busy)
    connector.release(machine, (), soon())
    assert is_clean(by_ssh, host, machine)


def test_whoever_switches_it_on_gets_it_at_once_and_the_point_fails(
    by_ssh: LibvirtWorld, host: KvmHost, used: MachineRef
) -> None:
    connector, domain = by_ssh.connector(), domain_of(by_ssh, used)
    first = take(connector, used)
    connector.release(used, kept(first.bookmark), soon())
    source = take(connector, used, first.bookmark).open("vda")
    do(by_ssh, connector, SetPower(key=new_key(), machine=used, action=PowerAction.ON))
    with pytest.raises(SourceLost):
        source.read(0, 512)
    source.close()
    wait_for_agent(domain)
    assert power_of(connector, used) is Power.ON
    assert guest_file_exists(domain, "/mnt/file1")
    connector.release(used, kept(first.bookmark), soon())
    assert power_of(connector, used) is Power.ON, "a machine that runs is not ours to switch off"
    assert take(connector, used, first.bookmark).whole == "", "what changed is known all the same"
    connector.release(used, (), soon())


def test_whoever_resumes_it_behind_our_back_keeps_it_and_the_point_stays_what_it_was(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef, tmp_path: Path
) -> None:
    connector, domain = by_ssh.connector(), domain_of(by_ssh, machine)
    before = disk_now(host, domain, tmp_path)
    point = take(connector, machine)
    domain.resume()
    until_read(domain)
    domain.suspend()
    assert power_of(by_ssh.connector(), machine) is Power.SUSPENDED
    qemu_img("compare", "-f", "qcow2", "-F", "raw", before, read(point, tmp_path / "copy.raw"))
    connector.release(machine, (), soon())
    assert domain.isActive()
    assert mapping.HELD_NAMESPACE not in domain.XMLDesc()
    assert left_on(host, domain) == ([], [])


def until_read(domain: Any) -> None:
    """Until the guest has written to its disk: it mounts it when it boots."""
    for _ in range(6000):
        if domain.blockStats("vda")[2]:
            return
    raise AssertionError("the guest does not boot")


def test_a_reading_that_its_mover_never_ends_is_taken_over_or_released(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef, tmp_path: Path
) -> None:
    before = disk_now(host, domain_of(by_ssh, machine), tmp_path)
    take(by_ssh.connector(), machine)  # and nobody ever hears of it again
    connector = by_ssh.connector()
    point = take(connector, machine)
    assert point.consistency is Consistency.OFF
    qemu_img("compare", "-f", "qcow2", "-F", "raw", before, read(point, tmp_path / "copy.raw"))
    for _ in range(2):
        by_ssh.connector().release(machine, (), soon())
        assert is_clean(by_ssh, host, machine)


def test_a_mark_that_a_crash_left_in_the_definition_harms_nobody(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef
) -> None:
    """Between the mark and the start; somebody then starts the machine, works, and suspends it."""
    domain = domain_of(by_ssh, machine)
    held._mark(domain, "<held/>", held.CONFIG)
    domain.create()
    wait_for_agent(domain)
    domain.suspend()
    connector = by_ssh.connector()
    assert power_of(connector, machine) is Power.SUSPENDED
    connector.release(machine, (), soon())
    assert domain.isActive()
    domain.resume()
    run_in_guest(domain, "/bin/touch", "/mnt/alive")
    do(by_ssh, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.OFF))
    assert is_clean(by_ssh, host, machine)


def test_a_point_that_cannot_be_taken_leaves_the_machine_off(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef
) -> None:
    """A machine without a channel: where QEMU may listen is known once it is started."""
    domain = domain_of(by_ssh, machine)
    xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    begin, end = xml.index("<channel"), xml.index("</channel>") + len("</channel>")
    by_ssh.conn.defineXML(xml[:begin] + xml[end:])
    with pytest.raises(Unsupported, match="no channel"):
        take(by_ssh.connector(), machine)
    assert is_clean(by_ssh, host, machine)


def test_a_machine_suspended_to_disk_is_refused_in_words(by_ssh: LibvirtWorld, machine: MachineRef) -> None:
    domain = domain_of(by_ssh, machine)
    domain.create()
    wait_for_agent(domain)
    domain.managedSave()
    with pytest.raises(Unsupported, match="is suspended"):
        take(by_ssh.connector(), machine)
    assert not domain.isActive()


def test_a_template_from_which_clones_hang_is_read_as_it_stands_and_never_opened_for_writing(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef, tmp_path: Path
) -> None:
    template, connector = MachineRef(by_ssh.template), by_ssh.connector()
    (tmp_path / f"kvm-standing-{template.id}-dead.qcow2").write_bytes(b"of a mover that died")
    clone = domain_of(by_ssh, machine)
    clone.create()
    point = take(connector, template)
    assert (point.consistency, point.bookmark) == (Consistency.OFF, None)
    assert "as it stands" in point.whole
    assert not domain_of(by_ssh, template).isActive()
    assert not list(tmp_path.glob("kvm-standing-*"))
    (drive,) = point.configuration.disks
    source = point.open(drive.name)
    assert isinstance(source, Slow)
    while source.advance(0.0):
        pass
    sink = RawSink(tmp_path / "read.raw", drive.size)
    copy(source, sink)
    sink.commit()
    source.close()
    connector.release(template, (), soon())
    path = domain_of(by_ssh, template).XMLDesc(0).split("<source file='")[1].split("'")[0]
    qemu_img("compare", "-f", "qcow2", "-F", "raw", host.images / Path(path).name, tmp_path / "read.raw")
    assert not list(tmp_path.glob("kvm-standing-*"))
    assert not domain_of(by_ssh, template).isActive()
    assert clone.isActive()


def test_a_template_that_is_switched_on_while_it_is_fetched_is_begun_anew(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef
) -> None:
    template, connector = MachineRef(by_ssh.template), by_ssh.connector()
    point = take(connector, template)
    source = point.open(point.configuration.disks[0].name)
    assert isinstance(source, Slow)
    assert "Fetches" in source.advance(0.0)
    domain_of(by_ssh, template).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    with pytest.raises(SourceLost, match="was switched on while it was read"):
        source.advance(float("inf"))
    source.close()
    domain_of(by_ssh, template).destroy()


def test_a_clone_waits_until_its_template_is_read(by_ssh: LibvirtWorld, host: KvmHost) -> None:
    template, connector = MachineRef(by_ssh.template), by_ssh.connector()
    take(connector, template)
    assert [one.id for one in listing(connector).templates] == [template.id], "it is off, as a template is"
    order = CloneMachine(key=new_key(), name="clone", template=by_ssh.template)
    outcome = submit(connector, [order])[order.key]
    assert outcome.stage is Stage.RUNNING
    connector.release(template, (), soon())
    made(by_ssh, connector, order)


def test_a_machine_that_is_deleted_while_it_is_read_is_gone(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef
) -> None:
    connector = by_ssh.connector()
    take(connector, machine)
    do(by_ssh, connector, DeleteMachine(key=new_key(), machine=machine))
    assert not by_ssh.machines()
    connector.release(machine, (), soon())
    assert not by_ssh.litter()


def test_a_machine_cut_off_from_its_power_is_read_whole_the_next_time(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef, tmp_path: Path
) -> None:
    """The disk lacks one bitmap then, and has another that is not to be trusted."""
    connector, domain = by_ssh.connector(), domain_of(by_ssh, machine)
    first = take(connector, machine)
    connector.release(machine, kept(first.bookmark), soon())
    domain.create()
    wait_for_agent(domain)
    second = take(connector, machine, first.bookmark)
    assert second.whole == ""
    cut_off(host, domain)
    after = disk_now(host, domain, tmp_path)
    third = take(connector, machine, first.bookmark)
    assert "lost track of what changed" in third.whole
    qemu_img("compare", "-f", "qcow2", "-F", "raw", after, read(third, tmp_path / "copy.raw"))
    bookmark: Bookmark | None = third.bookmark
    connector.release(machine, kept(bookmark), soon())
    assert take(connector, machine, bookmark).whole == ""
    connector.release(machine, (), soon())
    assert is_clean(by_ssh, host, machine)
    assert left_on(host, domain)[0] == []


def cut_off(host: KvmHost, domain: Any) -> None:
    for pid in host.guest_pids():
        os.kill(pid, signal.SIGKILL)
    for _ in range(6000):
        if not domain.isActive():
            return
    raise AssertionError("libvirt does not see that the machine ended")


def test_qemu_itself_says_that_the_disk_is_whole_after_it_was_read(
    by_ssh: LibvirtWorld, host: KvmHost, machine: MachineRef, tmp_path: Path
) -> None:
    connector = by_ssh.connector()
    point = take(connector, machine)
    connector.release(machine, kept(point.bookmark), soon())
    path = Path(domain_of(by_ssh, machine).XMLDesc(0).split("<source file='")[1].split("'")[0])
    copied = tmp_path / "disk.qcow2"
    shutil.copy(host.images / path.name, copied)
    golden = Path(host.image_info(str(path))["full-backing-filename"]).name
    qemu_img("rebase", "-u", "-F", "qcow2", "-b", host.images / golden, copied)
    told = subprocess.run(["qemu-img", "check", str(copied)], capture_output=True, text=True, check=True).stdout
    assert "No errors" in told
    connector.release(machine, (), soon())
