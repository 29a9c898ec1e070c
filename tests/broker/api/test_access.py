"""Who reaches what: Alice (entitled, has a desktop), Bob (her group), Charlie (stranger), Dana (administrator)."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone

from broker.domain.permissions import NAMES, RIGHTS, Right, Role, least
from broker.models import ApiToken, Hypervisor, LogicalNetwork, Operation
from broker.services import brokering, operations, owners, people
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db

PUBLIC = ("pools", "desktops", "operations", "requests")
CONSOLE = ("hypervisors", "templates", "networks", "entitlements")
NOUNS = (*PUBLIC, *CONSOLE)


def known(house: Estate) -> dict[str, str]:
    """One real id of each noun that is Alice's or the administrator's."""
    operation = Operation.objects.first() or operations.order(
        kind="power", hypervisor_id=house.hypervisor.pk, desktop=house.desktop, parameters={"action": "on"}
    )
    return {
        "pools": str(house.pool.pk),
        "desktops": str(house.desktop.pk),
        "operations": str(operation.pk),
        "requests": str(house.desktop.requests.get().pk),
        "hypervisors": str(house.hypervisor.pk),
        "templates": str(house.copy.version.template_id),
        "networks": str(LogicalNetwork.objects.get_or_create(name="Office")[0].pk),
        "entitlements": str(house.pool.entitlements.filter(group=None).get().pk),
    }


@pytest.mark.parametrize("noun", NOUNS)
def test_nobody_gets_anything_without_a_token(house: Estate, calling: Callers, noun: str) -> None:
    for path in (f"/{noun}", f"/{noun}/{known(house)[noun]}"):
        answer = calling(None).get(path)
        assert (answer.status, answer.media_type) == (401, "application/problem+json")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("noun", CONSOLE)
def test_console_nouns_are_forbidden_to_users_whether_they_exist_or_not(
    house: Estate, calling: Callers, noun: str
) -> None:
    for user in (house.alice, house.bob, house.charlie):
        call = calling(user)
        for path in (f"/{noun}", f"/{noun}/{known(house)[noun]}", f"/{noun}/{uuid4()}"):
            assert call.get(path).status == 403
    assert calling(house.dana).get(f"/{noun}").body["total"] == len(calling(house.dana).get(f"/{noun}").body["items"])
    assert calling(house.dana).get(f"/{noun}/{known(house)[noun]}").status == 200


@pytest.mark.parametrize("noun", PUBLIC)
def test_a_stranger_sees_nothing_and_a_foreign_id_answers_as_an_unknown_one(
    house: Estate, calling: Callers, noun: str
) -> None:
    charlie = calling(house.charlie)
    assert charlie.get(f"/{noun}").body == {"items": [], "total": 0}
    foreign, unknown = charlie.get(f"/{noun}/{known(house)[noun]}"), charlie.get(f"/{noun}/{uuid4()}")
    assert foreign.status == unknown.status == 404
    assert foreign.body == unknown.body
    assert charlie.get(f"/{noun}/nonsense").status == 404


@pytest.mark.parametrize("noun", PUBLIC)
def test_alice_and_the_administrator_see_what_is_alices(house: Estate, calling: Callers, noun: str) -> None:
    id = known(house)[noun]
    for user in (house.alice, house.dana):
        call = calling(user)
        assert [item["id"] for item in call.get(f"/{noun}").body["items"]] == [id]
        assert call.get(f"/{noun}/{id}").body["id"] == id


def test_bob_sees_the_pool_but_not_alices_things(house: Estate, calling: Callers) -> None:
    bob = calling(house.bob)
    assert bob.get("/pools").body["total"] == 1
    for noun in ("desktops", "operations", "requests"):
        assert bob.get(f"/{noun}").body == {"items": [], "total": 0}
        assert bob.get(f"/{noun}/{known(house)[noun]}").status == 404


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("connect", {"protocol": "vnc"}),
        ("client-file", None),
        ("power", {"action": "reset"}),
        ("release", None),
    ],
)
def test_nobody_acts_on_a_foreign_desktop(house: Estate, calling: Callers, verb: str, body: object) -> None:
    for user in (house.bob, house.charlie):
        call = calling(user)
        foreign = call.post(f"/desktops/{house.desktop.pk}/{verb}", body)
        unknown = call.post(f"/desktops/{uuid4()}/{verb}", body)
        assert foreign.status == unknown.status == 404
        assert foreign.body == unknown.body
    assert not Operation.objects.exists()
    house.desktop.refresh_from_db()
    assert house.desktop.state == "assigned"


def test_no_administrator_opens_a_users_screen(house: Estate, calling: Callers) -> None:
    assert calling(house.dana).post(f"/desktops/{house.desktop.pk}/connect", {"protocol": "vnc"}).status == 404


def test_a_released_desktop_is_no_longer_alices_but_its_recycling_may_be_followed(
    house: Estate, calling: Callers
) -> None:
    alice = calling(house.alice)
    operation = alice.post(f"/desktops/{house.desktop.pk}/release").body
    assert alice.get(f"/desktops/{house.desktop.pk}").status == 404
    assert alice.get(f"/operations/{operation['id']}").body["kind"] == "recycle"


def test_the_next_user_does_not_see_the_operations_of_the_one_before(house: Estate, calling: Callers) -> None:
    old = calling(house.alice).post(f"/desktops/{house.desktop.pk}/power", {"action": "reset"}).body["id"]
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    house.desktop.refresh_from_db()
    house.desktop.assignments.create(pool=house.pool, user=house.bob, since=timezone.now())
    assert calling(house.bob).get(f"/operations/{old}").status == 404
    assert calling(house.alice).get(f"/operations/{old}").status == 200


def test_users_are_not_told_what_is_behind(house: Estate, calling: Callers) -> None:
    known(house)
    desktop = calling(house.alice).get(f"/desktops/{house.desktop.pk}").body
    assert not desktop.keys() & {"hypervisor", "machine_id", "why", "failure"}
    pool = calling(house.alice).get(f"/pools/{house.pool.pk}").body
    assert not pool.keys() & {"naming", "members", "spare", "hold_reason"}
    operation = calling(house.alice).get("/operations").body["items"][0]
    assert (operation["hypervisor"], operation["platform_words"]) == (None, None)


CHANGES: list[tuple[str, str, object]] = [
    ("POST", "/hypervisors", {"name": "x", "kind": "kvm"}),
    ("PATCH", "/hypervisors/{id}", {"name": "x"}),
    ("DELETE", "/hypervisors/{id}", None),
    ("POST", "/hypervisors/{id}/recheck", None),
    ("POST", "/hypervisors/{id}/drain", {"on": True}),
    ("POST", "/hypervisors/{id}/confirm-absence", None),
    ("GET", "/hypervisors", None),
    ("GET", "/hypervisors/{id}", None),
    ("GET", "/hypervisors/{id}/hosts", None),
    ("POST", "/hypervisors/{id}/hosts/{id}/drain", {"on": True}),
    ("GET", "/hypervisors/{id}/networks", None),
    ("GET", "/hypervisors/{id}/machines", None),
    ("GET", "/networks", None),
    ("GET", "/networks/{id}", None),
    ("PUT", "/hypervisors/{id}/machines/{id}/tags/{id}", None),
    ("DELETE", "/hypervisors/{id}/machines/{id}/tags/{id}", None),
    ("POST", "/networks", {"name": "x"}),
    ("PATCH", "/networks/{id}", {"name": "x"}),
    ("DELETE", "/networks/{id}", None),
    ("GET", "/templates", None),
    ("GET", "/templates/{id}", None),
    ("POST", "/templates", {"name": "x"}),
    ("PATCH", "/templates/{id}", {"name": "x"}),
    ("DELETE", "/templates/{id}", None),
    ("GET", "/templates/{id}/lacks", None),
    ("POST", "/templates/{id}/publish", {"vault_id": "{id}"}),
    ("GET", "/publications", None),
    ("GET", "/publications/{id}", None),
    ("POST", "/publications/{id}/cancel", None),
    ("GET", "/pools/{id}/pushes", None),
    ("POST", "/pools/{id}/pushes", {"version_id": "{id}"}),
    ("GET", "/pushes/{id}", None),
    ("POST", "/pushes/{id}/cancel", None),
    ("POST", "/pushes/{id}/roll-back", {}),
    ("POST", "/versions", {"template": "{id}"}),
    ("DELETE", "/versions/{id}", None),
    ("POST", "/copies", {"version": "{id}", "machine": "{id}"}),
    ("DELETE", "/copies/{id}", None),
    ("POST", "/pools", {"name": "x", "naming": "x-#"}),
    ("PATCH", "/pools/{id}", {"spare": 1}),
    ("DELETE", "/pools/{id}", None),
    ("POST", "/pools/{id}/resume", None),
    ("GET", "/pools/{id}/schedules", None),
    ("POST", "/pools/{id}/members", {"copy_id": "{id}"}),
    ("PATCH", "/pools/{id}/members/{id}", {"weight": 1}),
    ("DELETE", "/pools/{id}/members/{id}", None),
    ("GET", "/pools/{id}/owners", None),
    ("POST", "/pools/{id}/owners", {"user": "charlie"}),
    ("DELETE", "/pools/{id}/owners/{id}", None),
    ("POST", "/applications", {"pool": "{id}", "name": "x", "command": "x"}),
    ("PATCH", "/applications/{id}", {"name": "x"}),
    ("DELETE", "/applications/{id}", None),
    ("GET", "/entitlements", None),
    ("GET", "/entitlements/{id}", None),
    ("POST", "/entitlements", {"pool": "{id}", "user": "charlie"}),
    ("DELETE", "/entitlements/{id}", None),
    ("POST", "/desktops/power", {"filter": {"state": "ready"}, "action": "on"}),
    ("POST", "/desktops/{id}/retire", None),
    ("POST", "/desktops/{id}/forget", None),
    ("POST", "/desktops/{id}/recycle", None),
    ("POST", "/desktops/{id}/maintenance", {"on": True}),
    ("POST", "/desktops/{id}/forget-certificate", None),
    ("GET", "/desktops/{id}/seats", None),
    ("POST", "/operations/{id}/retry", None),
    ("POST", "/sessions/{id}/notice", {"words": "x"}),
    ("GET", "/hypervisors/{id}/storages", None),
    ("GET", "/replication/vaults", None),
    ("POST", "/replication/vaults", {"name": "x", "kind": "folder", "location": {}}),
    ("POST", "/replication/vaults/key", None),
    ("GET", "/replication/vaults/{id}", None),
    ("PATCH", "/replication/vaults/{id}", {"name": "x"}),
    ("DELETE", "/replication/vaults/{id}", None),
    ("GET", "/replication/policies", None),
    ("POST", "/replication/policies", {"name": "x", "vault_id": "{id}", "rpo_s": 60}),
    ("GET", "/replication/policies/{id}", None),
    ("PATCH", "/replication/policies/{id}", {"name": "x"}),
    ("DELETE", "/replication/policies/{id}", None),
    ("POST", "/replication/policies/{id}/run", None),
    ("POST", "/replication/policies/{id}/standbys/{id}/anew", None),
    ("POST", "/replication/policies/{id}/choices", {"kind": "machine", "machine_id": "{id}"}),
    ("DELETE", "/replication/policies/{id}/choices/{id}", None),
    ("GET", "/replication/policies/{id}/sources", None),
    ("GET", "/replication/policies/{id}/breaches", None),
    ("GET", "/replication/runs", None),
    ("GET", "/replication/runs/{id}", None),
    ("POST", "/replication/runs/{id}/cancel", None),
    ("GET", "/replication/recovery-points", None),
    ("GET", "/replication/recovery-points/{id}", None),
    ("POST", "/replication/recovery-points/{id}/verify", None),
    (
        "POST",
        "/replication/recovery-points/{id}/materialise",
        {"hypervisor_id": "{id}", "storage_id": "{id}", "name": "x"},
    ),
    ("DELETE", "/replication/recovery-points/{id}", None),
    ("GET", "/replication/failovers", None),
    ("GET", "/replication/failovers/{id}", None),
    ("POST", "/replication/failovers/test", {"point_id": "{id}", "hypervisor_id": "{id}", "storage_id": "{id}"}),
    (
        "POST",
        "/replication/failovers/move",
        {"desktop_id": "{id}", "vault_id": "{id}", "hypervisor_id": "{id}", "storage_id": "{id}"},
    ),
    (
        "POST",
        "/replication/failovers/emergency",
        {"desktop_id": "{id}", "hypervisor_id": "{id}", "storage_id": "{id}"},
    ),
    ("POST", "/replication/failovers/planned", {"desktop_id": "{id}"}),
    ("POST", "/replication/failovers/{id}/cancel", None),
    ("POST", "/replication/failovers/groups/{id}/cancel", None),
    (
        "POST",
        "/replication/failovers/pools/{id}/dry-run",
        {"kind": "move", "hypervisor_id": "{id}", "storage_id": "{id}"},
    ),
    ("POST", "/replication/failovers/pools/{id}", {"kind": "move", "hypervisor_id": "{id}", "storage_id": "{id}"}),
]


def filled(body: object, id: str) -> object:
    return {k: id if v == "{id}" else v for k, v in body.items()} if isinstance(body, dict) else body


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_only_administrators_run_the_estate(
    house: Estate, calling: Callers, method: str, path: str, body: object
) -> None:
    id = str(uuid4())
    for call in (calling(house.alice), calling(house.charlie), calling(house.dana, ["portal"])):
        assert call(method, path.replace("{id}", id), filled(body, id)).status == 403
    assert calling(None)(method, path.replace("{id}", id), filled(body, id)).status == 401
    assert calling(house.dana)(method, path.replace("{id}", id), filled(body, id)).status not in (401, 403)


EVERYBODYS = {
    ("GET", "/applications"), ("GET", "/applications/{id}"),
    ("GET", "/desktops"), ("GET", "/desktops/{id}"), ("POST", "/desktops/{id}/connect"),
    ("POST", "/desktops/{id}/client-file"),
    ("POST", "/desktops/{id}/power"), ("POST", "/desktops/{id}/release"), ("POST", "/desktops/{id}/renew"),
    ("GET", "/notices"), ("GET", "/notices/{id}"), ("POST", "/notices/read"), ("POST", "/notices/{id}/read"),
    ("GET", "/notices/preferences"), ("PATCH", "/notices/preferences"),
    ("GET", "/operations"), ("GET", "/operations/{id}"), ("POST", "/operations/{id}/cancel"),
    ("GET", "/pools"), ("GET", "/pools/{id}"),
    ("GET", "/requests"), ("POST", "/requests"), ("GET", "/requests/{id}"), ("POST", "/requests/{id}/cancel"),
    ("GET", "/sessions"), ("GET", "/sessions/{id}"), ("POST", "/sessions/{id}/disconnect"),
    ("POST", "/sessions/{id}/log-off"),
    ("POST", "/requests/decide"), ("POST", "/requests/{id}/approve"), ("POST", "/requests/{id}/decline"),
}  # fmt: skip
"""Who has no role is answered with what is theirs, and told of nothing else."""
HELPING = {
    "/desktops/power", "/desktops/{id}/recycle", "/desktops/{id}/maintenance", "/desktops/{id}/forget-certificate",
    "/operations/{id}/retry", "/sessions/{id}/notice",
}  # fmt: skip
REVIEWED = ("/networks", "/templates", "/replication", "/publications")
SECRETS = {
    "/replication/vaults", "/replication/vaults/key", "/replication/vaults/{id}", "/hypervisors", "/hypervisors/{id}",
}  # fmt: skip


def right_for(method: str, path: str) -> Right:
    if method == "GET":
        return Right.REVIEW if path.startswith(REVIEWED) else Right.SEE
    if path in HELPING:
        return Right.SERVE
    return Right.ADMINISTER if path in SECRETS else Right.OPERATE


@pytest.mark.parametrize("role", list(Role))
def test_each_role_reaches_what_it_has_the_right_for_and_is_told_who_may_the_rest(
    house: Estate, calling: Callers, role: Role
) -> None:
    call, id, wrong = calling(people.set_role(actor=house.dana, user_id=house.charlie.pk, role=role)), str(uuid4()), []
    for method, path, body in CHANGES:
        right = right_for(method, path)
        answer = call(method, path.replace("{id}", id), filled(body, id))
        if right in RIGHTS[role]:
            wrong += [(method, path, answer.status)] if answer.status in (401, 403) else []
        elif answer.status != 403 or f"takes the role {NAMES[least(right)].lower()}" not in answer.body["detail"]:
            wrong.append((method, path, answer.status))
    assert not wrong


def test_no_address_of_the_api_is_left_out_of_these_tests(house: Estate) -> None:
    """What is everybody's own answers with what is theirs; all the rest stands in the table of changes."""
    described = Client().get("/api/v1/openapi.json").json()
    there = {
        (method.upper(), re.sub(r"\{\w+\}", "{id}", path.removeprefix("/api/v1")))
        for path, methods in described["paths"].items()
        for method in methods
    }
    tested = {(method, re.sub(r"\{\w+\}", "{id}", path)) for method, path, _ in CHANGES}
    assert there - tested == EVERYBODYS
    assert not tested - there


