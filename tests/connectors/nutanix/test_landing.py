"""Machines brought up on Prism Central from recovery points: what they are, and what is left of those that are not."""

from __future__ import annotations

import base64
import dataclasses
import os
import struct
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from connectors.base import DeleteMachine, MachineRef, PowerAction, SetPower, Stamp
from connectors.errors import CapacityExhausted, Conflict, ConnectorError, NotFound, Unsupported
from connectors.nutanix import landing as landing_module
from connectors.nutanix import objects, uploads
from connectors.nutanix.client import Client
from connectors.nutanix.connector import NutanixConnector
from connectors.nutanix.names import landing_prefix
from connectors.nutanix.uploads import Parts
from connectors.replication import Landing, LandingWish, Lands, PointWish
from disks.base import Sink
from disks.errors import OutOfSpace, SinkLost, SinkRefused
from disks.qcow2 import CLUSTER
from disks.vault.points import Configuration, Drive, Nic
from lab.nouns import Machine
from tests.connectors import templates
from tests.connectors.contract import OURS, THEIRS, do, listing, new_key, soon
from tests.connectors.nutanix.replicas import (
    MIB,
    contents,
    fill,
    is_off,
    left,
    quick,
    read,
    stand,
    take,
    wish_for,
)
from tests.connectors.nutanix.worlds import PrismWorld


@pytest.fixture(autouse=True)
def soon_done(world: PrismWorld) -> None:
    quick(world)


def plain_wish(world: PrismWorld, *drives: Drive, key: str = "", **how: Any) -> LandingWish:
    """Of a machine of another maker, with a disk of 3 MiB unless others are named."""
    told: dict[str, Any] = {"vcpus": 3, "memory_mib": 512, "firmware": "bios"}
    for name in [name for name in how if name in Configuration.__dataclass_fields__]:
        told[name] = how.pop(name)
    configuration = Configuration(disks=drives or (Drive("vda", "virtio", 3 * MIB),), **told)
    where = {"storage": next(iter(world.lab.storages)), "name": "landed", **how}
    return LandingWish(key=key or new_key(), configuration=configuration, **where)


def write(sink: Sink, *pieces: tuple[int, bytes]) -> None:
    for offset, data in pieces:
        sink.write(offset, data)
    sink.commit()


def landed(connector: NutanixConnector, wish: LandingWish, *data: bytes) -> MachineRef:
    """With these bytes at the beginnings of its disks."""
    landing = connector.land(wish, soon(30))
    for number, drive in enumerate(wish.configuration.disks):
        write(landing.open(drive.name), *([(0, data[number])] if number < len(data) else []))
    return landing.finish(soon(30))


def store_of(world: PrismWorld, workdir: Path) -> objects.ObjectStore:
    return objects.ObjectStore(Client(world.settings, workdir), world.settings)


def seen(world: PrismWorld, ref: MachineRef) -> Machine:
    with world.lab as lab:
        return lab.machines[ref.id]


# --- whole ways ------------------------------------------------------------------------------------------------------


def test_a_machine_that_landed_is_its_source_starts_and_is_read_again(world: PrismWorld) -> None:
    source, connector = stand(world), world.connector()
    assert isinstance(connector, Lands)
    then = contents(world, source)
    point = take(connector, source)
    wish = wish_for(world, point)
    landing = connector.land(wish, soon(30))
    fill(point, landing)
    assert "landed" not in world.names().values(), "it exists from finish on"
    again = landing.finish(soon(30))
    landing.close()
    connector.release(MachineRef(source.id), (), soon(30))
    assert contents(world, again.id) == then
    assert is_off(seen(world, again))
    assert left(world) == {}
    do(world, connector, SetPower(key=new_key(), machine=again, action=PowerAction.ON))
    with world.lab as lab:
        lab.clock.advance(10)
    with world.lab:
        assert seen(world, again).guest.is_up
    do(world, connector, SetPower(key=new_key(), machine=again, action=PowerAction.OFF))
    second = connector.take_point(PointWish(machine=again, key=new_key()), soon(30))
    assert read(second) == then
    assert second.configuration.disks == point.configuration.disks
    connector.release(again, (), soon(30))
    do(world, connector, DeleteMachine(key=new_key(), machine=again))
    assert again.id not in world.machines()
    assert left(world) == {}


