"""What follows from an answer: the desktop of the same owner moves, and nobody else's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.hypervisors import gate
from broker.models import Desktop, Event, Host, Hypervisor, Machine, Operation, Pool, PoolMember
from broker.services import outcomes
from connectors.base import MachineMade, Outcome, Power, PowerSet, Stage
from connectors.errors import Busy, CapacityExhausted, ConnectorError, PlatformFault, Unsupported
from tests.broker.portal.cast import Estate

Kind = Operation.Kind
EPOCH = 7
"""Of the pump that asked."""


def _flying(house: Estate, desktop: Desktop, kind: str, **fields: Any) -> Operation:
    now = timezone.now()
    values: dict[str, Any] = {
        "kind": kind,
        "state": Operation.State.RUNNING,
        "hypervisor": house.hypervisor,
        "desktop": desktop,
        "epoch": desktop.epoch,
        "pump_epoch": EPOCH,
        "attempt": 1,
        "parameters": {"machine": desktop.machine_id, "stamp_key": desktop.stamp_key, "action": "off"},
        "created_at": now,
        "deadline_at": now + timedelta(hours=1),
    }
    return Operation.objects.create(**(values | fields))


def _apply(house: Estate, *answers: Outcome, epoch: int = EPOCH) -> None:
    outcomes.apply(Hypervisor.objects.get(pk=house.hypervisor.pk), epoch, answers)


def _made(operation: Operation, machine_id: str = "", *disks: str) -> Outcome:
    made = MachineMade(machine_id=machine_id or str(uuid4()), name="m", disks=disks or ("new-disk",), power=Power.ON)
    return Outcome(key=str(operation.pk), stage=Stage.DONE, result=made)


def _failed(operation: Operation, error: ConnectorError) -> Outcome:
    return Outcome(key=str(operation.pk), stage=Stage.FAILED, error=error)


def _now(desktop: Desktop) -> Desktop:
    desktop.refresh_from_db()
    return desktop


# --- whose -----------------------------------------------------------------------------------------------------------


def test_an_answer_to_another_pump_is_dropped(house: Estate) -> None:
    desktop = house.make(state=State.BUILDING, machine_id="", clean_epoch=0)
    clone = _flying(house, desktop, Kind.CLONE)
    _apply(house, _made(clone), epoch=EPOCH + 1)
    clone.refresh_from_db()
    assert (clone.state, _now(desktop).state) == (Operation.State.RUNNING, State.BUILDING)


def test_a_second_answer_to_the_same_order_is_dropped(house: Estate) -> None:
    desktop = house.make(state=State.BUILDING, machine_id="", clean_epoch=0)
    clone = _flying(house, desktop, Kind.CLONE)
    _apply(house, _made(clone, "first"))
    _apply(house, _made(clone, "second"))
    assert _now(desktop).machine_id == "first"


def test_a_fresh_disk_for_the_last_user_does_not_make_it_clean_for_the_next(house: Estate) -> None:
    desktop = house.make(state=State.RECYCLING, epoch=5, clean_epoch=3, disks=["old"])
    late = _flying(house, desktop, Kind.RECYCLE, epoch=4)
    _apply(house, _made(late, desktop.machine_id))
    after = _now(desktop)
    assert (after.state, after.clean_epoch, after.disks) == (State.RECYCLING, 3, ["old"])


def test_a_failure_that_concerned_the_last_user_does_not_fail_the_next_ones_desktop(house: Estate) -> None:
    desktop = house.make(state=State.RECYCLING, epoch=5, clean_epoch=3)
    late = _flying(house, desktop, Kind.RECYCLE, epoch=4)
    _apply(house, _failed(late, PlatformFault("No.")))
    assert _now(desktop).state == State.RECYCLING


# --- built, recycled, deleted ----------------------------------------------------------------------------------------


def test_a_built_machine_is_clean_and_known_before_any_listing(house: Estate) -> None:
    desktop = house.make(state=State.BUILDING, machine_id="", clean_epoch=0)
    clone = _flying(house, desktop, Kind.CLONE)
    _apply(house, _made(clone, "m-1", "d-1"))
    after = _now(desktop)
    assert (after.state, after.clean_epoch, after.disks) == (State.PREPARING, 1, ["d-1"])
    assert (after.machine_id, after.stamp_key) == ("m-1", str(clone.pk))
    assert Machine.objects.get(platform_id="m-1").stamp_key == str(clone.pk)


def test_a_machine_built_for_a_desktop_that_is_to_go_is_remembered_so_that_it_can_be_deleted(house: Estate) -> None:
    desktop = house.make(state=State.RETIRING, machine_id="", clean_epoch=0)
    _apply(house, _made(_flying(house, desktop, Kind.CLONE), "m-1"))
    assert (_now(desktop).state, desktop.machine_id) == (State.RETIRING, "m-1")


def test_a_pool_that_waits_for_no_guest_is_ready_when_the_machine_stands(house: Estate) -> None:
    Pool.objects.update(preparation=Pool.Preparation.NONE)
    desktop = house.make(state=State.BUILDING, machine_id="", clean_epoch=0)
    _apply(house, _made(_flying(house, desktop, Kind.CLONE)))
    assert _now(desktop).state == State.READY


@pytest.mark.parametrize("disks", [("old",), ("old", "new")])
def test_recycling_without_evidence_of_a_fresh_disk_keeps_the_desktop_from_everybody(
    house: Estate, disks: tuple[str, ...]
) -> None:
    desktop = house.make(state=State.RECYCLING, epoch=3, clean_epoch=1, disks=["old"])
    _apply(house, _made(_flying(house, desktop, Kind.RECYCLE), desktop.machine_id, *disks))
    after = _now(desktop)
    assert (after.state, after.clean_epoch) == (State.FAILED, 1)
    assert "no evidence" in after.failure


def test_recycling_with_a_fresh_disk_makes_it_clean(house: Estate) -> None:
    desktop = house.make(state=State.RECYCLING, epoch=3, clean_epoch=1, disks=["old"])
    _apply(house, _made(_flying(house, desktop, Kind.RECYCLE), desktop.machine_id, "new"))
    after = _now(desktop)
    assert (after.state, after.clean_epoch, after.disks) == (State.PREPARING, 3, ["new"])


@pytest.mark.parametrize("state", [State.RETIRING, State.MISSING])
def test_a_machine_that_recycling_made_anew_is_remembered_whatever_became_of_the_desktop(
    house: Estate, state: State
) -> None:
    desktop = house.make(state=state, epoch=3, clean_epoch=1, disks=["old"])
    recycle = _flying(house, desktop, Kind.RECYCLE)
    Machine.objects.create(
        hypervisor=house.hypervisor, platform_id=desktop.machine_id, name=desktop.name, vcpus=1, memory_mib=512,
        seen_at=desktop.state_since,
    )  # fmt: skip
    _apply(house, _made(recycle, "another machine", "new"))
    after = _now(desktop)
    assert (after.state, after.machine_id, after.stamp_key) == (state, "another machine", str(recycle.pk))
    assert after.clean_epoch == 1
    assert not Machine.objects.exists(), "the old one would be missed, and with nineteen others be doubted"


def test_a_deleted_desktop_gives_back_what_it_reserved(house: Estate) -> None:
    host = _host(house, reserved_memory_mib=512, reserved_vcpus=1)
    desktop = house.make(state=State.RETIRING, target_host=host, reserved_memory_mib=512, reserved_vcpus=1)
    delete = _flying(house, desktop, Kind.DELETE)
    _apply(house, Outcome(key=str(delete.pk), stage=Stage.DONE))
    host.refresh_from_db()
    assert _now(desktop).state == State.GONE
    assert (host.reserved_memory_mib, host.reserved_vcpus) == (0, 0)


def test_power_is_taken_over_at_once(house: Estate) -> None:
    power = _flying(house, house.desktop, Kind.POWER)
    _apply(house, Outcome(key=str(power.pk), stage=Stage.DONE, result=PowerSet(Power.OFF)))
    assert (_now(house.desktop).power, house.desktop.is_answering) == ("off", False)


# --- failures --------------------------------------------------------------------------------------------------------


def test_what_may_work_later_is_queued_again_with_a_pause(house: Estate) -> None:
    power = _flying(house, house.desktop, Kind.POWER)
    _apply(house, _failed(power, Busy("Busy.", retry_after_s=30)))
    power.refresh_from_db()
    assert power.state == Operation.State.QUEUED
    assert power.not_before is not None
    assert power.not_before > timezone.now() + timedelta(seconds=25)


def test_what_may_work_later_fails_when_there_is_no_time_left(house: Estate) -> None:
    soon = timezone.now() + timedelta(seconds=10)
    power = _flying(house, house.desktop, Kind.POWER, deadline_at=soon)
    _apply(house, _failed(power, Busy("Busy.", retry_after_s=30)))
    power.refresh_from_db()
    assert (power.state, power.error) == (Operation.State.FAILED, "Busy.")


def test_a_failed_build_rests_the_member_longer_each_time_and_a_success_forgives_it(house: Estate) -> None:
    member = PoolMember.objects.get(pool=house.pool)
    pauses = []
    for _ in range(3):
        desktop = house.make(state=State.BUILDING, machine_id="", clean_epoch=0)
        _apply(house, _failed(_flying(house, desktop, Kind.CLONE), PlatformFault("No.")))
        member.refresh_from_db()
        assert member.hold_until is not None
        pauses.append(member.hold_until - timezone.now())
    assert pauses[0] < pauses[1] < pauses[2]
    assert (member.failures, member.hold_reason) == (3, "No.")
    desktop = house.make(state=State.BUILDING, machine_id="", clean_epoch=0)
    _apply(house, _made(_flying(house, desktop, Kind.CLONE)))
    member.refresh_from_db()
    assert (member.failures, member.hold_until) == (0, None)


def test_a_full_storage_rests_the_member_for_minutes_at_once(house: Estate) -> None:
    desktop = house.make(state=State.BUILDING, machine_id="", clean_epoch=0)
    _apply(house, _failed(_flying(house, desktop, Kind.CLONE), CapacityExhausted("Full.")))
    member = PoolMember.objects.get(pool=house.pool)
    assert member.hold_until is not None
    assert member.hold_until > timezone.now() + timedelta(seconds=outcomes.CAPACITY_HOLD_S - 10)


def test_the_platforms_words_are_kept_for_administrators(house: Estate) -> None:
    power = _flying(house, house.desktop, Kind.POWER)
    _apply(house, _failed(power, PlatformFault("It failed.", platform_words="0xC10E")))
    power.refresh_from_db()
    assert (power.error, power.platform_words) == ("It failed.", "0xC10E")
    assert "0xC10E" not in Event.objects.get(kind="operation.failed").message


# --- cost ------------------------------------------------------------------------------------------------------------


def test_outcomes_cost_the_same_kinds_of_statements_for_two_hundred_desktops_as_for_ten(house: Estate) -> None:
    found = []
    gate.installation_id()
    for count in (10, 200):
        rows = [
            house.make(state=State.BUILDING, machine_id="", clean_epoch=0, name=f"b{count}-{n}") for n in range(count)
        ]
        answers = [_made(_flying(house, desktop, Kind.CLONE)) for desktop in rows]
        with CaptureQueriesContext(connection) as asked:
            _apply(house, *answers)
        assert Desktop.objects.filter(pk__in=[d.pk for d in rows], state=State.PREPARING).count() == count
        found.append({str(query["sql"])[:50] for query in asked.captured_queries})
        assert len(asked) < 40
    assert found[0] == found[1]


def _host(house: Estate, **fields: Any) -> Host:
    return Host.objects.create(
        hypervisor=house.hypervisor,
        platform_id="h",
        name="h",
        vcpus=8,
        memory_mib=8192,
        seen_at=timezone.now(),
        **fields,
    )


def test_what_cannot_be_recycled_is_replaced(house: Estate) -> None:
    used = house.make(state=State.RECYCLING, epoch=3)
    recycle = _flying(house, used, Kind.RECYCLE)
    _apply(house, _failed(recycle, Unsupported("It keeps UEFI variables.")))
    assert _now(used).state == State.RETIRING
    assert Event.objects.filter(kind="desktop.retired", desktop=used).count() == 1


def test_failures_are_forgotten_when_a_guest_answers_and_not_before(house: Estate) -> None:
    used = house.make(state=State.RECYCLING, epoch=3, attempts=2)
    _apply(house, _made(_flying(house, used, Kind.RECYCLE)))
    assert (_now(used).state, used.attempts) == (State.PREPARING, 2)