def test_an_owner_sees_what_befalls_their_pools_and_no_other(house: Estate, calling: Callers) -> None:
    """Charlie owns the pool through a group, has no role and may have no desktop of it."""
    group = Group.objects.create(name="Owners")
    house.charlie.groups.add(group)
    owners.appoint(actor=house.dana, pool_id=house.pool.pk, group_id=group.pk)
    other = house.open_pool("Lab")
    foreign = house.give(house.alice, other)
    charlie, pool, desktop = calling(house.charlie), str(house.pool.pk), str(house.desktop.pk)
    assert charlie.get("/pools").body["total"] == charlie.get("/desktops").body["total"] == 0
    assert [item["id"] for item in charlie.get("/pools?owned=true").body["items"]] == [pool]
    assert [item["id"] for item in charlie.get("/desktops?owned=true").body["items"]] == [desktop]
    assert charlie.get(f"/desktops/{desktop}").body["user"] == "alice"
    assert "hypervisor" not in charlie.get(f"/desktops/{desktop}").body
    assert charlie.get(f"/pools/{pool}").status == 200
    assert charlie.get(f"/pools/{other.pk}").status == charlie.get(f"/desktops/{foreign.pk}").status == 404
    assert charlie.post(f"/desktops/{desktop}/power", {"action": "off"}).status == 404
    assert charlie.post(f"/desktops/{desktop}/connect", {"protocol": "vnc"}).status == 404
    assert calling(house.bob).get("/desktops?owned=true").body["total"] == 0