def test_the_machine_bears_its_stamp_as_a_cloned_one_does(world: PrismWorld) -> None:
    connector, wish = world.connector(), plain_wish(world)
    ref = landed(connector, wish)
    assert ref.stamp == Stamp(OURS, wish.key)
    assert world.machines()[ref.id] == ref.stamp
    (shown,) = [one for one in listing(world.connector()).machines if one.id == ref.id]
    assert (shown.name, shown.stamp, shown.vcpus, shown.memory_mib) == ("landed", ref.stamp, 3, 512)


def test_desktop_editions_of_windows_see_all_processors(world: PrismWorld) -> None:
    machine = seen(world, landed(world.connector(), plain_wish(world, vcpus=8)))
    assert (machine.marks["sockets"], machine.marks["cores"]) == (1, 8)


def test_twice_under_one_key_is_one_machine(world: PrismWorld) -> None:
    wish = plain_wish(world)
    first = landed(world.connector(), wish)
    with world.lab:
        seen(world, first).name = "renamed meanwhile"
    again = world.connector().land(wish, soon(30))
    assert again.is_done
    with pytest.raises(Conflict, match="stands already"):
        again.open("vda")
    assert again.finish(soon(30)) == first
    assert list(world.machines().values()).count(first.stamp) == 1


def test_a_machine_that_a_lost_mover_made_is_found_though_it_is_listed_late(
    world: PrismWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He was lost after the machine was made and before its images went."""
    wish = plain_wish(world)
    world.server.listed_late_s = 30.0
    first = world.connector().land(wish, soon(30))
    write(first.open("vda"))
    monkeypatch.setattr(landing_module, "clear", lambda *_: None)
    ref = first.finish(soon(30))
    monkeypatch.undo()
    assert left(world).keys() == {"images"}
    again = world.connector().land(wish, soon(30))
    assert again.is_done
    assert again.finish(soon(30)) == ref
    assert list(world.machines()) == [ref.id]


def test_an_attempt_that_did_not_finish_is_removed_by_the_next_one(world: PrismWorld) -> None:
    wish = plain_wish(world, Drive("a", "sata", 3 * MIB), Drive("b", "sata", 3 * MIB))
    before = world.connector().land(wish, soon(30))
    write(before.open("a"), (0, b"old" * 512))
    before.open("b").write(0, b"old" * 512)
    assert left(world).keys() == {"images", "uploads"}
    ref = landed(world.connector(), wish, b"new" * 512)
    assert contents(world, ref.id)[0].startswith(b"new")
    assert left(world) == {}
    with pytest.raises((ConnectorError, ValueError)):
        before.finish(soon(30))


@pytest.mark.parametrize("version", [(4, 0), (4, 1), (4, 3)], ids=lambda version: f"v{version[0]}.{version[1]}")
def test_every_version_takes_machines(world: PrismWorld, version: tuple[int, int]) -> None:
    world.server.versions = dict.fromkeys(world.server.versions, version)
    nics = (Nic("e1000", "52:54:00:00:00:07", "LAN"),)
    wish = plain_wish(world, nics=nics, networks=tuple(world.lab.networks)[:1])
    machine = seen(world, landed(world.connector(), wish, b"data"))
    assert contents(world, machine)[0].startswith(b"data")
    assert machine.nics[0].mac == "52:54:00:00:00:07"


# --- what is written -------------------------------------------------------------------------------------------------


def test_a_disk_is_what_was_written_and_zeros_elsewhere(world: PrismWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many parts, the smallest that S3 takes."""
    monkeypatch.setattr(uploads, "PART", 5 * MIB)
    monkeypatch.setattr(uploads, "FIRST_PART", 5 * MIB)
    wish = plain_wish(world, Drive("a", "virtio", 40 * MIB + 512))
    landing = world.connector().land(wish, soon(30))
    expected = bytearray(40 * MIB + 512)
    sink = landing.open("a")
    for offset, length in ((0, 512), (64 << 10, 12 * MIB), (13 * MIB + 77, 1000), (20 * MIB, 9 * MIB), (40 * MIB, 512)):
        data = os.urandom(length)
        expected[offset : offset + length] = data
        sink.write(offset, data)
        sink.zero(offset + length, 512 if offset < 40 * MIB else 0)
    sink.commit()
    assert contents(world, landing.finish(soon(30)).id) == [bytes(expected)]
    sent = [one for one in world.server.requests if one.label == "PUT prism/objects/vmm-images/{}"]
    assert len(sent) >= 5


def test_holes_are_not_sent(world: PrismWorld) -> None:
    wish = plain_wish(world, Drive("a", "virtio", 2048 * MIB))
    landing = world.connector().land(wish, soon(30))
    sink = landing.open("a")
    sink.zero(0, 2047 * MIB)
    write(sink, (2047 * MIB, b"at the end"))
    (image,) = world.server.replicas.images.images.values()
    with world.lab as lab:
        assert lab.disks[image.disk].capacity == 2048 * MIB
        assert lab.read(image.disk, 2047 * MIB, 10) == b"at the end"
        assert lab.disks[image.disk].used_mib < 3
    landing.finish(soon(30))


def test_a_guest_that_writes_the_header_of_an_image_on_its_disk_gets_it_back_as_it_is(world: PrismWorld) -> None:
    """Whoever made a flat disk of it would have Prism look for what the header names."""
    header = struct.pack(">4sIQI", b"QFI\xfb", 2, 104, 11) + bytes(84) + b"/etc/passwd"
    ref = landed(world.connector(), plain_wish(world), header)
    assert contents(world, ref.id) == [header + bytes(3 * MIB - len(header))]


def test_parts_are_never_too_many_nor_too_small_for_s3() -> None:
    for size in (1, 100 << 30, 3 << 40, 60 << 40):
        parts = Parts(size)
        assert parts.length >= uploads.PART > 5 * MIB
        assert parts.length < 5 << 30 or size > 40 << 40
        assert (size + size // 4096) / parts.length < 10_000


def test_what_goes_into_parts_comes_out_of_them_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PART", 1000)
    monkeypatch.setattr(uploads, "FIRST_PART", CLUSTER + 300)
    parts, data = Parts(10), os.urandom(7_777)
    monkeypatch.setattr(Parts, "length", 1000)
    found: dict[int, bytes] = {}
    for start in range(0, len(data), 501):
        found |= dict(parts.add(data[start : start + 501]))
    found |= dict(parts.end(b"header"))
    assert sorted(found) == list(range(1, 10))
    assert {len(found[number]) for number in range(2, 9)} == {1000}
    whole = b"".join(found[number] for number in sorted(found))
    assert whole == b"header".ljust(CLUSTER, b"\0") + data


# --- what the machine is ---------------------------------------------------------------------------------------------


def addresses(machine: Machine) -> list[tuple[str, int]]:
    return [(bus, index) for bus, index in machine.marks["addresses"]]


def test_disks_hang_on_what_their_system_knows(world: PrismWorld) -> None:
    """SCSI is virtio-scsi here: a system that had another maker's SCSI may not know it."""
    for bus, booted_on, expected, warns in (
        ("virtio-scsi", (), "SCSI", False),
        ("virtio", (), "PCI", False),
        ("pvscsi", (), "SATA", True),
        ("scsi", ("virtio",), "PCI", False),
        ("ide", (), "IDE", False),
        ("nvme", (), "SATA", True),
    ):
        wish = plain_wish(world, Drive("a", bus, MIB), booted_on=booted_on, name=f"on {bus}")
        landing = world.connector().land(wish, soon(30))
        write(landing.open("a"))
        assert addresses(seen(world, landing.finish(soon(30)))) == [(expected, 0)], bus
        assert any("not known to boot" in words for words in landing.warnings) == warns, bus


def test_a_bus_that_is_full_gives_way_to_the_next(world: PrismWorld) -> None:
    drives = [Drive(f"d{number}", "ide", MIB) for number in range(5)]
    machine = seen(world, landed(world.connector(), plain_wish(world, *drives)))
    assert addresses(machine) == [("IDE", 0), ("IDE", 1), ("IDE", 2), ("IDE", 3), ("SATA", 0)]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "secure"])
