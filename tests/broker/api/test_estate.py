"""An administrator builds an estate by API alone: hypervisor, template, pool, entitlement."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.utils import timezone

from broker.models import Host, Machine, Network, Operation
from broker.services import operations
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def test_from_hypervisor_to_entitlement(house: Estate, calling: Callers) -> None:
    dana = calling(house.dana)
    settings = {"transport": "tls", "address": "kvm-09", "port": 16514, "ca_certificate": "PEM", "password": "sesame"}
    hypervisor = dana.post("/hypervisors", {"name": "kvm-09", "kind": "kvm", "settings": settings})
    assert (hypervisor.status, hypervisor.body["status"]) == (201, "new")
    assert hypervisor.body["settings"]["port"] == 16514
    assert "sesame" not in str(hypervisor.body)
    machine = Machine.objects.create(
        hypervisor_id=hypervisor.body["id"], platform_id="m", name="tiny", power="off", vcpus=1, memory_mib=512,
        is_template=True, seen_at=timezone.now(),
    )  # fmt: skip
    listed = dana.get(f"/hypervisors/{hypervisor.body['id']}/machines?is_template=true").body["items"]
    assert [one["id"] for one in listed] == [str(machine.pk)]
    template = dana.post("/templates", {"name": "Tiny", "os": "Linux"}).body
    version = dana.post("/versions", {"template": template["id"], "note": "first"}).body
    copy = dana.post("/copies", {"version": version["id"], "machine": str(machine.pk)})
    assert copy.status == 201
    pool = dana.post(
        "/pools", {"name": "Tiny", "naming": "tiny-##", "spare": 2, "members": [{"copy_id": copy.body["id"]}]}
    )
    assert pool.status == 201
    assert (pool.body["spare"], pool.body["maximum"], len(pool.body["members"])) == (2, 10, 1)
    wish = {"pool": pool.body["id"], "user": "charlie"}
    assert [dana.post("/entitlements", wish).status for _ in range(2)] == [201, 200]
    assert [one["name"] for one in calling(house.charlie).get("/pools").body["items"]] == ["Tiny"]
    template = dana.get(f"/templates/{template['id']}").body
    assert template["versions"][0]["copies"][0]["hypervisor"] == hypervisor.body["id"]


def test_what_was_made_is_changed_and_removed(house: Estate, calling: Callers) -> None:
    dana = calling(house.dana)
    pool = dana.post("/pools", {"name": "Short", "naming": "short-##"}).body
    member = dana.post(f"/pools/{pool['id']}/members", {"copy_id": str(house.copy.pk), "maximum": 3}).body
    path = f"/pools/{pool['id']}/members/{member['id']}"
    assert dana("PATCH", path, {"weight": 7}).body | {"weight": 7, "maximum": 3} == dana("PATCH", path, {}).body
    assert dana("PATCH", path, {"maximum": None}).body["maximum"] is None
    assert dana("PATCH", f"/pools/{house.pool.pk}/members/{member['id']}", {"weight": 1}).status == 404
    assert dana("DELETE", path).status == 204
    changed = dana("PATCH", f"/pools/{pool['id']}", {"spare": 4, "vcpus": 2}).body
    assert (changed["spare"], changed["vcpus"], changed["name"]) == (4, 2, "Short")
    assert dana("PATCH", f"/pools/{pool['id']}", {"vcpus": None}).body["vcpus"] is None
    assert dana.post(f"/pools/{pool['id']}/resume").status == 200
    assert dana("DELETE", f"/pools/{pool['id']}").status == 204
    assert dana.get(f"/pools/{pool['id']}").status == 404
    assert dana("DELETE", f"/pools/{house.pool.pk}").status == 409
    template = dana.post("/templates", {"name": "Old"}).body["id"]
    assert dana("PATCH", f"/templates/{template}", {"description": "x"}).body["name"] == "Old"
    version = dana.post("/versions", {"template": template}).body["id"]
    assert dana("DELETE", f"/versions/{version}").status == 204
    assert dana("DELETE", f"/templates/{template}").status == 204
    assert dana("DELETE", f"/copies/{house.copy.pk}").status == 409
    entitlement = dana.get(f"/entitlements?pool={house.pool.pk}").body["items"][0]["id"]
    assert dana("DELETE", f"/entitlements/{entitlement}").status == 204
    assert dana.get(f"/entitlements/{entitlement}").status == 404


def test_a_hypervisor_is_changed_drained_rechecked_and_removed(house: Estate, calling: Callers) -> None:
    dana, path = calling(house.dana), f"/hypervisors/{house.hypervisor.pk}"
    assert dana("PATCH", path, {"settings": {"address": "elsewhere"}}).body["settings"]["address"] == "elsewhere"
    assert dana.post(f"{path}/drain", {"on": True}).body["is_draining"] is True
    assert dana.post(f"{path}/recheck").status == 202
    assert dana.post(f"{path}/confirm-absence").status == 409
    assert dana("DELETE", path).status == 409
    spare = dana.post("/hypervisors", {"name": "spare", "kind": "kvm"}).body["id"]
    assert dana("DELETE", f"/hypervisors/{spare}").status == 204
    assert dana.get(f"/hypervisors/{spare}").status == 404


def test_hosts_and_networks_are_listed(house: Estate, calling: Callers) -> None:
    now = timezone.now()
    Host.objects.create(
        hypervisor=house.hypervisor, platform_id="h", name="host", vcpus=8, memory_mib=16384, seen_at=now
    )
    Network.objects.create(hypervisor=house.hypervisor, platform_id="n", name="default", seen_at=now)
    dana, path = calling(house.dana), f"/hypervisors/{house.hypervisor.pk}"
    assert dana.get(f"{path}/hosts").body["items"][0]["memory_mib"] == 16384
    host = Host.objects.get()
    assert dana.post(f"{path}/hosts/{host.pk}/drain", {"on": True}).body["is_draining"] is True
    assert dana.post(f"/hypervisors/{uuid4()}/hosts/{host.pk}/drain", {"on": True}).status == 404
    assert dana.get(f"{path}/networks").body == {
        "items": [
            {
                "id": str(Network.objects.get().pk),
                "name": "default",
                "platform_id": "n",
                "kind": "",
                "is_isolated": False,
            }
        ],
        "total": 1,
    }
    assert dana.get(f"/hypervisors/{uuid4()}/hosts").status == 404


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "nul\0", "x" * 300, "half\ud800"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/hypervisors", {"kind": "kvm"}),
        ("/templates", {}),
        ("/pools", {"naming": "x-##"}),
    ],
)
def test_names_that_cannot_be_shown_are_told_by_field(
    house: Estate, calling: Callers, path: str, body: dict[str, str], name: str
) -> None:
    answer = calling(house.dana).post(path, body | {"name": name})
    assert (answer.status, list(answer.body["fields"])) == (422, ["name"])


@pytest.mark.parametrize("name", ["with spaces", 'it\'s "quoted"', "../../etc/passwd", "Büro 日本"])
def test_names_of_every_script_and_sign_come_back_as_they_are(house: Estate, calling: Callers, name: str) -> None:
    assert calling(house.dana).post("/templates", {"name": name}).body["name"] == name


def test_unknown_people_are_told(house: Estate, calling: Callers) -> None:
    dana = calling(house.dana)
    for who in ({"user": "erin"}, {"group": "nobody"}, {"user": "nul\0"}, {}, {"user": "bob", "group": "Office staff"}):
        assert dana.post("/entitlements", {"pool": str(house.pool.pk), **who}).status == 422


def test_a_queued_operation_is_cancelled_and_ordered_again(house: Estate, calling: Callers) -> None:
    old = operations.order(
        kind="power", hypervisor_id=house.hypervisor.pk, desktop=house.desktop, parameters={"action": "off"}
    )
    dana = calling(house.dana)
    assert dana.post(f"/operations/{old.pk}/retry").status == 409
    assert dana.post(f"/operations/{old.pk}/cancel").body["state"] == "cancelled"
    again = dana.post(f"/operations/{old.pk}/retry")
    assert (again.status, again.body["action"]) == (202, "off")
    Operation.objects.filter(pk=again.body["id"]).update(state="running")
    late = dana.post(f"/operations/{again.body['id']}/cancel")
    assert (late.status, late.body["operation"]["state"]) == (409, "running")


def test_a_pools_class_decides_its_numbers_unless_they_are_its_own(house: Estate, calling: Callers) -> None:
    dana = calling(house.dana)
    path = f"/pools/{house.pool.pk}"
    high = dana("PATCH", path, {"resource_class": "high"}).body
    assert (high["priority"], high["weight"], high["members"][0]["takes_shares"]) == (30, 200, False)
    own = dana("PATCH", path, {"priority": 5}).body
    assert (own["resource_class"], own["priority"], own["weight"]) == ("own", 5, 200)
    refused = dana("PATCH", path, {"resource_class": "low", "weight": 5})
    assert (refused.status, set(refused.body["fields"])) == (422, {"weight"})


def test_a_network_is_made_mapped_changed_and_removed(house: Estate, calling: Callers) -> None:
    dana = calling(house.dana)
    row = Network.objects.create(
        hypervisor=house.hypervisor, platform_id="net-1", name="vlan-20", seen_at=timezone.now()
    )
    wish = {
        "name": "Office",
        "wants_isolation": True,
        "counterparts": [{"hypervisor": str(house.hypervisor.pk), "network": str(row.pk)}],
    }
    made = dana.post("/networks", wish)
    assert made.status == 201
    assert made.body["counterparts"] == [
        {
            "hypervisor": str(house.hypervisor.pk),
            "network": str(row.pk),
            "platform_id": "net-1",
            "name": "vlan-20",
            "is_isolated": False,
        }
    ]
    path = f"/networks/{made.body['id']}"
    assert dana("PATCH", path, {"description": "For all."}).body | {"wants_isolation": True} == dana.get(path).body
    pool = dana("PATCH", f"/pools/{house.pool.pk}", {"network_id": made.body["id"]}).body
    assert pool["network_id"] == made.body["id"]
    assert dana("DELETE", path).status == 409
    assert dana("PATCH", f"/pools/{house.pool.pk}", {"network_id": None}).status == 200
    assert dana("DELETE", path).status == 204
    assert dana.get("/networks").body == {"items": [], "total": 0}