def test_the_help_desk_is_not_shown_how_a_hypervisor_is_reached(house: Estate, calling: Callers) -> None:
    Hypervisor.objects.update(settings={"address": "kvm-01.example.net", "user": "deskyard"})
    path = f"/hypervisors/{house.hypervisor.pk}"
    for role, told in ((Role.HELP_DESK, False), (Role.AUDITOR, True)):
        call = calling(people.set_role(actor=house.dana, user_id=house.charlie.pk, role=role))
        assert bool(call.get(path).body["settings"]) is told
        assert bool(call.get("/hypervisors").body["items"][0]["settings"]) is told


def test_a_token_without_the_scope_admin_makes_an_administrator_a_user(house: Estate, calling: Callers) -> None:
    call = calling(house.dana, ["portal"])
    assert call.get("/hypervisors").status == 403
    assert call.get("/desktops").body == {"items": [], "total": 0}
    house.dana.refresh_from_db()
    assert house.dana.is_staff


def test_a_token_without_the_scope_portal_uses_no_desktops(house: Estate, calling: Callers) -> None:
    call = calling(house.dana, ["admin"])
    assert call.get("/hypervisors").status == 200
    assert call.post("/requests", {"pool": str(house.pool.pk)}).status == 403
    assert call.post(f"/desktops/{house.desktop.pk}/connect", {"protocol": "vnc"}).status == 403
    assert call.post(f"/desktops/{house.desktop.pk}/client-file", None).status == 403


