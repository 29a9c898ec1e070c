"""Recovery points, images, machines from descriptions and the object store, as clients of Prism Central meet them.

Amazon's own client speaks to the object store: what it signs is right, whatever the lab thinks.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from lab.clock import Clock
from lab.nouns import Machine
from lab.nutanix import PrismServer
from lab.nutanix.objects import ROOT
from lab.nutanix.views import cluster_id
from lab.world import World

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

MIB = 1 << 20
API = "/api/vmm/v4.2"
POINTS = "/api/dataprotection/v4.2/config/recovery-points"


@pytest.fixture
def world() -> World:
    world = World("prism", clock=Clock(0))
    world.add_host("ahv-01")
    world.add_storage("container", capacity_mib=100)
    world.add_network("desktops", vlan=20)
    return world


@pytest.fixture
def machine(world: World) -> Machine:
    with world:
        machine = world.create("server", disks_mib=(4, 2))
        for disk in machine.disks:
            world.write(disk, MIB, b"then")
        return machine


@pytest.fixture
def server(world: World) -> Iterator[PrismServer]:
    with PrismServer(world, "127.0.0.4", tls=False) as server:
        assert isinstance(server, PrismServer)
        server.rates = {"*": 1_000, "GET *": 1_000}
        yield server


@pytest.fixture
def client(server: PrismServer) -> Iterator[httpx.Client]:
    account = (server.account.user, server.account.password)
    with httpx.Client(base_url=server.url, auth=account, trust_env=False) as client:
        yield client


@pytest.fixture
def store(server: PrismServer) -> Iterator[S3Client]:
    yield from s3(server, f"{server.account.user}:{server.account.password}")


def s3(server: PrismServer, account: str) -> Iterator[S3Client]:
    """As the vendor's snippets make it."""
    secret = base64.b64encode(account.encode()).decode()
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    client: S3Client = boto3.session.Session().client(
        "s3", endpoint_url=server.url + ROOT, region_name="eu-north-1", aws_access_key_id=secret,
        aws_secret_access_key=secret, config=config,
    )  # fmt: skip
    yield client
    client.close()


