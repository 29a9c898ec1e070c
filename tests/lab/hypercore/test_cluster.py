"""The simulated cluster, asked by a client that is not ours: plain HTTP calls as the vendor's tools make them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from lab.clock import Clock
from lab.hypercore.cluster import Cluster
from lab.hypercore.devices import MIB, extra_of
from lab.hypercore.server import HyperCoreNode, start_cluster
from lab.nouns import Power
from lab.world import World

USER, PASSWORD = "admin", "s3cret"


class Client:
    """A foreign client: Basic authentication unless it signs in, and it waits for each task."""

    def __init__(self, cluster: Cluster, node: HyperCoreNode) -> None:
        self.cluster = cluster
        self.node = node
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.auth = (USER, PASSWORD)
        self.base = f"{node.url}/rest/v1"

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self.http.request(method, self.base + path, json=body, timeout=30)

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def change(self, method: str, path: str, body: Any = None) -> tuple[str, dict[str, Any]]:
        """The created uuid, and the task once it has ended."""
        answer = self.ask(method, path, body)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        return said["createdUUID"], self.wait(said["taskTag"])

    def wait(self, tag: str) -> dict[str, Any]:
        until = time.monotonic() + 5
        while True:
            (task,) = self.get(f"/TaskTag/{tag}")
            if task["state"] not in ("QUEUED", "RUNNING"):
                found: dict[str, Any] = task
                return found
            assert time.monotonic() < until
            time.sleep(0.02)

    def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        answer = self.ask(method, path, body)
        assert not answer.ok, answer.text
        return answer.status_code, answer.json()["error"]

    def vm(self, uuid: str) -> dict[str, Any]:
        (found,) = self.get(f"/VirDomain/{uuid}")
        record: dict[str, Any] = found
        return record


def make(version: str = "9.7.4.225310", *, tls: bool = False, hosts: int = 2) -> tuple[Cluster, list[HyperCoreNode]]:
    world = World("hc3", 3, Clock(30))
    with world:
        for place in range(hosts):
            world.add_host(f"node-{place}", memory_mib=8_192)
        world.add_storage("pool", 500_000)
        world.add_network("LAN")
        cluster = Cluster(world, user=USER, password=PASSWORD, version=version)
        cluster.add_template("golden")
    return cluster, start_cluster(cluster, tls=tls)


@pytest.fixture
def client() -> Iterator[Client]:
    cluster, nodes = make()
    yield Client(cluster, nodes[0])
    for node in nodes:
        node.stop()


@pytest.fixture
def old_client() -> Iterator[Client]:
    cluster, nodes = make("9.6.27.225000")
    yield Client(cluster, nodes[0])
    for node in nodes:
        node.stop()


def golden(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = next(vm for vm in client.get("/VirDomain") if vm["name"] == "golden")
    return found


def settled(client: Client, uuid: str, state: str) -> dict[str, Any]:
    until = time.monotonic() + 5
    while (found := client.vm(uuid))["state"] != state:
        assert time.monotonic() < until, found["state"]
        time.sleep(0.02)
    return found


# --- what the vendor's tools do --------------------------------------------------------------------------------------


def test_the_vendors_example_of_a_machines_life_works(client: Client) -> None:
    """The calls of RestAPIExamples' vm_lifecycle.py, one after the other."""
    dom = {
        "name": "life", "description": "An example", "mem": 4 * 1024 * MIB, "numVCPU": 2,
        "blockDevs": [{"capacity": 10_000_000_000, "type": "VIRTIO_DISK", "cacheMode": "WRITETHROUGH"}],
        "netDevs": [{"type": "VIRTIO"}],
    }  # fmt: skip
    vm, task = client.change("POST", "/VirDomain", {"dom": dom, "options": {}})
    assert task["state"] == "COMPLETE"
    disk = {"virDomainUUID": vm, "capacity": 10_000_000_000, "type": "VIRTIO_DISK", "cacheMode": "WRITETHROUGH"}
    client.change("POST", "/VirDomainBlockDevice", disk)
    client.change("POST", "/VirDomain/action", [{"actionType": "START", "virDomainUUID": vm}])
    node = settled(client, vm, "RUNNING")["nodeUUID"]
    other = next(found["uuid"] for found in client.get("/Node") if found["uuid"] != node)
    move = [{"actionType": "LIVEMIGRATE", "nodeUUID": other, "virDomainUUID": vm}]
    client.change("POST", "/VirDomain/action", move)
    assert client.vm(vm)["nodeUUID"] == other
    client.change("POST", "/VirDomain/action", [{"actionType": "STOP", "virDomainUUID": vm}])
    settled(client, vm, "SHUTOFF")
    edit = {"name": "lifeUpdated", "numVCPU": 4, "mem": 8 * 1024 * MIB, "tags": "burger,tastes,good"}
    client.change("PATCH", f"/VirDomain/{vm}", edit)
    found = client.vm(vm)
    assert {name: found[name] for name in edit} == edit
    clone, _ = client.change("POST", f"/VirDomain/{vm}/clone", {"template": {"name": "copy", "description": "c"}})
    assert len(client.vm(clone)["blockDevs"]) == 2
    snapshot, _ = client.change("POST", "/VirDomainSnapshot", {"domainUUID": vm, "label": "Created"})
    client.change("DELETE", f"/VirDomainSnapshot/{snapshot}")
    client.change("DELETE", f"/VirDomain/{vm}")
    client.change("DELETE", f"/VirDomain/{clone}")
    assert [left["name"] for left in client.get("/VirDomain")] == ["golden"]


