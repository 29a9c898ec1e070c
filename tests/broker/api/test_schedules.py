"""A pool's power schedules by API."""

from __future__ import annotations

from datetime import time
from uuid import uuid4

import pytest

from broker.services import schedules
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def test_a_pools_schedules_say_when_and_what(house: Estate, calling: Callers) -> None:
    calendar = schedules.create_calendar(actor=house.dana, name="Berlin", days={})
    made = schedules.create_schedule(
        actor=house.dana, pool_id=house.pool.pk, name="Weekday mornings", action="on", reach="share", amount=80,
        at=time(8, 30), weekdays="12345", zone="Europe/Berlin", calendar_id=calendar.pk,
    )  # fmt: skip
    other = house.open_pool("Laboratory")
    schedules.create_schedule(
        actor=house.dana, pool_id=other.pk, name="Nights", action="off", at=time(22), weekdays="7", zone="UTC"
    )
    answer = calling(house.dana).get(f"/pools/{house.pool.pk}/schedules")
    assert answer.body["total"] == 1
    (shown,) = answer.body["items"]
    assert shown["id"] == str(made.pk)
    assert (shown["action"], shown["reach"], shown["amount"]) == ("on", "share", 80)
    assert (shown["at"], shown["zone"], shown["weekdays"]) == ("08:30", "Europe/Berlin", [1, 2, 3, 4, 5])
    assert (shown["calendar"], shown["is_enabled"], shown["last_run_at"]) == ("Berlin", True, None)
    assert shown["next_run_at"].endswith("Z")


def test_an_unknown_pool_has_none(house: Estate, calling: Callers) -> None:
    assert calling(house.dana).get(f"/pools/{uuid4()}/schedules").status == 404


def test_users_do_not_see_them_not_even_of_their_own_pools(house: Estate, calling: Callers) -> None:
    assert calling(house.alice).get(f"/pools/{house.pool.pk}/schedules").status == 403
