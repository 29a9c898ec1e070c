"""The simulated Prism Central as its clients meet it, odd parts included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lab.clock import Clock
from lab.nutanix import PrismServer
from lab.nutanix.filters import BadFilter, fits
from lab.nutanix.server import RATES
from lab.world import World

VMS = "/api/vmm/v4.2/ahv/config/vms"


@pytest.fixture
def world() -> World:
    world = World("prism", clock=Clock(0))
    world.add_host("ahv-01")
    world.add_storage("container")
    world.add_network("desktops", vlan=20)
    world.add_template("golden")
    return world


@pytest.fixture
def server(world: World) -> Iterator[PrismServer]:
    with PrismServer(world, "127.0.0.4", tls=False) as server:
        assert isinstance(server, PrismServer)
        server.rates = {"*": 1_000, "GET *": 1_000, "GET vmm/ahv/config/vms": 1_000}
        yield server


@pytest.fixture
def client(server: PrismServer) -> Iterator[httpx.Client]:
    account = (server.account.user, server.account.password)
    with httpx.Client(base_url=server.url, auth=account, trust_env=False) as client:
        yield client


def golden(world: World) -> str:
    return next(machine.id for machine in world.machines.values() if machine.is_template)


def act(client: httpx.Client, path: str, id: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    if "etag" in headers:
        headers["If-Match"] = headers.pop("etag")
    told = {"NTNX-Request-Id": headers.pop("request", "one"), **headers}
    return client.post(f"{VMS}/{id}/$actions/{path}", json=body or {}, headers=told)


def etag(client: httpx.Client, id: str) -> str:
    return client.get(f"{VMS}/{id}").headers["Etag"]


def test_who_does_not_sign_in_is_refused_without_json(server: PrismServer) -> None:
    answer = httpx.get(f"{server.url}{VMS}", trust_env=False)
    assert (answer.status_code, answer.content) == (401, b"")


def test_a_session_is_opened_and_ends_after_a_quarter_of_an_hour(client: httpx.Client, world: World) -> None:
    cookie = client.get(VMS).headers["Set-Cookie"].split(";")[0]
    with httpx.Client(base_url=client.base_url, headers={"Cookie": cookie}, trust_env=False) as other:
        assert other.get(VMS).status_code == 200
        world.clock.advance(16 * 60)
        assert other.get(VMS).status_code == 401


def test_a_machine_by_id_comes_with_nothing_but_data_and_an_etag(client: httpx.Client, world: World) -> None:
    answer = client.get(f"{VMS}/{golden(world)}")
    assert answer.json().keys() == {"data"}
    assert answer.headers["Etag"].startswith("YXBwbGljYXRpb24vanNvbg==:")
    listed = client.get(VMS)
    assert "Etag" not in listed.headers
    assert listed.json()["metadata"]["totalAvailableResults"] == 1


def test_an_empty_list_has_no_data(client: httpx.Client) -> None:
    assert "data" not in client.get("/api/vmm/v4.2/ahv/config/vm-recovery-points").json()


@pytest.mark.parametrize("query", ["$limit=101", "$limit=0", "$page=-1", "$limit=x"])
def test_a_page_beyond_the_limits_is_refused_as_a_schema_error(client: httpx.Client, query: str) -> None:
    answer = client.get(f"{VMS}?{query}")
    assert answer.status_code == 400
    error = answer.json()["data"]["error"]
    assert error["$objectType"] == "vmm.v4.error.SchemaValidationError"
    assert error["validationErrorMessages"]


def test_a_machine_that_is_not_there_is_an_application_error_and_a_path_is_none(client: httpx.Client) -> None:
    answer = client.get(f"{VMS}/11111111-2222-4333-8444-555555555555")
    assert answer.status_code == 404
    assert answer.json()["data"]["error"][0]["errorGroup"] == "VM_NOT_FOUND"
    for path in ("/api/vmm/v4.9/ahv/config/vms", "/api/vmm/v4.2/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (404, b"")


def test_a_change_without_an_etag_or_with_an_old_one_is_refused(client: httpx.Client, world: World) -> None:
    id = golden(world)
    missing = act(client, "power-on", id)
    assert (missing.status_code, missing.json()["data"]["error"][0]["code"]) == (428, "PLAT-10004")
    for wrong in ("*", etag(client, id) + "0"):
        answer = act(client, "power-on", id, etag=wrong)
        assert (answer.status_code, answer.json()["data"]["error"][0]["code"]) == (412, "PLAT-10005")


def test_a_late_notice_of_an_old_etag_is_a_failed_task(client: httpx.Client, server: PrismServer, world: World) -> None:
    server.checks_etags_late = True
    id = golden(world)
    old = etag(client, id)
    world.touch(world.machine(id))
    task = act(client, "power-on", id, etag=old).json()["data"]["extId"]
    world.clock.advance(10)
    seen = client.get(f"/api/prism/v4.2/config/tasks/{task}").json()["data"]
    assert seen["status"] == "FAILED"
    assert seen["errorMessages"][0]["errorGroup"] == "VM_ETAG_MISMATCH"


def test_a_request_id_that_was_seen_is_answered_as_then(client: httpx.Client, world: World) -> None:
    id = golden(world)
    told = etag(client, id)
    first = act(client, "clone", id, {"name": "a"}, etag=told)
    assert act(client, "clone", id, {"name": "a"}, etag=told).json() == first.json()
    act(client, "clone", id, {"name": "b"}, etag=told, request="two")
    world.clock.advance(60)
    with world:
        assert sorted(machine.name for machine in world.machines.values()) == ["a", "b", "golden"]
    assert client.post(f"{VMS}/{id}/$actions/power-on").status_code == 400, "one is required"


def test_a_clone_names_its_source_too_and_is_listed_late(
    client: httpx.Client, server: PrismServer, world: World
) -> None:
    server.listed_late_s = 5
    id = golden(world)
    task = act(client, "clone", id, {"name": "a"}, etag=etag(client, id)).json()["data"]["extId"]
    assert task.startswith("ZXJnb24=:")
    path = f"/api/prism/v4.2/config/tasks/{task.replace('=', '%3D').replace(':', '%3A')}"
    assert client.get(path).json()["data"]["status"] == "RUNNING"
    world.clock.advance(4)
    seen = client.get(path).json()["data"]
    assert seen["status"] == "SUCCEEDED"
    found = [one["extId"] for one in seen["entitiesAffected"]]
    assert found[0] == id
    assert client.get(f"{VMS}/{found[1]}").status_code == 200
    assert len(client.get(VMS).json()["data"]) == 1
    world.clock.advance(5)
    assert len(client.get(VMS).json()["data"]) == 2


def test_fields_and_lengths_that_prism_does_not_take_are_named(client: httpx.Client, world: World) -> None:
    id = golden(world)
    script = {"config": {"sysprepScript": {"value": "x" * 32_001}}}
    body = {"name": "x" * 81, "vmName": "y", "guestCustomization": script, "$unknownFields": {}}
    answer = act(client, "clone", id, body, etag=etag(client, id))
    assert answer.status_code == 400
    named = {one["attributePath"] for one in answer.json()["data"]["error"]["validationErrorMessages"]}
    assert named == {"name", "vmName", "guestCustomization.config.sysprepScript.value"}


def test_what_comes_too_often_is_refused_with_a_time(client: httpx.Client, server: PrismServer) -> None:
    server.rates = dict(RATES)
    answers = [client.get(VMS) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["X-Api-Ratelimit-Limit"] == "2"
    assert answers[2].headers["Retry-After"] == "1"


def test_only_a_new_prism_tells_its_version(client: httpx.Client, server: PrismServer) -> None:
    assert client.options("/api/vmm/unversioned/info").json() == {"data": "v4.2"}
    server.versions["vmm"] = (4, 1)
    assert client.options("/api/vmm/unversioned/info").status_code == 404


def test_prism_centrals_own_cluster_has_no_hosts(client: httpx.Client) -> None:
    clusters = client.get("/api/clustermgmt/v4.2/config/clusters").json()["data"]
    assert [one["config"]["clusterFunction"] for one in clusters] == [["AOS"], ["PRISM_CENTRAL"]]
    path = "/api/clustermgmt/v4.2/config/clusters/{}/hosts"
    assert [client.get(path.format(one["extId"])).status_code for one in clusters] == [200, 400]


def test_categories_show_once_their_task_is_over(client: httpx.Client, world: World) -> None:
    headers = {"NTNX-Request-Id": "a"}
    body = {"key": "Deskyard", "value": "Template"}
    mark = client.post("/api/prism/v4.2/config/categories", json=body, headers=headers).json()["data"]["extId"]
    found = client.get("/api/prism/v4.2/config/categories?$filter=key eq 'Deskyard' and value eq 'Template'").json()
    assert [one["extId"] for one in found["data"]] == [mark]
    id = golden(world)
    act(client, "associate-categories", id, {"categories": [{"extId": mark}]}, etag=etag(client, id))
    assert "categories" not in client.get(f"{VMS}/{id}").json()["data"]
    world.clock.advance(5)
    (shown,) = client.get(f"{VMS}/{id}").json()["data"]["categories"]
    assert shown["extId"] == mark


def test_an_update_takes_away_what_it_leaves_out(client: httpx.Client, world: World) -> None:
    id = golden(world)
    world.machine(id).marks["description"] = "kept only if it is sent"
    seen = client.get(f"{VMS}/{id}").json()["data"]
    del seen["description"]
    headers = {"NTNX-Request-Id": "a", "If-Match": etag(client, id)}
    client.put(f"{VMS}/{id}", json=seen, headers=headers)
    world.clock.advance(5)
    assert "description" not in client.get(f"{VMS}/{id}").json()["data"]


def test_what_the_account_may_not_do_is_refused_without_json(client: httpx.Client, world: World) -> None:
    world.forbidden.add("View_Virtual_Machine")
    answer = client.get(VMS)
    assert (answer.status_code, answer.content) == (403, b"")


def test_recovery_points_outlive_their_machine(client: httpx.Client, world: World) -> None:
    machine = world.create("desk", disks_mib=(1_024,))
    body = {"name": "before", "vmExtId": machine.id}
    path = "/api/vmm/v4.2/ahv/config/vm-recovery-points"
    client.post(path, json=body, headers={"NTNX-Request-Id": "a"})
    world.clock.advance(5)
    told = etag(client, machine.id)
    client.request("DELETE", f"{VMS}/{machine.id}", headers={"NTNX-Request-Id": "b", "If-Match": told})
    world.clock.advance(5)
    assert client.get(f"{VMS}/{machine.id}").status_code == 404
    (point,) = client.get(path).json()["data"]
    assert (point["name"], point["vmExtId"]) == ("before", machine.id)


def test_a_redirect_names_a_token_that_stands_for_the_account(server: PrismServer) -> None:
    server.redirects = 1
    answer = httpx.get(f"{server.url}{VMS}", trust_env=False)
    assert answer.status_code == 302
    with httpx.Client(headers={"Cookie": answer.headers["X-Redirect-Token"]}, trust_env=False) as client:
        assert client.get(f"{server.url}{VMS}").status_code == 200


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        ("name eq 'a'", True),
        ("name eq 'b' or name eq 'a'", True),
        ("name eq 'a' and cluster/extId eq 'd'", False),
        ("name eq 'b' or name eq 'a' and cluster/extId eq 'c'", True),
        ("startswith(name,'a')", True),
        ("name eq 'it''s'", False),
    ],
)
def test_a_filter_is_understood(text: str, is_true: bool) -> None:
    assert fits(text, {"name": "a", "cluster": {"extId": "c"}}) is is_true


@pytest.mark.parametrize("text", ["name like 'a'", "name eq 'a' xor", "", "name eq 'a"])
def test_a_filter_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(BadFilter):
        fits(text, {})


def test_tasks_are_listed_by_their_ids_and_by_no_field_that_is_not_published(
    client: httpx.Client, world: World
) -> None:
    with world:
        found = [f"ZXJnb24=:{world.start_task('Anything', '', 5, lambda: None).id}" for _ in range(3)]
    path = "/api/prism/v4.2/config/tasks"
    wanted = " or ".join(f"extId eq '{id}'" for id in found[1:])
    assert [one["extId"] for one in client.get(path, params={"$filter": wanted}).json()["data"]] == found[1:]
    answer = client.get(path, params={"$filter": f"{wanted} or uuid eq 'x'"})
    assert answer.status_code == 400
    assert answer.json()["data"]["error"]["validationErrorMessages"][0]["attributePath"] == "$filter"


def test_a_filter_that_is_not_understood_is_a_schema_error(client: httpx.Client) -> None:
    assert client.get(f"{VMS}?$filter=nonsense").status_code == 400
    assert json.loads(client.get(VMS).content)["metadata"]["flags"][0]["name"] == "hasError"
