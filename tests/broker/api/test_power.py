"""Switching many desktops by API: by their ids or by what they have in common."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from broker.models import Operation
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def test_those_that_fit_a_filter_are_switched_and_the_rest_is_said(house: Estate, calling: Callers) -> None:
    on, off = house.make(), house.make(power="off")
    answer = calling(house.dana).post("/desktops/power", {"filter": {"state": "ready"}, "action": "off"})
    assert answer.status == 202
    order = Operation.objects.get()
    assert order.desktop == on
    assert answer.body == {
        "ordered": 1,
        "in_use": 0,
        "skipped": [{"desktop": str(off.pk), "name": off.name, "reason": "off already"}],
        "unknown": [],
        "operations": [str(order.pk)],
    }
    shown = calling(house.dana).get(f"/operations/{order.pk}").body
    assert (shown["action"], shown["requested_by"], shown["cause"]) == ("off", "dana", "")


def test_those_named_are_switched_and_unknown_ids_are_said(house: Estate, calling: Callers) -> None:
    now, nowhere = timezone.now(), str(uuid4())
    house.desktop.sessions.create(user=house.alice, epoch=2, protocol="vnc", started_at=now, seen_at=now)
    wish = {"ids": [str(house.desktop.pk), str(house.make().pk), nowhere], "action": "shutdown"}
    answer = calling(house.dana).post("/desktops/power", wish)
    assert (answer.status, answer.body["ordered"], answer.body["in_use"]) == (202, 2, 1)
    assert answer.body["unknown"] == [nowhere]
    assert {str(pk) for pk in Operation.objects.values_list("pk", flat=True)} == set(answer.body["operations"])
    assert set(Operation.objects.values_list("cause", flat=True)) == {"together with 1 other"}


def test_what_it_would_touch_can_be_asked_first(house: Estate, calling: Callers) -> None:
    house.make()
    wish = {"filter": {"pool": str(house.pool.pk)}, "action": "off", "dry_run": True}
    answer = calling(house.dana).post("/desktops/power", wish)
    assert (answer.status, answer.body["ordered"], answer.body["operations"]) == (200, 2, [])
    assert not Operation.objects.exists()


def test_what_is_gone_fits_no_filter(house: Estate, calling: Callers) -> None:
    house.make(state="gone")
    wish = {"filter": {"hypervisor": str(house.hypervisor.pk)}, "action": "off", "dry_run": True}
    body = calling(house.dana).post("/desktops/power", wish).body
    assert (body["ordered"], body["skipped"]) == (1, [])


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"action": "off"}, "ids"),
        ({"action": "off", "ids": [], "filter": {"state": "ready"}}, "filter"),
        ({"action": "off", "filter": {}}, "filter"),
        ({"action": "explode", "filter": {"state": "ready"}}, "action"),
        ({"action": "off", "ids": [str(uuid4()) for _ in range(501)]}, "ids"),
        ({"action": "off", "filter": {"name": "x"}}, "filter.name"),
    ],
)
def test_a_wish_without_a_clear_aim_switches_nothing(
    house: Estate, calling: Callers, wish: dict[str, Any], field: str
) -> None:
    answer = calling(house.dana).post("/desktops/power", wish)
    assert answer.status == 422
    assert field in answer.body["fields"]
    assert not Operation.objects.exists()