def ask(client: httpx.Client, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> httpx.Response:
    return client.request(method, path, json=body, headers={"NTNX-Request-Id": os.urandom(8).hex()})


def task(world: World, client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """As it has ended."""
    assert answer.status_code == 202, answer.text
    world.clock.advance(30)
    seen: dict[str, Any] = client.get(f"/api/prism/v4.2/config/tasks/{answer.json()['data']['extId']}").json()["data"]
    return seen


def take(world: World, client: httpx.Client, machine: Machine, **more: Any) -> str:
    body = {"name": "p", "vmRecoveryPoints": [{"vmExtId": machine.id}], **more}
    (detail,) = task(world, client, ask(client, POINTS, body))["completionDetails"]
    assert detail["name"] == "recoveryPointExtId"
    return str(detail["value"])


def image_of(disk: str, **more: Any) -> dict[str, Any]:
    source = {"$objectType": "vmm.v4.content.VmDiskSource", "extId": disk, **more}
    return {"name": "i", "type": "DISK_IMAGE", "source": source}


def make_image(world: World, client: httpx.Client, body: dict[str, Any]) -> str:
    ended = task(world, client, ask(client, f"{API}/content/images", body))
    assert ended["status"] == "SUCCEEDED", ended
    return str(ended["entitiesAffected"][0]["extId"])


# --- recovery points -------------------------------------------------------------------------------------------------


def test_a_recovery_point_stands_still_and_its_disks_are_told_by_a_reading_of_their_own(
    client: httpx.Client, world: World, server: PrismServer, machine: Machine
) -> None:
    disks = list(machine.disks)
    id = take(world, client, machine)
    assert machine.disks == disks, "the machine goes on with the disks that it had"
    with world:
        world.write(machine.disks[0], MIB, b"now!")
    (listed,) = client.get(POINTS).json()["data"]
    (part,) = listed["vmRecoveryPoints"]
    assert "diskRecoveryPoints" not in part
    told = client.get(f"{POINTS}/{id}/vm-recovery-points/{part['extId']}").json()["data"]["diskRecoveryPoints"]
    assert [one["diskExtId"] for one in told] == machine.disks
    kept = server.replicas.recovery.points[id].disks
    assert [one["diskRecoveryPointExtId"] for one in told] == [one.id for one in kept]
    assert world.read(kept[0].disk, MIB, 4) == b"then"


def test_restoring_makes_another_machine_that_is_off_and_bears_what_the_first_one_did(
    client: httpx.Client, world: World, machine: Machine
) -> None:
    machine.marks["description"] = "[deskyard here key]"
    id = take(world, client, machine)
    with world:
        world.write(machine.disks[0], MIB, b"now!")
    override = {"$objectType": "dataprotection.v4.config.AhvVmOverrideSpec", "name": "beside"}
    ended = task(
        world,
        client,
        ask(
            client,
            f"{POINTS}/{id}/$actions/restore",
            {"vmRecoveryPointRestoreOverrides": [{"vmOverrideSpec": override}]},
        ),
    )
    (detail,) = ended["completionDetails"]
    assert detail["name"] == "vmExtIds"
    seen = client.get(f"{API}/ahv/config/vms/{detail['value']}").json()["data"]
    assert (seen["name"], seen["powerState"], seen["description"]) == ("beside", "OFF", "[deskyard here key]")
    assert not {one["extId"] for one in seen["disks"]} & set(machine.disks)
    assert world.read(seen["disks"][0]["extId"], MIB, 4) == b"then"


def test_what_a_recovery_point_cannot_be_is_a_schema_error(client: httpx.Client, machine: Machine) -> None:
    part = [{"vmExtId": machine.id}]
    wrongs: tuple[dict[str, Any], ...] = (
        {"vmRecoveryPoints": []},
        {"vmRecoveryPoints": part, "recoveryPointType": "WHATEVER"},
        {"vmRecoveryPoints": part, "expirationTime": "2020-01-01T00:00:00Z"},
        {"vmRecoveryPoints": part, "expirationTime": "tomorrow"},
    )
    for wrong in wrongs:
        assert ask(client, POINTS, wrong).status_code == 400, wrong
    missing = ask(client, POINTS, {"vmRecoveryPoints": [{"vmExtId": "11111111-2222-4333-8444-555555555555"}]})
    assert missing.status_code == 404


def test_a_recovery_point_outlives_its_machine(client: httpx.Client, world: World, machine: Machine) -> None:
    id = take(world, client, machine)
    with world:
        world.delete(machine.id)
    assert client.get(f"{POINTS}/{id}").status_code == 200
    assert task(world, client, ask(client, f"{POINTS}/{id}", method="DELETE"))["status"] == "SUCCEEDED"
    assert client.get(f"{POINTS}/{id}").status_code == 404
    assert not world.disks


# --- images ----------------------------------------------------------------------------------------------------------


def test_an_image_is_what_the_disk_is_when_the_task_ends(client: httpx.Client, world: World, machine: Machine) -> None:
    """So whoever images the disk of a running machine gets no moment that he chose."""
    answer = ask(client, f"{API}/content/images", image_of(machine.disks[0]))
    with world:
        world.write(machine.disks[0], MIB, b"late")
    id = task(world, client, answer)["entitiesAffected"][0]["extId"]
    got = client.get(f"{API}/content/images/{id}/file")
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert got.content == world.read(machine.disks[0], 0, 4 * MIB)
    assert client.get(f"{API}/content/images/{id}").json()["data"]["sizeBytes"] == 4 * MIB


def test_there_is_no_image_of_a_recovery_points_disk(
    client: httpx.Client, world: World, server: PrismServer, machine: Machine
) -> None:
    (point,) = [server.replicas.recovery.points[take(world, client, machine)]]
    for disk in (point.disks[0].id, point.disks[0].disk):
        assert ask(client, f"{API}/content/images", image_of(disk)).status_code == 404
    assert ask(client, f"{API}/content/images", image_of(machine.disks[0], vmExtId=machine.id)).status_code == 400


def test_a_file_comes_from_the_middle_on_where_that_is_known(
    client: httpx.Client, world: World, server: PrismServer, machine: Machine
) -> None:
    id = make_image(world, client, image_of(machine.disks[0]))
    part = client.get(f"{API}/content/images/{id}/file", headers={"Range": f"bytes={3 * MIB}-"})
    assert (part.status_code, part.headers["Content-Range"]) == (206, f"bytes {3 * MIB}-{4 * MIB - 1}/{4 * MIB}")
    assert part.content == world.read(machine.disks[0], 3 * MIB, MIB)
    server.replicas.has_ranges = False
    whole = client.get(f"{API}/content/images/{id}/file", headers={"Range": f"bytes={3 * MIB}-"})
    assert (whole.status_code, len(whole.content)) == (200, 4 * MIB)


@pytest.mark.parametrize("kind", ["raw", "qcow2", "vmdk"])
def test_what_was_uploaded_becomes_a_flat_disk_whatever_it_is(
    client: httpx.Client, world: World, store: S3Client, tmp_path: Path, kind: str
) -> None:
    flat = tmp_path / "flat"
    flat.write_bytes(bytes(MIB) + os.urandom(MIB) + bytes(MIB))
    subprocess.run(["qemu-img", "convert", "-O", kind, flat, tmp_path / "image"], check=True)
    store.upload_file(str(tmp_path / "image"), "vmm-images", "key")
    source = {"$objectType": "vmm.v4.content.ObjectsLiteSource", "key": "key"}
    id = make_image(world, client, {"name": "i", "type": "DISK_IMAGE", "source": source})
    assert client.get(f"{API}/content/images/{id}/file").content == flat.read_bytes()


def test_an_image_of_nothing_is_refused(client: httpx.Client) -> None:
    source = {"$objectType": "vmm.v4.content.ObjectsLiteSource", "key": "nothing"}
    assert (
        ask(client, f"{API}/content/images", {"name": "i", "type": "DISK_IMAGE", "source": source}).status_code == 404
    )
    assert ask(client, f"{API}/content/images", {"name": "i", "type": "DISK_IMAGE"}).status_code == 400


# --- machines --------------------------------------------------------------------------------------------------------


def description(world: World, *disks: dict[str, Any], **more: Any) -> dict[str, Any]:
    told = {
        "name": "made", "numSockets": 1, "numCoresPerSocket": 2, "memorySizeBytes": 512 * MIB,
        "cluster": {"extId": cluster_id(world)}, "disks": list(disks),
    }  # fmt: skip
    return told | more


def drive(bus: str = "SCSI", index: int = 0, **backing: Any) -> dict[str, Any]:
    told = {"$objectType": "vmm.v4.ahv.config.VmDisk", "diskSizeBytes": MIB, **backing}
    return {"diskAddress": {"busType": bus, "index": index}, "backingInfo": told}


def copy_of(image: str) -> dict[str, Any]:
    return {"dataSource": {"reference": {"$objectType": "vmm.v4.ahv.config.ImageReference", "imageExtId": image}}}


def test_a_machine_of_copies_of_images_outlives_them(client: httpx.Client, world: World, machine: Machine) -> None:
    image = make_image(world, client, image_of(machine.disks[0]))
    ended = task(
        world, client, ask(client, f"{API}/ahv/config/vms", description(world, drive("PCI", 2, **copy_of(image))))
    )
    task(world, client, ask(client, f"{API}/content/images/{image}", method="DELETE"))
    seen = client.get(f"{API}/ahv/config/vms/{ended['entitiesAffected'][0]['extId']}").json()["data"]
    assert seen["disks"][0]["diskAddress"] == {"busType": "PCI", "index": 2}
    assert seen["powerState"] == "OFF"
    assert world.read(seen["disks"][0]["extId"], 0, 4 * MIB) == world.read(machine.disks[0], 0, 4 * MIB)


def test_what_a_machine_cannot_be_is_a_schema_error(client: httpx.Client, world: World, machine: Machine) -> None:
    uefi = {"$objectType": "vmm.v4.ahv.config.UefiBoot", "isSecureBootEnabled": True}
    nic = {"nicNetworkInfo": {"subnet": {"extId": next(iter(world.networks))}}}
    for wrong in (
        description(world, name="x" * 81),
        description(world, numSockets=0),
        description(world, vmName="x"),
        description(world, cluster={"extId": "elsewhere"}),
        description(world, bootConfig=uefi),
        description(world, drive("IDE"), bootConfig=uefi, machineType="Q35"),
        description(world, drive(), drive()),
        description(world, drive("SATA", 6)),
        description(world, drive(dataSource={"reference": {"imageExtId": "x"}})),
        description(world, drive(storageContainer={"extId": "elsewhere"})),
        description(world, nics=[{"nicNetworkInfo": {"subnet": {"extId": "elsewhere"}}}]),
        description(world, nics=[nic | {"nicBackingInfo": {"macAddress": machine.nics[0].mac}}]),
    ):
        assert ask(client, f"{API}/ahv/config/vms", wrong).status_code == 400, wrong
    assert ask(client, f"{API}/ahv/config/vms", description(world, drive(), nics=[nic])).status_code == 202


def test_a_machine_whose_image_went_or_that_has_no_room_is_not_made(
    client: httpx.Client, world: World, machine: Machine
) -> None:
    image = make_image(world, client, image_of(machine.disks[0]))
    body = description(world, drive(), drive(index=1, **copy_of(image)))
    answer = ask(client, f"{API}/ahv/config/vms", body)
    with world:
        before = len(world.disks)
        world.fill(next(iter(world.storages)))
    assert task(world, client, answer)["errorMessages"][0]["errorGroup"] == "VM_STORAGE"
    assert [one.name for one in world.machines.values()] == ["server"]
    assert len(world.disks) == before


# --- the object store ------------------------------------------------------------------------------------------------


def test_amazons_client_uploads_in_parts(store: S3Client, server: PrismServer) -> None:
    upload = store.create_multipart_upload(Bucket="vmm-images", Key="a b/ü+1")["UploadId"]
    data = {number: os.urandom(5 * MIB if number < 3 else 10) for number in (1, 2, 3)}
    parts = [
        store.upload_part(Bucket="vmm-images", Key="a b/ü+1", UploadId=upload, PartNumber=number, Body=body)["ETag"]
        for number, body in data.items()
    ]
    assert store.list_multipart_uploads(Bucket="vmm-images", Prefix="a")["Uploads"][0]["UploadId"] == upload
    told = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(parts, start=1)]
    store.complete_multipart_upload(
        Bucket="vmm-images", Key="a b/ü+1", UploadId=upload, MultipartUpload={"Parts": told}  # type: ignore[typeddict-item]
    )  # fmt: skip
    assert server.objects.objects["vmm-images", "a b/ü+1"].read_bytes() == b"".join(data.values())
    assert [one["Key"] for one in store.list_objects_v2(Bucket="vmm-images")["Contents"]] == ["a b/ü+1"]
    store.delete_object(Bucket="vmm-images", Key="a b/ü+1")
    assert "Contents" not in store.list_objects_v2(Bucket="vmm-images")


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_amazons_client_is_refused_what_s3_refuses(store: S3Client, server: PrismServer) -> None:
    upload = store.create_multipart_upload(Bucket="vmm-images", Key="k")["UploadId"]
    small = store.upload_part(Bucket="vmm-images", Key="k", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    last = store.upload_part(Bucket="vmm-images", Key="k", UploadId=upload, PartNumber=2, Body=b"x")["ETag"]

    def complete(*parts: tuple[int, str]) -> None:
        told: Any = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]}
        store.complete_multipart_upload(Bucket="vmm-images", Key="k", UploadId=upload, MultipartUpload=told)

    with pytest.raises(ClientError) as refused:
        complete((1, small), (2, last))
    assert code(refused) == "EntityTooSmall"
    with pytest.raises(ClientError) as refused:
        complete((2, last), (1, small))
    assert code(refused) == "InvalidPartOrder"
    with pytest.raises(ClientError) as refused:
        complete((1, '"other"'))
    assert code(refused) == "InvalidPart"
    store.abort_multipart_upload(Bucket="vmm-images", Key="k", UploadId=upload)
    with pytest.raises(ClientError) as refused:
        complete((1, small))
    assert code(refused) == "NoSuchUpload"
    with pytest.raises(ClientError) as refused:
        store.put_object(Bucket="elsewhere", Key="k", Body=b"")
    assert code(refused) == "NoSuchBucket"
    server.objects.room = 10
    with pytest.raises(ClientError) as refused:
        store.put_object(Bucket="vmm-images", Key="k", Body=b"x" * 11)
    assert code(refused) == "InsufficientStorage"
    assert server.objects.used == 0


def test_who_is_not_the_account_is_refused(server: PrismServer) -> None:
    (client,) = s3(server, "deskyard:wrong")
    with pytest.raises(ClientError) as refused:
        client.list_objects_v2(Bucket="vmm-images")
    assert code(refused) == "InvalidAccessKeyId"
    assert httpx.get(f"{server.url}{ROOT}vmm-images", trust_env=False).status_code == 403


def test_a_body_or_a_path_that_is_not_the_signed_one_is_refused(server: PrismServer, store: S3Client) -> None:
    """Bytes that change on their way do not become a disk."""
    sent: list[dict[str, str]] = []
    store.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(dict(request.headers)))
    store.put_object(Bucket="vmm-images", Key="k", Body=b"right")
    headers = {name: value if isinstance(value, str) else value.decode() for name, value in sent[0].items()}
    for key, body, status in (("k", b"right", 200), ("k", b"wrong", 400), ("other", b"right", 403)):
        answer = httpx.put(f"{server.url}{ROOT}vmm-images/{key}", content=body, headers=headers, trust_env=False)
        assert answer.status_code == status, (key, body)