def test_firmware_and_secure_boot_are_kept(world: PrismWorld, secure: bool) -> None:
    """Q35, which Secure Boot wants, has no IDE."""
    wish = plain_wish(world, Drive("a", "ide", MIB), firmware="uefi", secure_boot=secure)
    marks = seen(world, landed(world.connector(), wish)).marks
    assert (marks["firmware"], marks["secure_boot"]) == ("uefi", secure)
    assert marks["machine_type"] == ("Q35" if secure else "PC")
    assert marks["addresses"] == [["SATA" if secure else "IDE", 0]]


def test_cards_are_on_the_wished_networks_and_keep_what_they_were(world: PrismWorld) -> None:
    first, second = world.lab.networks
    nics = (
        Nic("virtio", "52-54-00-00-00-01", "LAN"),
        Nic("e1000", "52:54:00:00:00:02", "LAN"),
        Nic("vmxnet3", "", "LAN"),
    )
    wish = plain_wish(world, nics=nics, networks=(second, "", first))
    landing = world.connector().land(wish, soon(30))
    write(landing.open("vda"))
    machine = seen(world, landing.finish(soon(30)))
    assert machine.nics[0].network == second
    assert [nic.is_connected for nic in machine.nics] == [True, False, True]
    assert [nic.mac for nic in machine.nics][:2] == ["52:54:00:00:00:01", "52:54:00:00:00:02"]
    assert [machine.marks["models"][nic.id] for nic in machine.nics] == ["VIRTIO", "E1000", "E1000"]
    assert machine.nics[2].network == first
    assert "Network card 3 is a new one for the system, E1000: it was vmxnet3." in " ".join(landing.warnings)