def test_the_calls_of_the_vendors_collection_work(client: Client) -> None:
    """vm_info, vm_clone and vm_params of scale_computing.hypercore 1.7, as they were seen: sign in, three listings by
    cookie, a clone with tags, its task, and a PATCH that may be empty."""
    client.http.auth = None
    assert client.ask("GET", "/VirDomain").status_code == 401
    login = client.ask("POST", "/login", {"username": USER, "password": PASSWORD, "useOIDC": False})
    assert set(login.json()) == {"sessionID"}
    assert login.cookies["sessionID"] == login.json()["sessionID"]
    for path in ("/VirDomain", "/Node", "/VirDomainSnapshotSchedule"):
        assert isinstance(client.get(path), list)
    vm = golden(client)
    for field in ("affinityStrategy", "tags", "blockDevs", "netDevs", "bootDevices", "operatingSystem", "nodeUUID"):
        assert field in vm
    template = {"name": "d", "tags": "t,pool1"}
    new, task = client.change("POST", f"/VirDomain/{vm['uuid']}/clone", {"template": template})
    assert task["state"] == "COMPLETE"
    assert client.vm(new)["tags"] == "t,pool1"
    client.change("PATCH", f"/VirDomain/{new}", {})
    client.ask("POST", "/logout")
    assert client.ask("GET", "/VirDomain").status_code == 401


def test_a_wrong_password_is_401(client: Client) -> None:
    client.http.auth = None
    assert client.refused("POST", "/login", {"username": USER, "password": "x"})[0] == 401
    client.http.auth = (USER, "x")
    assert client.refused("GET", "/VirDomain")[0] == 401


# --- the universal rules ---------------------------------------------------------------------------------------------


def test_every_get_is_an_array(client: Client) -> None:
    uuid = golden(client)["uuid"]
    assert [vm["uuid"] for vm in client.get(f"/VirDomain/{uuid}")] == [uuid]
    assert client.get("/VirDomain/nobody") == []
    assert client.get("/TaskTag/99999") == []
    kinds = ("Cluster", "Node", "Condition", "User", "Role", "VirDomainStats", "VirDomainBlockDevice", "ISO")
    for kind in (*kinds, "VirDomainNetDevice", "VirDomainSnapshot", "VirtualDisk", "RemoteClusterConnection"):
        assert isinstance(client.get(f"/{kind}"), list)
    assert client.refused("GET", "/Nonsense") == (404, "not found")


@pytest.mark.parametrize("kind", ["VirDomainSnapshot", "VirDomainBlockDevice", "VirDomainNetDevice", "VirDomain"])
def test_nothing_is_filtered(client: Client, kind: str) -> None:
    assert client.refused("GET", f"/{kind}?virDomainUUID=x")[0] == 400


def test_a_change_that_comes_too_early_is_500(client: Client) -> None:
    path = f"/VirDomain/{golden(client)['uuid']}/clone"
    first = client.ask("POST", path, {"template": {"name": "a"}}).json()
    assert client.refused("POST", path, {"template": {"name": "b"}}) == (500, "An internal error occurred")
    client.wait(first["taskTag"])
    client.change("POST", path, {"template": {"name": "b"}})


