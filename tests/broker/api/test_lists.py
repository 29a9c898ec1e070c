"""Lists: shape, window, order, and a fixed number of statements whatever the number of rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain.notices import Kind
from broker.models import (
    DesktopSession,
    Entitlement,
    Hypervisor,
    Machine,
    PoolMember,
    Push,
    Request,
    Template,
    TemplateCopy,
    TemplateVersion,
)
from broker.services import notices, operations
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def another_pool(house: Estate, number: int) -> None:
    pool = house.open_pool(f"Pool {number}")
    Entitlement.objects.create(pool=pool, user=house.alice)
    house.give(house.alice, pool)
    house.make(pool)


def another_hypervisor(house: Estate, number: int) -> None:
    hypervisor = Hypervisor.objects.create(name=f"kvm-1{number}", kind="kvm")
    Machine.objects.create(
        hypervisor=house.hypervisor, platform_id=str(number), name=str(number), power="on", seen_at=timezone.now()
    )
    version = TemplateVersion.objects.create(template=Template.objects.create(name=f"T{number}"), number=1)
    copy = TemplateCopy.objects.create(
        version=version, hypervisor=hypervisor, platform_id="golden", name="golden", vcpus=1, memory_mib=512
    )
    PoolMember.objects.create(pool=house.pool, hypervisor=hypervisor, copy=copy)


def another_operation(house: Estate, number: int) -> None:
    operations.order(
        kind="screen", hypervisor_id=house.hypervisor.pk, desktop=house.desktop, parameters={}, changes=False,
        requested_by=house.alice,
    )  # fmt: skip


def another_notice(house: Estate, number: int) -> None:
    people = [house.alice.pk, house.dana.pk]
    facts = {"pool": "Office", "desktop": f"office-{number}"}
    notices.tell(people, Kind.DESKTOP_READY, now=timezone.now(), pool_id=house.pool.pk, facts=facts)


def another_session(house: Estate, number: int) -> None:
    now = timezone.now()
    for user in (house.alice, house.dana):
        DesktopSession.objects.create(
            desktop=house.make(), user=user, epoch=2, state_since=now, began_at=now, input_at=now
        )


def another_push(house: Estate, number: int) -> None:
    now = timezone.now()
    Push.objects.create(
        pool=house.pool, version=house.copy.version, state="done", starts_at=now, created_at=now, finished_at=now
    )


GROWTH: dict[str, tuple[Callable[[Estate, int], None], int, int]] = {
    # list: (what adds a row, statements for Alice, statements for Dana); the token's own statement is the first.
    "pools": (another_pool, 3, 5),
    "desktops": (another_pool, 3, 3),
    "requests": (another_pool, 3, 3),
    "operations": (another_operation, 3, 3),
    "hypervisors": (another_hypervisor, 0, 3),
    "templates": (another_hypervisor, 0, 5),
    "entitlements": (another_pool, 0, 3),
    "notices": (another_notice, 3, 3),
    "sessions": (another_session, 3, 3),
    "pools/{pool}/pushes": (another_push, 0, 5),
    "hypervisors/{id}/machines": (another_hypervisor, 0, 5),
}


@pytest.mark.parametrize("noun", GROWTH)
def test_a_list_takes_the_same_few_statements_whatever_its_length(house: Estate, calling: Callers, noun: str) -> None:
    grow, for_alice, for_dana = GROWTH[noun]
    for user, pinned in ((house.alice, for_alice), (house.dana, for_dana)):
        call, path = (
            calling(user),
            f"/{noun.replace('{id}', str(house.hypervisor.pk)).replace('{pool}', str(house.pool.pk))}",
        )
        call.get(path)  # notes the token's use
        for number in range(5):
            grow(house, number + 10 * user.pk)
        if pinned:
            with CaptureQueriesContext(
                connection,
            ) as statements:
                answer = call.get(path)
            assert answer.body["total"] >= 5
            assert len(statements) == pinned, [one["sql"] for one in statements]


def test_lists_are_newest_first_with_a_window_and_the_total(house: Estate, calling: Callers) -> None:
    for number in range(5):
        another_pool(house, number)
    call = calling(house.alice)
    names = [item["name"] for item in call.get("/pools").body["items"]]
    assert names == ["Pool 4", "Pool 3", "Pool 2", "Pool 1", "Pool 0", "Office"]
    part = call.get("/pools?limit=2&offset=1").body
    assert [item["name"] for item in part["items"]] == ["Pool 3", "Pool 2"]
    assert part["total"] == 6
    assert call.get("/pools?offset=100").body == {"items": [], "total": 6}


def test_a_list_holds_50_unless_asked_and_never_more_than_500(house: Estate, calling: Callers) -> None:
    Request.objects.bulk_create(
        Request(pool=house.pool, user=house.alice, state="ended", created_at=timezone.now()) for _ in range(520)
    )
    call = calling(house.alice)
    assert len(call.get("/requests").body["items"]) == 50
    assert len(call.get("/requests?limit=500").body["items"]) == 500


@pytest.mark.parametrize(
    "query", ["limit=501", "limit=0", "limit=-1", "limit=x", "offset=-1", "offset=99999999999999999999"]
)
def test_a_window_out_of_bounds_is_told_by_field(house: Estate, calling: Callers, query: str) -> None:
    answer = calling(house.alice).get(f"/desktops?{query}")
    assert (answer.status, answer.media_type) == (422, "application/problem+json")
    assert list(answer.body["fields"]) == [query.partition("=")[0]]


def test_filters_narrow_and_unknown_values_are_refused(house: Estate, calling: Callers) -> None:
    house.make()
    dana = calling(house.dana)
    assert dana.get("/desktops").body["total"] == 2
    assert dana.get("/desktops?state=ready").body["total"] == 1
    assert dana.get("/desktops?mine=true").body["total"] == 0
    assert dana.get(f"/desktops?pool={house.pool.pk}&hypervisor={house.hypervisor.pk}").body["total"] == 2
    assert dana.get("/requests?state=ready").body["total"] == 1
    assert dana.get("/desktops?state=sleepy").status == 422


def test_what_is_gone_is_listed_only_if_asked_for(house: Estate, calling: Callers) -> None:
    house.make(state="gone")
    dana = calling(house.dana)
    assert dana.get("/desktops").body["total"] == 1
    assert dana.get("/desktops?state=gone").body["total"] == 1


def test_ids_are_uuids_and_times_are_rfc_3339_in_utc(house: Estate, calling: Callers) -> None:
    another_operation(house, 1)
    another_notice(house, 1)
    for noun in ("hypervisors", "templates", "pools", "desktops", "operations", "requests", "entitlements", "notices"):
        item = calling(house.dana).get(f"/{noun}").body["items"][0]
        assert str(UUID(item["id"])) == item["id"]
        assert MOMENT.fullmatch(item["created_at"])
        assert abs((datetime.now(UTC) - datetime.fromisoformat(item["created_at"])).total_seconds()) < 300


def test_a_pool_tells_administrators_its_members_and_how_many_desktops_are_in_each_state(
    house: Estate, calling: Callers
) -> None:
    house.make()
    house.make(state="gone")
    pool = calling(house.dana).get("/pools").body["items"][0]
    assert pool["desktops"] == {"ready": 1, "assigned": 1}
    assert pool["members"][0]["hypervisor"] == str(house.hypervisor.pk)
