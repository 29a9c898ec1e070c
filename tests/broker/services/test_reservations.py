"""Capacity is promised once and given back once."""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.domain.placement import Needs, Target
from broker.models import Host
from broker.selectors import room
from broker.services import reservations
from tests.broker.portal.cast import Estate

NEEDS = Needs(vcpus=1, memory_mib=512, disk_mib=100)


def _host(house: Estate, platform_id: str = "h", **fields: Any) -> Host:
    values = {"name": platform_id, "vcpus": 4, "memory_mib": 1024, "seen_at": timezone.now()}
    return Host.objects.create(hypervisor=house.hypervisor, platform_id=platform_id, **(values | fields))


def _target(house: Estate) -> Target:
    members = list(house.pool.members.select_related("hypervisor", "copy"))
    return room.estate(members).targets(members)[0]


def _held(host: Host) -> tuple[int, int]:
    host.refresh_from_db()
    return host.reserved_memory_mib, host.reserved_vcpus


def test_what_fits_is_taken_and_the_next_that_does_not_is_refused(house: Estate) -> None:
    host = _host(house)
    target = _target(house)
    assert [reservations.take(target, NEEDS) for _ in range(3)] == [True, True, False]
    assert _held(host) == (1024, 2)


def test_what_machines_use_is_not_promised(house: Estate) -> None:
    host = _host(house)
    target = _target(house)
    Host.objects.update(used_memory_mib=600)
    assert not reservations.take(target, NEEDS)
    assert _held(host) == (0, 0)


def test_an_end_gives_back_what_each_held_and_only_once(house: Estate) -> None:
    host = _host(house, reserved_memory_mib=1024, reserved_vcpus=2)
    desktop = house.make(target_host=host, reserved_memory_mib=512, reserved_vcpus=1)
    for _ in range(2):
        reservations.end([desktop])
    desktop.refresh_from_db()
    assert _held(host) == (512, 1)
    assert (desktop.reserved_memory_mib, desktop.reserved_vcpus) == (0, 0)


def test_an_end_never_promises_less_than_nothing(house: Estate) -> None:
    host = _host(house, reserved_memory_mib=100)
    reservations.end([house.make(target_host=host, reserved_memory_mib=512, reserved_vcpus=1)])
    assert _held(host) == (0, 0)


def test_many_ends_cost_two_statements_a_host(house: Estate) -> None:
    host = _host(house, reserved_memory_mib=512 * 30, reserved_vcpus=30)
    rows = [house.make(target_host=host, reserved_memory_mib=512, reserved_vcpus=1) for _ in range(30)]
    with CaptureQueriesContext(connection) as asked:
        reservations.end(rows)
    assert len(asked) == 2
    assert _held(host) == (0, 0)


def test_a_recount_puts_right_what_was_lost_or_counted_twice(house: Estate) -> None:
    too_much, too_little, right = (
        _host(house, "a", reserved_memory_mib=2000),
        _host(house, "b"),
        _host(house, "c", reserved_memory_mib=512, reserved_vcpus=1),
    )
    house.make(target_host=too_little, reserved_memory_mib=512, reserved_vcpus=1)
    house.make(target_host=right, reserved_memory_mib=512, reserved_vcpus=1)
    reservations.recount()
    assert [_held(host) for host in (too_much, too_little, right)] == [(0, 0), (512, 1), (512, 1)]


def test_what_stands_nowhere_holds_nothing(house: Estate) -> None:
    host = _host(house, reserved_memory_mib=1024, reserved_vcpus=2)
    held: dict[str, Any] = {"target_host": host, "reserved_memory_mib": 512, "reserved_vcpus": 1}
    house.make(state=State.GONE, **held)
    house.make(state=State.FAILED, machine_id="", **held)
    reservations.recount()
    assert _held(host) == (0, 0)