def test_a_task_says_how_far_it_is(client: Client) -> None:
    client.cluster.world.clock.speed = 0
    path = f"/VirDomain/{golden(client)['uuid']}/clone"
    tag = client.ask("POST", path, {"template": {"name": "a"}}).json()["taskTag"]
    client.cluster.world.clock.advance(1.0)
    (task,) = client.get(f"/TaskTag/{tag}")
    assert (task["state"], task["progressPercent"], task["formattedDescription"]) == ("RUNNING", 50, "Clone VM %@")
    assert golden(client)["latestTaskTag"]["taskTag"] == tag
    client.cluster.world.clock.advance(1.1)
    assert client.wait(tag)["progressPercent"] == 100


def test_a_failed_task_says_why_with_placeholders(client: Client) -> None:
    with client.cluster.world as world:
        world.fill(next(iter(world.storages)))
    _, task = client.change("POST", f"/VirDomain/{golden(client)['uuid']}/clone", {"template": {"name": "a"}})
    assert task["state"] == "ERROR"
    assert "%@" in task["formattedMessage"]
    assert task["messageParameters"] == ["golden"]
    assert len(client.get("/VirDomain")) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/VirDomain/{vm}/clone", {"template": {"colour": "red"}}),
        ("POST", "/VirDomain/{vm}/clone", {"names": 1}),
        ("PATCH", "/VirDomain/{vm}", {"colour": "red"}),
        ("POST", "/VirDomainSnapshot", {"virDomainUUID": "{vm}"}),
        ("POST", "/VirDomainSnapshot", {"domainUUID": "{vm}", "labels": {}}),
        ("POST", "/VirDomainBlockDevice", {"virDomainUUID": "{vm}", "type": "VIRTIO_DISK", "description": "x"}),
        ("POST", "/login", {"user": "x"}),
    ],
)
def test_unknown_properties_are_refused(client: Client, method: str, path: str, body: dict[str, Any]) -> None:
    uuid = golden(client)["uuid"]
    filled = json.loads(json.dumps(body).replace("{vm}", uuid))
    status, words = client.refused(method, path.replace("{vm}", uuid), filled)
    assert status == 400
    assert "Property not allowed" in words


def test_snapshots_cannot_be_patched(client: Client) -> None:
    made, _ = client.change("POST", "/VirDomainSnapshot", {"domainUUID": golden(client)["uuid"], "label": "x"})
    assert client.refused("PATCH", f"/VirDomainSnapshot/{made}", {"label": "y"})[0] == 405


# --- clones, disks, snapshots ----------------------------------------------------------------------------------------


def test_a_clone_carries_and_resets_what_the_notes_say(client: Client) -> None:
    source = golden(client)
    client.change("PATCH", f"/VirDomain/{source['uuid']}", {"tags": "gold", "labels": {"a": {"value": "eA=="}}})
    new, _ = client.change("POST", f"/VirDomain/{source['uuid']}/clone", {"template": {"name": "a"}})
    copy = client.vm(new)
    assert (copy["tags"], copy["mem"], copy["numVCPU"]) == ("gold", source["mem"], source["numVCPU"])
    assert (copy["labels"], copy["runnable"]) == ({}, True)
    assert copy["bootDevices"] == []
    assert copy["blockDevs"][0]["uuid"] != source["blockDevs"][0]["uuid"]
    assert copy["netDevs"][0]["macAddress"] != source["netDevs"][0]["macAddress"]
    nics = [{"type": "VIRTIO", "vlan": 7, "macAddress": source["netDevs"][0]["macAddress"]}]
    body = {"template": {"name": "b", "netDevs": nics}}
    other, _ = client.change("POST", f"/VirDomain/{source['uuid']}/clone", body)
    assert client.vm(other)["netDevs"][0]["macAddress"] == source["netDevs"][0]["macAddress"]


def started(client: Client, uuid: str) -> bool:
    """Whether the guest comes up."""
    client.change("POST", "/VirDomain/action", [{"virDomainUUID": uuid, "actionType": "START"}])
    settled(client, uuid, "RUNNING")
    client.cluster.world.clock.advance(60)
    return bool(client.vm(uuid)["guestAgentState"] == "AVAILABLE")