def test_an_address_that_another_machine_has_is_not_given_twice(world: PrismWorld) -> None:
    other = stand(world, sizes=(1,))
    nics = (Nic("virtio", other.nics[0].mac, "LAN"),)
    landing = world.connector().land(plain_wish(world, nics=nics, networks=tuple(world.lab.networks)[:1]), soon(30))
    write(landing.open("vda"))
    machine = seen(world, landing.finish(soon(30)))
    assert machine.nics[0].mac != other.nics[0].mac
    assert "Network card 1 has another address" in " ".join(landing.warnings)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_not_found_in_words(world: PrismWorld) -> None:
    connector, nics = world.connector(), (Nic("virtio", "", "LAN"),)
    with pytest.raises(NotFound, match=r"Storage container .* is not on"):
        connector.land(plain_wish(world, storage=new_key()), soon())
    with pytest.raises(NotFound, match=r"Network .* is not on"):
        connector.land(plain_wish(world, nics=nics, networks=(new_key(),)), soon())
    with pytest.raises(NotFound, match=r"Host .* is not on"):
        connector.land(plain_wish(world, host=new_key()), soon())
    landing = connector.land(plain_wish(world, host=next(iter(world.lab.hosts))), soon())
    with pytest.raises(NotFound, match="no disk 'vdz'"):
        landing.open("vdz")
    with pytest.raises(Conflict, match="not there in whole"):
        landing.finish(soon())


def test_what_cannot_be_is_said_in_words(world: PrismWorld) -> None:
    connector = world.connector()
    wish = plain_wish(world)
    empty = dataclasses.replace(wish, configuration=dataclasses.replace(wish.configuration, disks=()))
    with pytest.raises(Unsupported, match="holds no disk"):
        connector.land(empty, soon())
    with pytest.raises(Unsupported, match="Name one for each"):
        connector.land(plain_wish(world, networks=tuple(world.lab.networks)), soon())
    with pytest.raises(Unsupported, match="longer than 80"):
        connector.land(plain_wish(world, name="x" * 81), soon())
    with pytest.raises(Unsupported, match="kept for"):
        connector.land(plain_wish(world, name=f"dsky-point.{new_key()}.{'0' * 16}.x"), soon())


def test_an_api_key_cannot_send_disks_and_owes_nothing(world: PrismWorld) -> None:
    connector = world.connector(sign_in="api_key", api_key=world.server.account.api_key)
    wish = plain_wish(world)
    with pytest.raises(Unsupported, match=r"knows no API keys. Register it with a user and a password"):
        connector.land(wish, soon())
    connector.clear(wish.key, soon())


