"""Machines brought up from recovery points on real hosts: what their disks hold, whether they boot, what is left."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

from connectors.base import CloneMachine, DeleteMachine, MachineRef, PowerAction, SetPower, Stamp
from connectors.errors import Conflict, NotFound, Unsupported
from connectors.kvm import client
from connectors.kvm.connector import KvmConnector
from connectors.kvm.images import VolumeSink
from connectors.kvm.machines import KEPT
from connectors.kvm.work import Work
from connectors.replication import Landing, LandingWish, Lands, PointWish
from disks.copying import copy
from disks.errors import OutOfSpace, SinkLost
from disks.qcow2 import CLUSTER, Qcow2
from disks.raw import RawSink, RawSource
from disks.vault.points import Configuration, Drive, Nic
from tests.connectors import templates
from tests.connectors.contract import OURS, THEIRS, do, listing, made, new_key, ref, soon
from tests.connectors.kvm.test_disks import disk_now, qemu_img
from tests.connectors.kvm.worlds import LibvirtWorld, host_settings, host_world, local_settings, ssh_settings
from tests.support.guests import guest_file_exists, run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost
from tests.support.prerequisites import REPOSITORY

MIB = 1 << 20
MAC = "00:50:56:12:34:56"


def wish(*drives: Drive, key: str = "", name: str = "landed", storage: str = "default", **more: Any) -> LandingWish:
    configuration = Configuration(1, 128, "bios", disks=drives or (Drive("disk", "virtio", 64 * MIB),))
    return LandingWish(key=key or new_key(), name=name, configuration=configuration, storage=storage, **more)


def wish_with_card(network: str, model: str = "virtio", mac: str = MAC, **more: Any) -> LandingWish:
    configuration = Configuration(1, 128, "bios", nics=(Nic(model, mac, "LAN"),), disks=(Drive("disk", "virtio", MIB),))
    return dataclasses.replace(wish(**more), configuration=configuration, networks=(network,))


def landed(connector: KvmConnector, wanted: LandingWish, *contents: Path) -> MachineRef:
    """The machine, with the files as its disks and zeros in those for which there are none."""
    landing = connector.land(wanted, soon(30))
    for number, drive in enumerate(wanted.configuration.disks):
        sink = landing.open(drive.name)
        if number < len(contents):
            source = RawSource(contents[number])
            copy(source, sink)
            source.close()
        sink.commit()
    return landing.finish(soon(30))


def a_disk(path: Path, size: int = 64 * MIB, *, data_mib: int = 8) -> Path:
    """Data here and there, holes between, at the end too."""
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(data_mib):
            file.seek(number * 5 * MIB + number * 512)
            file.write(os.urandom(MIB))
    return path


def files_of(world: LibvirtWorld, host: KvmHost, machine: MachineRef) -> list[Path]:
    """The machine's disks, as seen from outside."""
    root = etree.fromstring(world.conn.lookupByUUIDString(machine.id).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    return [host.images / Path(source.get("file", "")).name for source in root.iterfind("devices/disk/source")]


def require_same(image: Path, raw: Path) -> None:
    qemu_img("compare", "-f", "qcow2", "-F", "raw", image, raw)
    qemu_img("check", "-f", "qcow2", image)


def give_tiny_kernel(world: LibvirtWorld, machine: MachineRef) -> Any:
    """The tiny guest has its kernel beside its disk."""
    template = etree.fromstring(world.conn.lookupByUUIDString(world.template).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    domain = world.conn.lookupByUUIDString(machine.id)
    definition = etree.fromstring(domain.XMLDesc(KEPT))
    system, tiny = definition.find("os"), template.find("os")
    assert system is not None
    assert tiny is not None
    system.extend([part for part in tiny if part.tag in ("kernel", "initrd", "cmdline")])
    return world.conn.defineXML(etree.tostring(definition, encoding="unicode"))


# --- whole ways ------------------------------------------------------------------------------------------------------


def test_a_running_guest_comes_up_again_from_a_point_with_all_that_it_had(
    by_ssh: LibvirtWorld, host: KvmHost, tmp_path: Path
) -> None:
    connector = by_ssh.connector()
    assert isinstance(connector, Lands)
    order = CloneMachine(key=new_key(), name="source", template=by_ssh.template)
    machine = ref(by_ssh, made(by_ssh, connector, order))
    source = by_ssh.conn.lookupByUUIDString(machine.id)
    wait_for_agent(source)
    run_in_guest(source, "/bin/sh", "-c", "dd if=/dev/urandom of=/mnt/noise bs=64k count=40; touch /mnt/mine; sync")
    source.suspend()
    point = connector.take_point(PointWish(machine=machine, key=new_key()), soon())
    wanted = LandingWish(
        key=new_key(), name="again", configuration=point.configuration, storage="default", networks=("default",)
    )
    landing = connector.land(wanted, soon())
    (drive,) = point.configuration.disks
    disk, sink = point.open(drive.name), landing.open(drive.name)
    copy(disk, sink)
    disk.close()
    sink.commit()
    again = landing.finish(soon())
    connector.release(machine, (), soon())
    (image,) = files_of(by_ssh, host, again)
    qemu_img("compare", "-f", "qcow2", "-F", "qcow2", disk_now(host, source, tmp_path), image)
    assert "Network card 1 has another address" in " ".join(landing.warnings), "the source has its own"
    do(by_ssh, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.OFF))

    give_tiny_kernel(by_ssh, again)
    do(by_ssh, connector, SetPower(key=new_key(), machine=again, action=PowerAction.ON))
    guest = by_ssh.conn.lookupByUUIDString(again.id)
    wait_for_agent(guest)
    assert guest_file_exists(guest, "/mnt/mine")
    assert connector.take_point(PointWish(machine=again, key=new_key()), soon()).whole == "It is the first point."
    connector.release(again, (), soon())
    do(by_ssh, connector, DeleteMachine(key=new_key(), machine=again))
    assert again.id not in by_ssh.machines()
    assert not image.exists()


@pytest.mark.parametrize("settings", [host_settings, ssh_settings, local_settings], ids=["tls", "ssh", "local"])
def test_disks_arrive_byte_for_byte_over_every_transport(settings: Any, host: KvmHost, tmp_path: Path) -> None:
    host.start_ssh()
    files = [a_disk(tmp_path / "system.raw"), a_disk(tmp_path / "data.raw", 40 * MIB + 512, data_mib=3)]
    with host_world(host, tmp_path, settings(host)) as world:
        drives = Drive("Hard disk 1", "sata", 64 * MIB), Drive("scsi0:1/../x", "sata", 40 * MIB + 512)
        machine = landed(world.connector(), wish(*drives), *files)
        images = files_of(world, host, machine)
        for image, file in zip(images, files, strict=True):
            require_same(image, file)
            assert host.image_info(str(image))["virtual-size"] == file.stat().st_size
        with files[1].open("r+b") as file_:
            file_.seek(5 * MIB + 700)
            byte = file_.read(1)
            file_.seek(5 * MIB + 700)
            file_.write(bytes([byte[0] ^ 1]))
        with pytest.raises(AssertionError, match="mismatch"):
            require_same(images[1], files[1])


def test_a_disk_full_of_data_arrives_too(real: LibvirtWorld, host: KvmHost, tmp_path: Path) -> None:
    """Its image is larger than the disk, so libvirt does not let its size be set."""
    full = tmp_path / "full.raw"
    full.write_bytes(os.urandom(8 * MIB))
    machine = landed(real.connector(), wish(Drive("disk", "virtio", 8 * MIB)), full)
    (image,) = files_of(real, host, machine)
    require_same(image, full)


def without_header(header: bytes) -> bytes:
    return bytes(len(header))


def with_its_table_elsewhere(header: bytes) -> bytes:
    """Of the right size, as libvirt reads it; QEMU refuses a table that begins inside a cluster."""
    return header[:46] + b"\x01" + header[47:]


@pytest.mark.parametrize("spoilt", [without_header, with_its_table_elsewhere])
def test_a_volume_that_is_no_image_in_the_end_is_no_disk(
    spoilt: Any, real: LibvirtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = real.connector().land(wish(), soon())
    sink = landing.open("disk")
    sink.write(0, b"x" * MIB)
    header = Qcow2.header
    monkeypatch.setattr(Qcow2, "header", lambda image: spoilt(header(image)))
    with pytest.raises(SinkLost):
        sink.commit()
    with pytest.raises(Conflict, match="not there in whole"):
        landing.finish(soon())
    sink.abandon()
    assert not real.litter()


def test_what_a_guest_wrote_is_data_even_if_it_looks_like_an_image_that_names_a_file_of_the_host(
    real: LibvirtWorld, host: KvmHost, tmp_path: Path
) -> None:
    disk, backing = tmp_path / "disk.raw", tmp_path / "secret"
    backing.write_text("of the host")
    qemu_img("create", "-f", "qcow2", "-b", backing, "-F", "raw", disk, "1M")
    with disk.open("r+b") as file:
        file.truncate(64 * MIB)
    machine = landed(real.connector(), wish(), disk)
    real.conn.storagePoolLookupByName("default").refresh()
    (image,) = files_of(real, host, machine)
    require_same(image, disk)
    assert "backing-filename" not in host.image_info(str(image))


# --- booting ---------------------------------------------------------------------------------------------------------

BOOT = bytes.fromhex("31c0 8ed8 be157c baf803 ac 84c0 7403 ee ebf8 f4 ebfd") + b"deskyard booted from %d\n\0"
"""Each byte of the text to the first serial port: xor ax,ax; mov ds,ax; mov si,text; mov dx,3f8h; N: lodsb; test al,al;
jz H; out dx,al; jmp N; H: hlt; jmp H."""
BOOT_S = 60


def boot_sector(path: Path, number: int, size: int = 64 * MIB) -> Path:
    with path.open("wb") as file:
        file.write((BOOT % number).ljust(510, b"\0") + b"\x55\xaa")
        file.truncate(size)
    return path


def said_at_boot(host: KvmHost, domain: Any) -> str:
    """What comes out of the serial port of a machine that is switched on by this, and off again."""
    definition = etree.fromstring(domain.XMLDesc(KEPT))
    serial = definition.find("devices/serial")
    assert serial is not None
    serial.set("type", "file")
    etree.SubElement(serial, "source", path=f"/var/log/libvirt/qemu/{domain.UUIDString()}")
    domain.connect().defineXML(etree.tostring(definition, encoding="unicode")).create()
    told, until = host.folder / "log" / "qemu" / domain.UUIDString(), time.monotonic() + BOOT_S
    while not (said := told.read_text() if told.exists() else "").endswith("\n"):
        assert time.monotonic() < until, f"it says {said!r} only"
        time.sleep(0.05)
    domain.destroy()
    return said.strip()


@pytest.mark.parametrize(
    ("was", "bus"),
    [
        ("virtio", "virtio"), ("IDE", "ide"), ("SATA", "sata"), ("pvscsi", "scsi"), ("lsilogicsas", "scsi"),
        ("virtio-scsi", "scsi"), ("SCSI", "sata"),
    ],
)  # fmt: skip
def test_the_machine_boots_from_its_first_disk_where_that_hung(
    was: str, bus: str, real: LibvirtWorld, host: KvmHost, tmp_path: Path
) -> None:
    disks = [boot_sector(tmp_path / f"{number}.raw", number) for number in (1, 2)]
    connector = real.connector()
    wanted = wish(Drive("a", was, 64 * MIB), Drive("b", was, 64 * MIB))
    machine = landed(connector, wanted, *disks)
    domain = real.conn.lookupByUUIDString(machine.id)
    targets = etree.fromstring(domain.XMLDesc()).findall("devices/disk/target")
    assert [target.get("bus") for target in targets] == [bus, bus]
    assert said_at_boot(host, domain) == "deskyard booted from 1"


def test_disks_on_buses_of_both_kinds_stand_beside_each_other(
    real: LibvirtWorld, host: KvmHost, tmp_path: Path
) -> None:
    drives = [Drive(str(number), "pvscsi" if number % 2 else "sata", MIB) for number in range(18)]
    machine = landed(real.connector(), wish(*drives), boot_sector(tmp_path / "boot.raw", 1, MIB))
    assert said_at_boot(host, real.conn.lookupByUUIDString(machine.id)) == "deskyard booted from 1"


@pytest.mark.parametrize("model", ["virtio", "vmxnet3", "e1000", "e1000e", "RTL8139", "vlance", "synthetic"])
@pytest.mark.parametrize("bus", ["virtio", "ide"])
def test_machines_start_with_every_card_on_either_chipset(bus: str, model: str, real: LibvirtWorld) -> None:
    wanted = wish_with_card("default", model)
    drives = (Drive("disk", bus, MIB),)
    wanted = dataclasses.replace(wanted, configuration=dataclasses.replace(wanted.configuration, disks=drives))
    domain = real.conn.lookupByUUIDString(landed(real.connector(), wanted).id)
    domain.create()
    domain.destroy()


# --- cards and networks ----------------------------------------------------------------------------------------------


def test_a_card_keeps_its_address_where_nobody_else_has_it(real: LibvirtWorld) -> None:
    connector = real.connector()
    first = real.conn.lookupByUUIDString(landed(connector, wish_with_card("default", name="first")).id)
    landing = connector.land(wish_with_card("default", name="second"), soon())
    landing.open("disk").commit()
    second = real.conn.lookupByUUIDString(landing.finish(soon()).id)
    assert MAC in first.XMLDesc()
    assert MAC not in second.XMLDesc()
    assert landing.warnings[0].startswith("Network card 1 has another address")


def test_a_card_on_no_network_is_not_connected(real: LibvirtWorld) -> None:
    domain = real.conn.lookupByUUIDString(landed(real.connector(), wish_with_card("")).id)
    domain.create()
    (card,) = etree.fromstring(domain.XMLDesc()).findall("devices/interface")
    assert (card.find("source"), card.find("link").get("state")) == (None, "down")  # type: ignore[union-attr]
    domain.destroy()


def test_networks_and_storages_are_known_by_their_ids(real: LibvirtWorld) -> None:
    seen = listing(real.connector())
    network = next(one.id for one in seen.networks if one.name == "default")
    storage = next(one.id for one in seen.storages if one.name == "default")
    domain = real.conn.lookupByUUIDString(landed(real.connector(), wish_with_card(network, storage=storage)).id)
    assert "<source network='default'/>" in domain.XMLDesc()


def test_what_is_not_there_is_said_in_words(real: LibvirtWorld) -> None:
    connector = real.connector()
    with pytest.raises(NotFound, match="no storage pool 'nowhere'"):
        connector.land(wish(storage="nowhere"), soon())
    with pytest.raises(NotFound, match="no network 'nothing'"):
        connector.land(wish_with_card("nothing"), soon())
    with pytest.raises(NotFound, match="Host elsewhere is not behind"):
        connector.land(wish(host="elsewhere"), soon())
    with pytest.raises(Unsupported, match="holds no disk"):
        connector.land(dataclasses.replace(wish(), configuration=Configuration(1, 128, "bios")), soon())
    with pytest.raises(Conflict, match="already has a machine named 'tiny'"):
        connector.land(wish(name="tiny"), soon())
    with pytest.raises(NotFound, match="holds no disk 'other'"):
        connector.land(wish(), soon()).open("other")
    assert not real.litter()


def test_a_storage_that_is_not_active_or_keeps_no_files_is_no_place_for_disks(real: LibvirtWorld) -> None:
    pool = real.conn.storagePoolDefineXML(
        "<pool type='mpath'><name>odd</name><target><path>/dev</path></target></pool>"
    )
    try:
        with pytest.raises(Conflict, match=r"'odd' .* is not active"):
            real.connector().land(wish(storage="odd"), soon())
        pool.create()
        with pytest.raises(Unsupported, match="'odd' keeps no files"):
            real.connector().land(wish(storage="odd"), soon())
        pool.destroy()
    finally:
        pool.undefine()


# --- once, and what is left ------------------------------------------------------------------------------------------


def test_landing_twice_under_one_key_makes_one_machine(real: LibvirtWorld) -> None:
    wanted = wish()
    machine = landed(real.connector(), wanted)
    disks = real.litter()
    again = real.connector().land(wanted, soon())
    assert again.is_done
    assert again.finish(soon()) == machine == MachineRef(machine.id, Stamp(OURS, wanted.key))
    with pytest.raises(Conflict, match="stands already"):
        again.open("disk")
    again.close()
    real.connector().clear(wanted.key, soon())
    assert list(real.machines()) == [machine.id]
    assert real.litter() == disks


def test_finishing_twice_is_finishing_once(real: LibvirtWorld) -> None:
    landing = real.connector().land(wish(), soon())
    landing.open("disk").commit()
    assert landing.finish(soon()) == landing.finish(soon())
    assert len(real.machines()) == 1


def test_no_machine_is_made_before_all_disks_are_whole(real: LibvirtWorld) -> None:
    landing = real.connector().land(wish(Drive("a", "virtio", MIB), Drive("b", "virtio", MIB)), soon())
    landing.open("a").commit()
    with pytest.raises(Conflict, match=r"Disk b .* is not there in whole"):
        landing.finish(soon())
    unfinished = landing.open("b")
    with pytest.raises(Conflict, match=r"Disk b .* is not there in whole"):
        landing.finish(soon())
    unfinished.abandon()
    assert not real.machines()


def test_an_abandoned_disk_leaves_nothing_and_can_be_begun_anew(
    real: LibvirtWorld, host: KvmHost, tmp_path: Path
) -> None:
    landing = real.connector().land(wish(), soon())
    sink = landing.open("disk")
    sink.write(0, os.urandom(4 * MIB))
    for _ in range(2):
        sink.abandon()
        assert not real.litter()
    content = a_disk(tmp_path / "disk.raw")
    sink, source = landing.open("disk"), RawSource(content)
    copy(source, sink)
    source.close()
    sink.commit()
    sink.abandon()
    (image,) = files_of(real, host, landing.finish(soon()))
    require_same(image, content)


def test_what_is_not_written_to_its_end_goes_with_its_landing_or_with_the_next_beginning(real: LibvirtWorld) -> None:
    landing = real.connector().land(wish(Drive("a", "virtio", MIB), Drive("b", "virtio", MIB)), soon())
    landing.open("a").commit()
    for _ in range(2):
        landing.open("b").write(0, os.urandom(MIB))
        assert len(real.litter()) == 2
    for _ in range(2):
        landing.close()
        assert len(real.litter()) == 1


@pytest.mark.parametrize("whole", [0, 1])
def test_a_mover_killed_in_the_middle_leaves_nothing_once_it_is_cleared(
    whole: int, real: LibvirtWorld, tmp_path: Path
) -> None:
    told = {"settings": dataclasses.asdict(real.settings), "installation": OURS, "key": new_key(), "storage": "default"}
    (tmp_path / "wish.json").write_text(json.dumps(told))
    command = [sys.executable, "-m", "tests.connectors.kvm.lands", str(tmp_path / "wish.json"), str(whole)]
    done = subprocess.run(command, cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(real.litter()) == whole + 1
    for _ in range(2):
        real.connector().clear(str(told["key"]), soon())
        assert not real.litter()
    assert not real.machines()


def test_another_attempt_begins_anew_and_the_first_one_makes_nothing_of_it(real: LibvirtWorld) -> None:
    wanted = wish()
    first = real.connector().land(wanted, soon())
    first.open("disk").commit()
    second = real.connector().land(wanted, soon())
    assert not real.litter()
    second.open("disk").commit()
    with pytest.raises(Conflict, match="not there in whole"):
        first.finish(soon())
    assert not real.machines()
    second.finish(soon())
    assert len(real.machines()) == len(real.litter()) == 1


class Killed(Exception):
    """No error of libvirt's or ours: nothing answers it, as nothing answers a kill."""


@pytest.mark.parametrize("at", range(7))
def test_a_landing_killed_before_any_step_is_begun_anew_or_cleared(
    at: int, real: LibvirtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, begin, begun = wish_with_card("default"), Work.begin, list[str]()

    def begin_or_die(self: Work[Any], name: str) -> None:
        if len(begun) == at:
            raise Killed
        begun.append(name)
        begin(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "begin", begin_or_die)
        with pytest.raises(Killed):
            landed_again_and_again(real.connector(), wanted)
    real.connector().clear(wanted.key, soon())
    assert len(real.machines()) == len(real.litter()) == int("Defining the machine" in begun)
    landed_or_found(real.connector(), wanted)
    assert len(real.machines()) == len(real.litter()) == 1


def landed_again_and_again(connector: KvmConnector, wanted: LandingWish) -> None:
    """One landing has fewer steps than some tests ask for: the next one finds the machine."""
    while True:
        landed_or_found(connector, wanted)


def landed_or_found(connector: KvmConnector, wanted: LandingWish) -> None:
    landing: Landing = connector.land(wanted, soon())
    if not landing.is_done:
        landing.open("disk").commit()
    landing.finish(soon())


def test_a_full_storage_is_told_and_nothing_is_left(real: LibvirtWorld, host: KvmHost) -> None:
    landing = real.connector().land(wish(storage="small"), soon())
    sink = landing.open("disk")
    with pytest.raises(OutOfSpace, match="Make room"):
        write_all(sink, 64)
    sink.abandon()
    assert not real.litter()
    assert host.run("ls", "/var/lib/libvirt/small").strip() == ""


def write_all(sink: Any, mebibytes: int) -> None:
    """Also to its end: what a host says may come after the last byte was sent."""
    for at in range(mebibytes):
        sink.write(at * MIB, os.urandom(MIB))
    sink.commit()


def test_a_storage_without_room_for_an_empty_disk_is_told_too(real: LibvirtWorld, host: KvmHost) -> None:
    host.run("sh", "-c", "head -c 16m /dev/zero > /var/lib/libvirt/small/full || true")
    try:
        landing = real.connector().land(wish(storage="small"), soon())
        with pytest.raises(OutOfSpace, match="Make room"):
            landing.open("disk")
        assert not real.litter()
    finally:
        host.run("rm", "/var/lib/libvirt/small/full")


def test_a_host_whose_daemon_dies_loses_the_disk_and_the_next_attempt_begins_anew(
    real: LibvirtWorld, host: KvmHost
) -> None:
    wanted = wish()
    sink = real.connector().land(wanted, soon()).open("disk")
    sink.write(0, os.urandom(MIB))
    host.kill_libvirtd()
    with pytest.raises(SinkLost, match="begun anew"):
        write_all(sink, 64)
    sink.abandon()
    host.start_libvirtd()
    real.reconnect()
    assert len(real.litter()) == 1
    landed(real.connector(), wanted)
    assert len(real.machines()) == len(real.litter()) == 1


def test_a_host_that_falls_silent_is_given_up_in_time(real: LibvirtWorld, host: KvmHost) -> None:
    wanted = wish(Drive("disk", "virtio", 4096 * MIB))
    sink = real.connector().land(wanted, soon()).open("disk")
    sink.write(0, os.urandom(MIB))
    host.unplug()
    began = time.monotonic()
    with pytest.raises(SinkLost):
        write_all(sink, 4096)
    assert time.monotonic() - began < 40
    sink.abandon()
    host.plug_in()
    real.connector().clear(wanted.key, soon(30))
    assert not real.litter()


def test_a_machine_of_another_installation_is_never_touched(real: LibvirtWorld) -> None:
    wanted = wish()
    machine = landed(real.connector(), wanted)
    stamp = Stamp(THEIRS, wanted.key)
    real.restamp(machine.id, stamp)
    before = real.litter()
    with pytest.raises(Conflict, match="is not ours"):
        real.connector().land(wanted, soon())
    with pytest.raises(Conflict, match="is not ours"):
        real.connector().clear(wanted.key, soon())
    assert real.machines() == {machine.id: stamp}
    assert real.litter() == before


# --- a template ------------------------------------------------------------------------------------------------------


def test_a_landed_template_is_listed_cloned_from_and_kept(by_ssh: LibvirtWorld, host: KvmHost, tmp_path: Path) -> None:
    connector, wanted, raw = by_ssh.connector(), wish(is_template=True), a_disk(tmp_path / "raw")
    made_ = landed(connector, wanted, raw)
    assert made_.id not in {one.id for one in listing(connector).machines}

    def now(machine: MachineRef) -> list[bytes]:
        domain = by_ssh.conn.lookupByUUIDString(machine.id)
        image = files_of(by_ssh, host, machine)[0] if machine == made_ else disk_now(host, domain, tmp_path)
        qemu_img("convert", "-O", "raw", image, tmp_path / "now.raw")
        return [(tmp_path / "now.raw").read_bytes()]

    templates.prove(by_ssh, connector, made_, wanted.key, [raw.read_bytes()], now)
    again = by_ssh.connector().land(wanted, soon(30))
    assert again.is_done
    assert again.finish(soon(30)) == made_
    by_ssh.connector().clear(wanted.key, soon())
    require_same(files_of(by_ssh, host, made_)[0], raw)


def test_a_landed_template_without_clones_is_read_again(by_ssh: LibvirtWorld, tmp_path: Path) -> None:
    connector, raw = by_ssh.connector(), a_disk(tmp_path / "raw")
    template = landed(connector, wish(is_template=True), raw)
    point = connector.take_point(PointWish(machine=template, key=new_key()), soon())
    (drive,) = point.configuration.disks
    source, sink = point.open(drive.name), RawSink(tmp_path / "read.raw", drive.size)
    copy(source, sink)
    sink.commit()
    source.close()
    connector.release(template, (), soon())
    assert (tmp_path / "read.raw").read_bytes() == raw.read_bytes()
    (seen,) = [one for one in listing(connector).templates if one.id == template.id]
    assert seen.cannot == ""


# --- a host that is this machine --------------------------------------------------------------------------------------


@pytest.fixture
def here(host: KvmHost) -> Iterator[Path]:
    with host.common_pool() as folder:
        yield folder


def test_on_this_machine_a_volume_is_written_as_the_file_that_it_is(
    host: KvmHost, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is on its way nothing runs through libvirt: its daemon may stand still."""
    # On a busy machine the copy may last longer than a silent daemon is believed to be alive.
    monkeypatch.setattr(client, "KEEPALIVE_S", 600)
    data = a_disk(tmp_path / "disk.raw")
    with host_world(host, tmp_path, local_settings(host)) as world, closing(RawSource(data)) as source:
        landing = world.connector().land(wish(storage="here"), soon())
        sink = landing.open("disk")
        host.freeze_libvirtd()
        try:
            copy(source, sink)
        finally:
            host.thaw_libvirtd()
        sink.commit()
        landing.finish(soon())
        (image,) = here.iterdir()
        require_same(image, data)
        world.wipe()


def test_a_file_of_the_same_path_that_is_not_the_volume_is_left_alone(
    host: KvmHost, here: Path, tmp_path: Path
) -> None:
    """libvirt may see other mounts than this process, as in a container or behind a socket from elsewhere."""
    data, behind = a_disk(tmp_path / "disk.raw"), host.folder / "behind"
    somebody_elses = here / "disk.qcow2"
    somebody_elses.write_bytes(b"somebody else's" * CLUSTER)
    behind.mkdir()
    host.run("mount", "--bind", str(behind), str(here))
    try:
        with host_world(host, tmp_path, local_settings(host)) as world, closing(RawSource(data)) as source:
            connector = world.connector()
            connector.check(soon())
            pool = world.conn.storagePoolLookupByName("here").UUIDString()
            sink = VolumeSink(connector._endpoint, pool, "disk.qcow2", data.stat().st_size)
            copy(source, sink)
            sink.commit()
            require_same(behind / "disk.qcow2", data)
            assert somebody_elses.read_bytes() == b"somebody else's" * CLUSTER
    finally:
        host.run("umount", str(here))
        shutil.rmtree(behind)