def test_a_clone_without_boot_order_finds_nothing_to_boot_from(client: Client) -> None:
    uuid = golden(client)["uuid"]
    new, _ = client.change("POST", f"/VirDomain/{uuid}/clone", {"template": {"name": "a"}})
    assert not started(client, new)
    client.change("POST", "/VirDomain/action", [{"virDomainUUID": new, "actionType": "STOP"}])
    settled(client, new, "SHUTOFF")
    client.change("PATCH", f"/VirDomain/{new}", {"bootDevices": [client.vm(new)["blockDevs"][0]["uuid"]]})
    assert started(client, new)
    assert client.vm(new)["netDevs"][0]["ipv4Addresses"]


@pytest.mark.parametrize("options", [{}, {"regenerateDiskID": True}, {"regenerateDiskID": False}])
def test_a_disk_with_a_new_identity_does_not_boot(client: Client, options: dict[str, bool]) -> None:
    uuid = golden(client)["uuid"]
    new, _ = client.change("POST", f"/VirDomain/{uuid}/clone", {"template": {"name": "a"}})
    point, _ = client.change("POST", "/VirDomainSnapshot", {"domainUUID": new, "label": "x"})
    old = client.vm(new)["blockDevs"][0]
    client.change("DELETE", f"/VirDomainBlockDevice/{old['uuid']}")
    template = {"virDomainUUID": new, "type": "VIRTIO_DISK", "capacity": old["capacity"], "name": "dropped"}
    body = {"options": options, "snapUUID": point, "template": template}
    disk, task = client.change("POST", f"/VirDomainBlockDevice/{old['uuid']}/clone", body)
    assert task["state"] == "COMPLETE", "the live disk may be gone"
    assert client.vm(new)["blockDevs"][0]["name"] == ""
    client.change("PATCH", f"/VirDomain/{new}", {"bootDevices": [disk]})
    assert started(client, new) is (options.get("regenerateDiskID") is False)


def test_a_deleted_disk_leaves_the_boot_order(client: Client) -> None:
    vm = golden(client)
    assert vm["bootDevices"] == [vm["blockDevs"][0]["uuid"]]
    client.change("DELETE", f"/VirDomainBlockDevice/{vm['bootDevices'][0]}")
    assert golden(client)["bootDevices"] == []


def test_a_snapshot_is_replicated_unless_told_otherwise(client: Client) -> None:
    uuid = golden(client)["uuid"]
    for told, expected in (({}, True), ({"replication": False}, False)):
        made, _ = client.change("POST", "/VirDomainSnapshot", {"domainUUID": uuid, "label": "x", **told})
        (record,) = client.get(f"/VirDomainSnapshot/{made}")
        assert record["replication"] is expected
        assert record["domain"]["blockDevs"][0]["type"] == "VIRTIO_DISK"
        assert set(record["deviceSnapshots"][0]) == {"uuid", "serialNumber"}
    assert len(golden(client)["snapUUIDs"]) == 2


def test_a_full_tier_refuses_clones_and_only_a_condition_says_why(client: Client) -> None:
    client.cluster.tier_percent = 95
    path = f"/VirDomain/{golden(client)['uuid']}/clone"
    assert client.refused("POST", path, {"template": {"name": "a"}}) == (400, "Bad Request")
    conditions = client.get("/Condition")
    assert len(conditions) > 250
    assert [found["description"] for found in conditions if found["value"]] == ["SSD storage tier is 95% full"]


# --- power -----------------------------------------------------------------------------------------------------------


def test_a_task_ends_before_the_state_changes(client: Client) -> None:
    client.cluster.lag_s = 15.0
    new, _ = client.change("POST", f"/VirDomain/{golden(client)['uuid']}/clone", {"template": {"name": "a"}})
    client.change("POST", "/VirDomain/action", [{"virDomainUUID": new, "actionType": "START"}])
    assert client.vm(new)["state"] == "SHUTOFF"
    settled(client, new, "RUNNING")


def test_a_stopped_machine_cannot_be_reset(client: Client) -> None:
    new, _ = client.change("POST", f"/VirDomain/{golden(client)['uuid']}/clone", {"template": {"name": "a"}})
    action = [{"virDomainUUID": new, "actionType": "RESET"}]
    assert client.refused("POST", "/VirDomain/action", action) == (500, "An internal error occurred")
    assert client.refused("POST", "/VirDomain/action", {"virDomainUUID": new})[0] == 400
    for wrong in ("FORCE_STOP", "LIVE_MIGRATE"):
        assert client.refused("POST", "/VirDomain/action", [action[0] | {"actionType": wrong}])[0] == 400