def test_an_object_store_that_lets_nobody_in_is_told_before_anything_is_sent(world: PrismWorld) -> None:
    """Seen on pc.7.5 with ordinary users."""
    world.server.objects.forbids = True
    wish, connector = plain_wish(world), world.connector()
    with pytest.raises(Unsupported, match=r"does not let this account put images there. Some releases .*pc\.7\.5"):
        connector.land(wish, soon())
    connector.clear(wish.key, soon())


def test_without_an_object_store_it_is_said_what_is_missing(world: PrismWorld) -> None:
    world.faults.add("status", "prism/objects", count=-1, status=404, body="<html/>")
    with pytest.raises(Unsupported, match="has no object store"):
        world.connector().land(plain_wish(world), soon())


def test_a_wrong_password_is_told_by_the_store_too(world: PrismWorld, tmp_path: Path) -> None:
    store = store_of(world, tmp_path)
    world.server.account = dataclasses.replace(world.server.account, password="another")
    with pytest.raises(ConnectorError, match="refuses the account") as refused:
        store.keys("x", soon())
    assert (
        base64.b64encode(b"deskyard:another").decode() not in f"{refused.value.message}{refused.value.platform_words}"
    )
    store.close()


# --- no room, no line ------------------------------------------------------------------------------------------------


def test_no_room_for_the_machine_is_said_and_nothing_is_left(world: PrismWorld) -> None:
    connector, wish = world.connector(), plain_wish(world)
    landing = connector.land(wish, soon(30))
    sink = landing.open("vda")
    with world.lab as lab:
        lab.fill(wish.storage)
    sink.write(0, os.urandom(2 * MIB))
    with pytest.raises(OutOfSpace, match="No room for Disk vda of landed"):
        sink.commit()
    sink.abandon()
    connector.clear(wish.key, soon(30))
    assert left(world) == {}


def test_no_room_for_its_copies_is_said_and_nothing_is_left(world: PrismWorld) -> None:
    connector = world.connector()
    with world.lab as lab:
        small = lab.add_storage("small", capacity_mib=2)
    wish = plain_wish(world, storage=small.id)
    landing = connector.land(wish, soon(30))
    write(landing.open("vda"), (0, os.urandom(3 * MIB)))
    with pytest.raises(CapacityExhausted):
        landing.finish(soon(30))
    connector.clear(wish.key, soon(30))
    assert left(world) == {}
    assert "landed" not in world.names().values()


def test_no_room_in_the_object_store_is_said(world: PrismWorld) -> None:
    world.server.objects.room = MIB
    landing = world.connector().land(plain_wish(world), soon(30))
    sink = landing.open("vda")
    sink.write(0, os.urandom(2 * MIB))
    with pytest.raises(OutOfSpace, match=r"object store .* has no room"):
        sink.commit()
    sink.abandon()
    assert left(world) == {}


PART = r"^PUT prism/objects/vmm-images/\{\}$"


def test_a_line_that_breaks_while_a_part_is_sent_is_taken_up_again(world: PrismWorld) -> None:
    wish, data = plain_wish(world), os.urandom(3 * MIB)
    landing = world.connector().land(wish, soon(30))
    rules = [world.faults.add(kind, PART) for kind in ("drop_before", "drop_after")]
    rules.append(world.faults.add("drop_after", r"^POST prism/objects", skip=1))
    rules.append(world.faults.add("status", r"^DELETE prism/objects", status=503))
    write(landing.open("vda"), (0, data))
    assert contents(world, landing.finish(soon(30)).id) == [data]
    assert [rule.struck for rule in rules] == [1, 1, 1, 1]
    assert left(world) == {}


def test_a_line_that_stays_broken_is_an_error_to_try_again_and_nothing_is_left(world: PrismWorld) -> None:
    wish, connector = plain_wish(world), world.connector()
    landing = connector.land(wish, soon(30))
    sink = landing.open("vda")
    world.faults.add("drop_before", PART, count=-1)
    sink.write(0, os.urandom(MIB))
    with pytest.raises(SinkLost, match="cannot be sent") as lost:
        sink.commit()
    assert lost.value.retry
    world.faults.clear()
    connector.clear(wish.key, soon(30))
    assert left(world) == {}
    sink.abandon()


