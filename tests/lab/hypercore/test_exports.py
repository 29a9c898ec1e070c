"""Exports and uploads of the simulated cluster, asked by a client that is not ours, with a real file server between."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as Xml

import pytest
import requests

from lab.hypercore.devices import MIB, extra_of
from lab.hypercore.shares import share_of
from lab.nouns import Machine
from tests.lab.hypercore.test_cluster import Client, client
from tests.support.samba import SambaServer, private_samba

__all__ = ["client"]


@pytest.fixture(scope="module")
def samba() -> Iterator[SambaServer]:
    with private_samba() as server:
        yield server


def machine(client: Client, name: str = "source") -> Machine:
    world = client.cluster.world
    with world:
        made = world.create(name, disks_mib=(16,), networks=())
        world.write(made.disks[0], 3 * MIB, b"what the guest wrote")
        extra_of(world, made).tags = "web,<odd>"
        return made


def target(samba: SambaServer, folder: str, **more: Any) -> dict[str, Any]:
    account = f"{samba.user}:{quote(samba.password, safe='')}"
    uri = f"smb://{account}@127.0.0.1:{samba.port}/{samba.share}/{folder}"
    return {"target": {"pathURI": uri, **more}, "template": {}}


def raw_of(image: Path, to: Path) -> bytes:
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, to], check=True)
    return to.read_bytes()


def content(client: Client, disk: str) -> bytes:
    world = client.cluster.world
    return world.read(disk, 0, world.disks[disk].capacity)


# --- exports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_compressed", [False, True])
def test_an_export_is_the_machine_as_it_was_when_it_began(
    is_compressed: bool, client: Client, samba: SambaServer, tmp_path: Path
) -> None:
    made, world = machine(client), client.cluster.world
    then = content(client, made.disks[0])
    body = target(samba, f"whole-{is_compressed}", format="qcow2", compress=is_compressed)
    answer = client.ask("POST", f"/VirDomain/{made.id}/export", body).json()
    with world:
        world.write(made.disks[0], 0, b"later")
    assert client.wait(answer["taskTag"])["state"] == "COMPLETE"
    folder = samba.files / f"whole-{is_compressed}"
    (device,) = extra_of(world, made).devices
    assert sorted(path.name for path in folder.iterdir()) == sorted(["source.xml", f"{device.uuid}.qcow2"])
    assert raw_of(folder / f"{device.uuid}.qcow2", tmp_path / "raw") == then
    definition = (folder / "source.xml").read_bytes()
    assert definition.endswith(b"\0"), "readers strip them"
    root = Xml.fromstring(definition.replace(b"\0", b""))  # noqa: S314 - our own
    assert [source.get("name") for source in root.iterfind(".//disk[@device='disk']/source")] == [
        f"scribe/{device.uuid}"
    ]
    assert [tag.get("name") for tag in root.iterfind(".//scale-metadata/tags/tag")] == ["web", "<odd>"]


def test_while_it_goes_on_other_changes_are_taken_but_the_machine_is_not_deleted(
    client: Client, samba: SambaServer
) -> None:
    made = machine(client)
    client.cluster.task_s["Export"] = 1_000.0
    client.ask("POST", f"/VirDomain/{made.id}/export", target(samba, "long"))
    _, task = client.change("PATCH", f"/VirDomain/{made.id}", {"description": "changed meanwhile"})
    assert task["state"] == "COMPLETE"
    assert client.refused("DELETE", f"/VirDomain/{made.id}") == (400, "VirDomain is being exported")


def test_three_go_on_at_a_time_and_a_fourth_waits(client: Client, samba: SambaServer) -> None:
    machines = [machine(client, f"m{number}") for number in range(4)]
    client.cluster.task_s["Export"] = 30.0
    tags = [
        client.ask("POST", f"/VirDomain/{one.id}/export", target(samba, one.name)).json()["taskTag"] for one in machines
    ]
    states = [client.get(f"/TaskTag/{tag}")[0]["state"] for tag in tags]
    assert states == ["RUNNING", "RUNNING", "RUNNING", "QUEUED"]
    client.cluster.world.clock.advance(60)
    assert client.wait(tags[3])["state"] == "COMPLETE"


def test_what_breaks_off_leaves_what_it_has_written_which_is_no_image(client: Client, samba: SambaServer) -> None:
    made = machine(client)
    client.cluster.world.faults.add("task_fails", "^Export$")
    _, task = client.change("POST", f"/VirDomain/{made.id}/export", target(samba, "half"))
    assert task["state"] == "ERROR"
    (image,) = (samba.files / "half").glob("*.qcow2")
    assert subprocess.run(["qemu-img", "check", "-f", "qcow2", image], capture_output=True, check=False).returncode
    client.cluster.world.clock.advance(60)
    with client.cluster.world as world:
        assert len(world.disks) == 2, "the template's and the machine's: what was frozen for the export is gone"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"user": "nobody:wrong"}, "LOGON_FAILURE"),
        ({"share": "missing"}, "BAD_NETWORK_NAME"),
        ({"share": "read-only"}, "ACCESS_DENIED"),
        ({"port": "9"}, "CONNECTION_REFUSED"),
    ],
)
def test_a_share_that_is_not_to_be_had_fails_the_task(
    change: dict[str, str], words: str, client: Client, samba: SambaServer
) -> None:
    made = machine(client)
    told = {"user": f"{samba.user}:{quote(samba.password, safe='')}", "port": str(samba.port), "share": samba.share}
    told |= change
    uri = f"smb://{told['user']}@127.0.0.1:{told['port']}/{told['share']}/x"
    _, task = client.change("POST", f"/VirDomain/{made.id}/export", {"target": {"pathURI": uri}})
    assert task["state"] == "ERROR"
    assert words in task["messageParameters"][0]


def test_what_an_export_does_not_know_is_refused(client: Client, samba: SambaServer) -> None:
    path = f"/VirDomain/{machine(client).id}/export"
    body = target(samba, "x")
    assert client.refused("POST", path, {**body, "snapUUID": "x"}) == (400, "Property not allowed: snapUUID")
    assert client.refused("POST", path, target(samba, "x", snapUUID="x"))[0] == 400
    assert client.refused("POST", path, target(samba, "x", format="vmdk"))[0] == 400
    assert client.refused("POST", path, {"target": {"pathURI": "//nas/share/x"}}) == (400, "Invalid pathURI")
    assert client.refused("POST", path, {"target": {"pathURI": "smb://u:p@nas/share"}})[0] == 400


def test_an_address_is_taken_apart_and_decoded() -> None:
    found = share_of("smb://DOM;joe%20d:p%40s%2F@nas:44/vm%20store/a/b%26c")
    assert (found.domain, found.user, found.password) == ("DOM", "joe d", "p@s/")
    assert (found.host, found.port, found.share, found.folder) == ("nas", 44, "vm store", "a/b&c")


# --- uploads ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """16 MiB with something at both ends."""
    raw = tmp_path / "image.raw"
    with raw.open("wb") as file:
        file.write(b"a" * MIB)
        file.seek(16 * MIB - 3)
        file.write(b"end")
    path = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    return path


def put(client: Client, image: Path, name: str = "disk.qcow2", size: int | None = None) -> requests.Response:
    query = {"filename": name, "filesize": str(image.stat().st_size if size is None else size)}
    url = f"{client.base}/VirtualDisk/upload"
    return client.http.put(url, params=query, data=image.read_bytes(), timeout=30)


def named(client: Client) -> list[str]:
    return [record["name"] for record in client.get("/VirtualDisk")]


def uploaded(client: Client, image: Path) -> str:
    said = put(client, image).json()
    client.wait(said["taskTag"])
    until = time.monotonic() + 5
    while named(client) != ["disk.qcow2"]:
        assert time.monotonic() < until
        time.sleep(0.02)
    found: str = said["createdUUID"]
    return found


def attach(client: Client, disk: str, to: Machine, **options: Any) -> tuple[str, dict[str, Any]]:
    template = {"virDomainUUID": to.id, "type": "SCSI_DISK", "capacity": 16 * MIB}
    body = {"options": options, "template": template}
    return client.change("POST", f"/VirtualDisk/{disk}/attach", body)


def test_an_upload_goes_by_its_name_from_one_state_to_the_next(client: Client, image: Path) -> None:
    client.cluster.world.clock.speed = 0
    said = put(client, image).json()
    assert named(client) == ["uploading-disk.qcow2"]
    client.cluster.world.clock.advance(client.cluster.task_s["Upload"])
    assert client.get(f"/TaskTag/{said['taskTag']}")[0]["state"] == "COMPLETE", "which says nothing of the converting"
    assert named(client) == ["converting-disk.qcow2"]
    client.cluster.world.clock.advance(client.cluster.converting_s)
    assert named(client) == ["disk.qcow2"]
    (record,) = client.get(f"/VirtualDisk/{said['createdUUID']}")
    assert record["capacityBytes"] == 16 * MIB


def test_what_is_attached_is_a_copy_and_byte_for_byte_what_was_uploaded(
    client: Client, image: Path, tmp_path: Path
) -> None:
    disk, to = uploaded(client, image), machine(client)
    devices = [attach(client, disk, to, regenerateDiskID=False)[0] for _ in range(2)]
    world = client.cluster.world
    with world:
        there = {device.uuid: device.disk for device in extra_of(world, to).devices}
        world.write(there[devices[0]], 0, b"changed")
    assert content(client, there[devices[1]]) == raw_of(image, tmp_path / "again")
    assert named(client) == ["disk.qcow2"]


def test_a_disk_whose_id_is_made_anew_is_another_disk(client: Client, image: Path, tmp_path: Path) -> None:
    disk, to = uploaded(client, image), machine(client)
    device, _ = attach(client, disk, to)
    found = next(one for one in extra_of(client.cluster.world, to).devices if one.uuid == device)
    assert found.has_new_identity
    assert content(client, found.disk) != raw_of(image, tmp_path / "again")


def test_an_attached_disk_is_at_least_as_large_as_the_image(client: Client, image: Path) -> None:
    disk, to = uploaded(client, image), machine(client)
    for asked, got in ((MIB, 16 * MIB), (20 * MIB, 20 * MIB)):
        template = {"virDomainUUID": to.id, "type": "VIRTIO_DISK", "capacity": asked}
        device, _ = client.change("POST", f"/VirtualDisk/{disk}/attach", {"template": template})
        assert next(one for one in client.vm(to.id)["blockDevs"] if one["uuid"] == device)["capacity"] == got
    body = {"template": {"virDomainUUID": to.id, "type": "VIRTIO_DISK"}}
    assert client.refused("POST", f"/VirtualDisk/{disk}/attach", body)[0] == 400


def test_an_image_that_is_still_taken_apart_cannot_be_attached(client: Client, image: Path) -> None:
    client.cluster.converting_s = 1_000.0
    said = put(client, image).json()
    client.wait(said["taskTag"])
    body = {"template": {"virDomainUUID": machine(client).id, "type": "VIRTIO_DISK", "capacity": MIB}}
    assert client.refused("POST", f"/VirtualDisk/{said['createdUUID']}/attach", body)[0] == 400


def test_a_deleted_image_shows_for_a_moment_and_no_task_tells_when_it_is_gone(client: Client, image: Path) -> None:
    disk = uploaded(client, image)
    client.cluster.world.clock.speed = 0
    assert client.ask("DELETE", f"/VirtualDisk/{disk}").json() == {"taskTag": "", "createdUUID": ""}
    assert named(client) == ["disk.qcow2"]
    client.cluster.world.clock.advance(1)
    assert named(client) == []
    with client.cluster.world as world:
        assert len(world.disks) == 1


def test_uploads_are_of_a_known_kind_and_a_known_length(client: Client, image: Path, tmp_path: Path) -> None:
    assert put(client, image, "disk.iso").json() == {"error": "File type is invalid"}
    assert put(client, image, size=7).status_code == 400
    url = f"{client.base}/VirtualDisk/upload?filename=disk.qcow2&filesize={image.stat().st_size}"
    assert client.http.put(url, data=iter([image.read_bytes()]), timeout=30).status_code == 400, "in chunks"
    garbage = tmp_path / "garbage.qcow2"
    garbage.write_bytes(b"nothing" * 1000)
    assert client.wait(put(client, garbage).json()["taskTag"])["state"] == "ERROR"
    backed = tmp_path / "backed.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, backed], check=True)
    assert client.wait(put(client, backed).json()["taskTag"])["state"] == "ERROR", "it would read others' files"
    assert named(client) == []


def test_one_that_broke_off_stays_behind_under_its_first_name(client: Client, image: Path) -> None:
    client.cluster.breaks_uploads = 1
    with pytest.raises(requests.ConnectionError):
        put(client, image)
    assert named(client) == ["uploading-disk.qcow2"]


def test_a_full_storage_fails_the_task_and_keeps_nothing(client: Client, image: Path) -> None:
    with client.cluster.world as world:
        world.fill(next(iter(world.storages)))
    task = client.wait(put(client, image).json()["taskTag"])
    assert task["state"] == "ERROR"
    assert "insufficient storage" in task["formattedMessage"]
    assert named(client) == []