def test_a_machine_that_is_on_is_neither_resized_nor_deleted(client: Client) -> None:
    new, _ = client.change("POST", f"/VirDomain/{golden(client)['uuid']}/clone", {"template": {"name": "a"}})
    started(client, new)
    assert client.refused("PATCH", f"/VirDomain/{new}", {"numVCPU": 8})[0] == 400
    assert client.refused("DELETE", f"/VirDomain/{new}")[0] == 400
    client.change("PATCH", f"/VirDomain/{new}", {"numVCPU": 2, "tags": "t"})


def test_a_machine_goes_where_it_is_wanted_and_where_there_is_memory(client: Client) -> None:
    hosts = [node["uuid"] for node in client.get("/Node")]
    for wanted in hosts:
        body = {"template": {"name": wanted, "mem": 6_000 * MIB}}
        new, _ = client.change("POST", f"/VirDomain/{golden(client)['uuid']}/clone", body)
        affinity = {"strictAffinity": False, "preferredNodeUUID": wanted, "backupNodeUUID": ""}
        client.change("PATCH", f"/VirDomain/{new}", {"affinityStrategy": affinity})
        client.change("POST", "/VirDomain/action", [{"virDomainUUID": new, "actionType": "START"}])
        assert settled(client, new, "RUNNING")["nodeUUID"] == wanted
    new, _ = client.change("POST", f"/VirDomain/{golden(client)['uuid']}/clone", {"template": {"mem": 6_000 * MIB}})
    _, task = client.change("POST", "/VirDomain/action", [{"virDomainUUID": new, "actionType": "START"}])
    assert task["state"] == "ERROR"


# --- versions, nodes -------------------------------------------------------------------------------------------------


def test_9_6_knows_no_v2_and_no_labels(old_client: Client) -> None:
    assert old_client.http.get(f"{old_client.node.url}/rest/v2/VirDomain", timeout=30).status_code == 404
    vm = golden(old_client)
    assert "labels" not in vm
    assert "runnable" not in vm
    assert old_client.refused("PATCH", f"/VirDomain/{vm['uuid']}", {"runnable": False})[0] == 400


def test_v2_refuses_what_v1_takes_and_finds_a_task_by_query(client: Client) -> None:
    vm = golden(client)
    nic = f"/VirDomainNetDevice/{vm['netDevs'][0]['uuid']}"
    body = {"virDomainUUID": vm["uuid"], "vlan": 9}
    client.base = f"{client.node.url}/rest/v2"
    assert client.refused("PATCH", nic, body)[0] == 400
    tag = client.ask("PATCH", nic, {"vlan": 9}).json()["taskTag"]
    assert [task["taskTag"] for task in client.get(f"/TaskTag?taskTag={tag}&limitSize=1")] == [tag]
    client.wait(tag)
    client.base = f"{client.node.url}/rest/v1"
    client.change("PATCH", nic, body)


def test_every_node_serves_the_same_and_knows_its_own_sessions(client: Client) -> None:
    addresses = [node["lanIP"] for node in client.get("/Node")]
    assert addresses == ["127.0.0.5", "127.0.0.6"]
    session = client.ask("POST", "/login", {"username": USER, "password": PASSWORD}).json()["sessionID"]
    for address, status in zip(addresses, (200, 401), strict=True):
        url = f"http://{address}:{client.node.port}/rest/v1/VirDomain"
        assert requests.get(url, headers={"Cookie": f"sessionID={session}"}, timeout=30).status_code == status
        assert requests.get(url, auth=(USER, PASSWORD), timeout=30).status_code == 200


def test_a_cluster_that_was_never_updated_has_no_status(client: Client) -> None:
    url = f"{client.node.url}/update/update_status.json"
    answer = requests.get(url, timeout=30)
    assert answer.status_code == 404
    assert answer.text.startswith("<html>")
    client.cluster.update_status = {"prepareStatus": {"state": "COMPLETE"}}
    assert requests.get(url, timeout=30).json() == client.cluster.update_status


def test_a_node_that_is_shut_down_for_an_update_breaks_off_the_handshake() -> None:
    cluster, (node,) = make(tls=True, hosts=1)
    try:
        assert node.certificate is not None
        trust = str(node.certificate.files / "server.crt")
        url = f"{node.url}/rest/v1/Cluster"
        assert requests.get(url, auth=(USER, PASSWORD), verify=trust, timeout=30).status_code == 200
        node.break_tls()
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, auth=(USER, PASSWORD), verify=trust, timeout=30)
        node.mend_tls()
        assert requests.get(url, auth=(USER, PASSWORD), verify=trust, timeout=30).json()[0]["uuid"] == cluster.id
    finally:
        node.stop()