def test_a_certificate_that_changes_gets_no_byte_more(world: PrismWorld) -> None:
    landing = world.connector().land(plain_wish(world), soon(30))
    sink = landing.open("vda")
    world.server.change_certificate()
    world.server.cut_off()
    world.server.come_back()
    sink.write(0, b"secret")
    with pytest.raises(SinkRefused, match="certificate that is not the trusted one"):
        sink.commit()
    assert not [one for one in world.server.requests if one.label == "PUT prism/objects/vmm-images/{}"]


@pytest.mark.parametrize("kind", ["CreateImage", "CreateVm"])
def test_a_task_that_fails_midway_leaves_nothing(world: PrismWorld, kind: str) -> None:
    wish, connector = plain_wish(world), world.connector()
    landing = connector.land(wish, soon(30))
    world.faults.add("task_fails", kind)
    sink = landing.open("vda")
    with pytest.raises(SinkRefused if kind == "CreateImage" else ConnectorError):
        end(landing, sink)
    sink.abandon()
    connector.clear(wish.key, soon(30))
    assert left(world) == {}
    assert world.machines() == {}
    assert contents(world, landed(connector, wish, b"data").id)[0].startswith(b"data")


def end(landing: Landing, sink: Sink) -> None:
    """All that makes tasks of Prism's."""
    write(sink, (0, b"data"))
    landing.finish(soon(30))


def test_a_machine_whose_making_failed_late_is_removed(world: PrismWorld) -> None:
    wish, connector = plain_wish(world), world.connector()
    landing = connector.land(wish, soon(30))
    write(landing.open("vda"))
    world.server.replicas.breaks_late = True
    with pytest.raises(ConnectorError):
        landing.finish(soon(30))
    assert world.machines() == {}
    world.server.replicas.breaks_late = False
    ref = landed(connector, wish)
    assert list(world.machines()) == [ref.id]


def test_an_answer_that_is_lost_makes_no_second_machine(world: PrismWorld) -> None:
    landing = world.connector().land(plain_wish(world), soon(30))
    write(landing.open("vda"))
    rule = world.faults.add("drop_after", r"^POST vmm/ahv/config/vms$")
    ref = landing.finish(soon(30))
    assert rule.struck == 1
    assert landing.finish(soon(30)) == ref
    assert list(world.machines()) == [ref.id]


# --- what is left behind ---------------------------------------------------------------------------------------------


def test_clearing_leaves_what_is_others(world: PrismWorld) -> None:
    wish = plain_wish(world, Drive("a", "sata", MIB), Drive("b", "sata", MIB))
    landing = world.connector().land(wish, soon(30))
    write(landing.open("a"))
    landing.open("b").write(0, b"half")
    others = {"golden.qcow2", landing_prefix(THEIRS, wish.key) + "x", landing_prefix(OURS, new_key()) + "x"}
    machine = stand(world, sizes=(1,))
    with world.lab:
        for name in others:
            world.server.replicas.images.from_disk({"name": name, "type": "DISK_IMAGE"}, machine.disks[0])
            path = Path(world.server.objects._home.name) / str(len(world.server.objects.objects))
            path.write_bytes(b"theirs")
            world.server.objects.objects["vmm-images", name] = path
    for _ in range(2):
        world.connector().clear(wish.key, soon(30))
        found = {kind: set(names) for kind, names in left(world).items()}
        assert found == {"images": others, "objects": others}


def test_a_finished_machine_is_left_alone(world: PrismWorld) -> None:
    wish = plain_wish(world)
    ref = landed(world.connector(), wish, b"data")
    world.connector().clear(wish.key, soon(30))
    assert contents(world, ref.id)[0].startswith(b"data")


