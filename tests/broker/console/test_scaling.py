"""How many desktops a pool keeps free: set on a page of its own, told on the pool's."""

from __future__ import annotations

from datetime import time

import pytest
from django.test import Client

from broker.models import Pool
from tests.broker.console.test_acts import at
from tests.broker.console.test_replication import seen
from tests.broker.portal.cast import Estate

TYPED = {
    "minimum": 1, "spare": 2, "spare_percent": 25, "peak_weekdays": list("1234567"), "peak_begins": "00:00",
    "peak_ends": "00:00", "peak_zone": "Europe/Berlin", "peak_minimum": 4, "peak_spare": 5, "peak_spare_percent": "",
}  # fmt: skip


def test_the_pool_says_which_numbers_hold_and_until_when(house: Estate, dana: Client) -> None:
    answer = dana.post(at("pool-scaling", house.pool.pk), TYPED, follow=True)
    assert "Peak hours until" in seen(answer)
    assert "Minimum 4 Spare 5" in seen(answer)
    house.pool.refresh_from_db()
    assert (house.pool.spare_percent, house.pool.peak_begins) == (25, time(0))
    answer = dana.post(at("pool-scaling", house.pool.pk), TYPED | {"peak_weekdays": []}, follow=True)
    assert "Peak hours" not in seen(answer)
    assert "25 % of those in use, at least 2 2 now" in seen(answer)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"peak_begins": "late"}, "A time of day such as 08:30."),
        ({"peak_ends": ""}, "Give a time of day."),
        ({"peak_spare": 99}, "Not more than the maximum (10)."),
        ({"spare_percent": 0}, "greater than or equal to 1"),
        ({"peak_zone": "Mars/Base"}, "is not one of the available choices"),
    ],
)
def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(
    house: Estate, dana: Client, wrong: dict[str, object], said: str
) -> None:
    answer = dana.post(at("pool-scaling", house.pool.pk), TYPED | wrong)
    assert answer.status_code == 422
    page = answer.content.decode()
    assert said in page
    assert 'name="peak_minimum" value="4"' in page
    assert Pool.objects.get(pk=house.pool.pk).peak_weekdays == ""