def test_a_token_loses_what_its_user_loses(house: Estate, calling: Callers) -> None:
    call = calling(house.dana)
    house.dana.is_staff = False
    house.dana.save()
    assert call.get("/hypervisors").status == 403


@pytest.mark.parametrize(
    "header", ["Bearer nonsense", "Bearer", "Bearer ", "Basic ZGFuYTp4", "nonsense", "Bearer \xff"]
)
def test_a_wrong_token_is_refused_even_beside_a_good_session(house: Estate, calling: Callers, header: str) -> None:
    call = calling(None)
    call.client.force_login(house.alice)
    assert call.get("/desktops").status == 200
    assert call("GET", "/desktops", Authorization=header).status == 401


def test_an_expired_token_is_refused(house: Estate, calling: Callers) -> None:
    call = calling(house.alice)
    assert call.get("/desktops").status == 200
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert call.get("/desktops").status == 401


def test_a_browser_needs_the_csrf_token_to_change_something(house: Estate) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(house.bob)
    wish = {"data": {"pool": str(house.pool.pk)}, "content_type": "application/json"}
    assert browser.get("/api/v1/requests").status_code == 200
    refused = browser.post("/api/v1/requests", **wish)  # type: ignore[arg-type]
    assert (refused.status_code, refused.headers["Content-Type"]) == (403, "application/problem+json")
    token = "a" * 32
    from django.conf import settings

    browser.cookies[settings.CSRF_COOKIE_NAME] = token
    made = browser.post("/api/v1/requests", headers={"X-CSRFToken": token}, **wish)  # type: ignore[arg-type]
    assert made.status_code == 201