def test_an_image_that_a_lost_mover_had_in_the_making_is_cleared_too(world: PrismWorld) -> None:
    """It is not there yet when it is looked for the first time; what else there is tells that somebody was at work."""
    wish, connector = plain_wish(world, Drive("a", "sata", MIB), Drive("b", "sata", MIB)), world.connector()
    landing = connector.land(wish, soon(30))
    write(landing.open("a"))
    world.lab.task_s["CreateImage"] = 30.0
    sink = landing.open("b")
    rule = world.faults.add("hang", r"^GET prism/config/tasks")
    assert rule.struck == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uploads, "COMMIT_S", 0.4)
        with pytest.raises(SinkLost):
            sink.commit()
    world.faults.clear()
    assert len(left(world)["images"]) == 1
    world.connector().clear(wish.key, soon(30))
    assert left(world) == {}


def test_a_store_that_cannot_tell_what_it_holds_is_no_reason_to_fail(world: PrismWorld) -> None:
    world.server.objects.lists = False
    ref = landed(world.connector(), plain_wish(world), b"data")
    assert contents(world, ref.id)[0].startswith(b"data")
    assert left(world) == {}


def test_abandoning_a_disk_leaves_nothing_of_it(world: PrismWorld) -> None:
    landing = world.connector().land(plain_wish(world), soon(30))
    sink = landing.open("vda")
    sink.write(0, os.urandom(MIB))
    assert left(world).keys() == {"uploads"}
    for _ in range(2):
        sink.abandon()
    assert left(world) == {}
    with pytest.raises(ValueError, match="has ended"):
        sink.commit()


def test_every_request_to_the_object_store_is_signed(world: PrismWorld, tmp_path: Path) -> None:
    """A signature that is not right is refused: the lab computes it by itself."""
    store = store_of(world, tmp_path)
    key = "dsky-landing.a b+c/ä.1"
    upload = store.begin(key, soon())
    etags = {number: store.put(key, upload, number, b"x" * (5 * MIB), soon()) for number in (1, 2)}
    assert store.uploads("dsky-", soon()) == [(key, upload)]
    store.complete(key, upload, etags, soon())
    assert store.keys("dsky-landing.a b", soon()) == [key]
    store.delete(key, soon())
    assert store.keys("", soon()) == []
    store.close()
    sent = [one for one in world.server.requests if one.label == "PUT prism/objects/vmm-images/{}"]
    assert {one.headers["X-Amz-Content-SHA256"] for one in sent} == {sha256(b"x" * (5 * MIB)).hexdigest()}


def test_what_was_uploaded_is_an_image_as_qemu_has_it(world: PrismWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def keep(self: objects.ObjectStore, key: str, deadline: float) -> None:
        kept.append(world.server.objects.objects["vmm-images", key])

    landing = world.connector().land(plain_wish(world), soon(30))
    monkeypatch.setattr(objects.ObjectStore, "delete", keep)
    write(landing.open("vda"), (MIB, os.urandom(MIB)))
    done = subprocess.run(["qemu-img", "check", "-f", "qcow2", kept[0]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- a template ------------------------------------------------------------------------------------------------------


def test_a_landed_template_is_listed_cloned_from_and_kept(world: PrismWorld) -> None:
    connector, wish = world.connector(), plain_wish(world, is_template=True)
    data = os.urandom(200_000)
    made = landed(connector, wish, data)
    assert made.stamp is None
    holds = [data + bytes(3 * MIB - len(data))]
    templates.prove(world, connector, made, wish.key, holds, lambda machine: contents(world, machine.id))
    again = world.connector().land(wish, soon(30))
    assert again.is_done, "clones do not bear their template's mark"
    assert again.finish(soon(30)) == made
    world.connector().clear(wish.key, soon(30))
    assert contents(world, made.id) == holds


def test_where_templates_bear_a_category_a_landed_one_bears_it_too(world: PrismWorld) -> None:
    world.server.categories["category-1"] = ("Deskyard", "Template")
    connector = world.connector(template_category="Deskyard:Template")
    made = landed(connector, plain_wish(world, is_template=True))
    seen_there = listing(connector)
    assert made.id in {one.id for one in seen_there.templates}
    assert made.id not in {one.id for one in seen_there.machines}


def test_a_template_without_its_category_is_refused_in_words(world: PrismWorld) -> None:
    connector = world.connector(template_category="Deskyard:Template")
    with pytest.raises(Unsupported, match="no category Deskyard:Template"):
        landed(connector, plain_wish(world, is_template=True))
    assert "landed" not in world.names().values()