def test_roles_are_enforced(client: Client) -> None:
    uuid = golden(client)["uuid"]
    client.cluster.roles = {"Read"}
    for method, path, body in (
        ("POST", f"/VirDomain/{uuid}/clone", {"template": {}}),
        ("DELETE", f"/VirDomain/{uuid}", None),
        ("POST", "/VirDomain/action", [{"virDomainUUID": uuid, "actionType": "START"}]),
    ):
        assert client.refused(method, path, body)[0] == 403
    client.cluster.roles = {"VM Delete"}
    assert client.get("/VirDomain") == []


def test_the_guest_reads_its_cloud_init_data(client: Client) -> None:
    data = {
        "userData": base64.b64encode(b"#cloud-config\n").decode(),
        "metaData": base64.b64encode(b'{"local-hostname": "d-1", "instance-id": "i-1"}').decode(),
    }
    body = {"template": {"name": "a", "cloudInitData": data}}
    new, _ = client.change("POST", f"/VirDomain/{golden(client)['uuid']}/clone", body)
    seed = client.cluster.world.machine(new).guest.seed
    assert (seed["hostname"], seed["user_data"], seed["instance"]) == ("d-1", "#cloud-config\n", "i-1")
    wrong = {"template": {"name": "b", "cloudInitData": {"userData": "not base64!"}}}
    assert client.refused("POST", f"/VirDomain/{golden(client)['uuid']}/clone", wrong)[0] == 400
    assert len(client.get("/VirDomain")) == 2


def test_an_iso_takes_three_steps_and_a_disc_is_changed_by_path_and_name(client: Client) -> None:
    assert client.refused("POST", "/ISO", {"name": "x.img", "size": 1})[0] == 400
    iso, _ = client.change("POST", "/ISO", {"name": "x.iso", "size": 3, "readyForInsert": False})
    client.change("PATCH", f"/ISO/{iso}", {"readyForInsert": True})
    assert client.get(f"/ISO/{iso}")[0]["readyForInsert"] is False, "there is nothing in it yet"
    sent = client.http.put(f"{client.base}/ISO/{iso}/data", data=b"abc", timeout=30)
    client.wait(sent.json()["taskTag"])
    client.change("PATCH", f"/ISO/{iso}", {"readyForInsert": True})
    (record,) = client.get(f"/ISO/{iso}")
    assert (record["readyForInsert"], record["mounts"]) == (True, 0)
    uuid = golden(client)["uuid"]
    drive = {"virDomainUUID": uuid, "type": "IDE_CDROM", "capacity": 0, "cacheMode": "NONE", "path": record["path"]}
    device, _ = client.change("POST", "/VirDomainBlockDevice", drive)
    assert client.refused("DELETE", f"/ISO/{iso}") == (400, "ISO is in use")
    assert client.change("PATCH", f"/VirDomainBlockDevice/{device}", {"path": ""})[1]["state"] == "ERROR"
    client.change("PATCH", f"/VirDomainBlockDevice/{device}", {"path": "", "name": ""})
    client.change("DELETE", f"/ISO/{iso}")
    assert client.get("/ISO") == []


def test_what_is_deleted_takes_its_bytes_along(client: Client) -> None:
    before = set(client.cluster.world.disks)
    new, _ = client.change("POST", f"/VirDomain/{golden(client)['uuid']}/clone", {"template": {"name": "a"}})
    client.change("POST", "/VirDomainSnapshot", {"domainUUID": new, "label": "x"})
    client.change("DELETE", f"/VirDomain/{new}")
    assert set(client.cluster.world.disks) == before
    assert client.get("/VirDomainSnapshot") == []


def test_machines_that_the_world_made_are_machines_like_any_other(client: Client) -> None:
    with client.cluster.world as world:
        machine = world.create("made", disks_mib=(50,))
        world.power_on(machine.id)
    record = client.vm(machine.id)
    assert record["state"] == "RUNNING"
    assert record["bootDevices"] == [record["blockDevs"][0]["uuid"]]
    assert machine.power is Power.ON
    assert extra_of(client.cluster.world, machine).devices[0].capacity == 50 * MIB
