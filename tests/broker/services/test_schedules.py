"""Power schedules: kept by administrators, run once whoever sees them, fair to people."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import AuditEntry, Desktop, Event, HolidayCalendar, Hypervisor, Operation, PowerSchedule, Request
from broker.services import audit, brokering, clock, nudges, operations, outcomes, power, schedules
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from connectors.base import Outcome, Power, PowerSet, Stage
from tests.broker.plant import Plant
from tests.broker.portal.cast import Estate
from tests.broker.services.test_power import kinds

EVERY_DAY = "1234567"


def make(house: Estate, **fields: Any) -> PowerSchedule:
    values: dict[str, Any] = {
        "name": "Evenings", "action": "off", "at": time(20), "weekdays": "12345", "zone": "Europe/Berlin",
    }  # fmt: skip
    return schedules.create_schedule(actor=house.dana, pool_id=house.pool.pk, **(values | fields))


def make_due(schedule: PowerSchedule, late: timedelta = timedelta(seconds=1)) -> datetime:
    due = timezone.now() - late
    PowerSchedule.objects.filter(pk=schedule.pk).update(next_run_at=due)
    return due


def run(schedule: PowerSchedule) -> list[Operation]:
    make_due(schedule)
    before = set(Operation.objects.values_list("pk", flat=True))
    schedules.run(schedule.pk)
    return list(Operation.objects.exclude(pk__in=before).order_by("desktop__name"))


def open_screen(house: Estate, desktop: Desktop) -> None:
    now = timezone.now()
    desktop.sessions.create(user=house.alice, epoch=desktop.epoch, protocol="vnc", started_at=now, seen_at=now)


def long_had(house: Estate) -> None:
    house.desktop.assignments.update(since=timezone.now() - timedelta(days=2))


# --- kept by administrators ------------------------------------------------------------------------------------------


def test_a_new_schedule_knows_its_next_run(house: Estate) -> None:
    schedule = make(house)
    assert schedule.next_run_at is not None
    assert schedule.next_run_at > timezone.now()
    assert schedule.next_run_at.astimezone(UTC).minute == 0
    entry = AuditEntry.objects.get(action="schedule.create")
    assert entry.changes["at"] == [None, "20:00"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": " "}, "name"),
        ({"action": "explode"}, "action"),
        ({"weekdays": ""}, "weekdays"),
        ({"weekdays": "21"}, "weekdays"),
        ({"weekdays": "18"}, "weekdays"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"action": "on", "reach": "share", "amount": 101}, "amount"),
        ({"action": "on", "reach": "number", "amount": 0}, "amount"),
        ({"action": "on", "reach": "number"}, "amount"),
        ({"action": "on", "reach": "half"}, "reach"),
        ({"calendar_id": uuid4()}, "calendar_id"),
    ],
)
def test_what_is_wrong_is_said_field_by_field(house: Estate, fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Invalid) as refused:
        make(house, **fields)
    assert wrong in refused.value.fields
    assert not PowerSchedule.objects.exists()


def test_a_pool_has_a_name_once(house: Estate) -> None:
    make(house)
    with pytest.raises(Invalid) as refused:
        make(house)
    assert "already has a schedule" in refused.value.fields["name"]


def test_only_administrators_keep_schedules(house: Estate) -> None:
    schedule = make(house)
    calendar = schedules.create_calendar(actor=house.dana, name="Holidays", days={})
    for act in (
        lambda: schedules.create_schedule(actor=house.alice, pool_id=house.pool.pk, name="x"),
        lambda: schedules.change_schedule(actor=house.alice, schedule_id=schedule.pk, name="x"),
        lambda: schedules.enable_schedule(actor=house.alice, schedule_id=schedule.pk, on=False),
        lambda: schedules.delete_schedule(actor=house.alice, schedule_id=schedule.pk),
        lambda: schedules.create_calendar(actor=house.alice, name="x", days={}),
        lambda: schedules.change_calendar(actor=house.alice, calendar_id=calendar.pk, name="x", days={}),
        lambda: schedules.delete_calendar(actor=house.alice, calendar_id=calendar.pk),
    ):
        with pytest.raises(Forbidden):
            act()


def test_what_does_not_exist_is_missing(house: Estate) -> None:
    with pytest.raises(Missing):
        schedules.change_schedule(actor=house.dana, schedule_id=uuid4(), name="x")
    with pytest.raises(Missing):
        schedules.delete_calendar(actor=house.dana, calendar_id=uuid4())


def test_off_reaches_all_that_is_free_whatever_was_typed(house: Estate) -> None:
    schedule = make(house, action="on", reach="share", amount=50)
    changed = schedules.change_schedule(actor=house.dana, schedule_id=schedule.pk, action="off")
    assert (changed.reach, changed.amount) == ("all", None)


def test_a_changed_time_moves_the_next_run_and_another_name_does_not(house: Estate) -> None:
    schedule = make(house)
    renamed = schedules.change_schedule(actor=house.dana, schedule_id=schedule.pk, name="Nights")
    assert renamed.next_run_at == schedule.next_run_at
    moved = schedules.change_schedule(actor=house.dana, schedule_id=schedule.pk, at=time(21))
    assert moved.next_run_at != schedule.next_run_at


def test_a_schedule_that_is_due_is_not_lost_by_a_new_name(house: Estate) -> None:
    schedule = make(house)
    due = make_due(schedule)
    assert schedules.change_schedule(actor=house.dana, schedule_id=schedule.pk, name="Nights").next_run_at == due


def test_a_paused_schedule_never_runs_and_makes_up_for_nothing(house: Estate) -> None:
    schedule = make(house)
    make_due(schedule)
    schedules.enable_schedule(actor=house.dana, schedule_id=schedule.pk, on=False)
    assert schedules.due() == []
    again = schedules.enable_schedule(actor=house.dana, schedule_id=schedule.pk, on=True)
    assert again.next_run_at is not None
    assert again.next_run_at > timezone.now()


@pytest.mark.parametrize(
    "broken",
    [{"weekdays": ""}, {"next_run_at": None}, {"is_enabled": False}, {"reach": "share", "amount": 5}, {"amount": 3}],
)
def test_the_database_refuses_a_schedule_that_makes_no_sense(house: Estate, broken: dict[str, Any]) -> None:
    schedule = make(house)
    with pytest.raises(IntegrityError), transaction.atomic():
        PowerSchedule.objects.filter(pk=schedule.pk).update(**broken)


# --- holidays --------------------------------------------------------------------------------------------------------


def test_a_new_holiday_moves_the_runs_that_respect_it(house: Estate) -> None:
    calendar = schedules.create_calendar(actor=house.dana, name="Berlin", days={})
    schedule = make(house, weekdays=EVERY_DAY, calendar_id=calendar.pk)
    other = make(house, name="Else", weekdays=EVERY_DAY)
    assert schedule.next_run_at is not None
    day = schedule.next_run_at.date()
    schedules.change_calendar(actor=house.dana, calendar_id=calendar.pk, name="Berlin", days={day: "Feast"})
    moved = PowerSchedule.objects.get(pk=schedule.pk).next_run_at
    assert moved is not None
    assert moved.date() == day + timedelta(days=1)
    assert PowerSchedule.objects.get(pk=other.pk).next_run_at == other.next_run_at
    assert AuditEntry.objects.get(action="calendar.change").changes["days"] == [[], [f"{day} Feast"]]


def test_a_calendar_that_is_respected_stays(house: Estate) -> None:
    calendar = schedules.create_calendar(actor=house.dana, name="Berlin", days={date(2026, 12, 25): "Christmas"})
    schedule = make(house, calendar_id=calendar.pk)
    with pytest.raises(Clash, match="respected by Evenings"):
        schedules.delete_calendar(actor=house.dana, calendar_id=calendar.pk)
    schedules.change_schedule(actor=house.dana, schedule_id=schedule.pk, calendar_id=None)
    schedules.delete_calendar(actor=house.dana, calendar_id=calendar.pk)
    assert not HolidayCalendar.objects.exists()


@pytest.mark.parametrize("days", [{date(1900, 1, 1): ""}, {date(2026, 1, 1): "a\nb"}])
def test_days_that_make_no_sense_are_refused(house: Estate, days: dict[date, str]) -> None:
    with pytest.raises(Invalid) as refused:
        schedules.create_calendar(actor=house.dana, name="x", days=days)
    assert "days" in refused.value.fields


# --- run by the clock ------------------------------------------------------------------------------------------------


def test_the_clock_wakes_somebody_for_a_schedule_that_is_due_until_it_was_run(
    house: Estate, hints: Callable[[], Any]
) -> None:
    schedule = make(house)
    make_due(schedule)

    def woken() -> list[str]:
        with hints() as sent:
            clock.tick()
        return [argument for task, argument in sent if task == nudges.SCHEDULE]

    assert woken() == woken() == [str(schedule.pk)], "a lost hint loses nothing"
    schedules.run(schedule.pk)
    assert woken() == []


def test_a_run_moves_its_time_and_says_so(house: Estate) -> None:
    free, schedule = house.make(), make(house)
    long_had(house)
    ordered = run(schedule)
    assert {o.desktop for o in ordered} == {free, house.desktop}
    schedule.refresh_from_db()
    assert schedule.next_run_at is not None
    assert schedule.last_run_at is not None
    assert schedule.next_run_at > timezone.now()
    assert Event.objects.get(kind="schedule.run").message == "Evenings: 2 desktops are being shut down."
    assert AuditEntry.objects.get(action="schedule.run").actor_name == "deskyard"


def test_whoever_comes_second_runs_nothing(house: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read that it is due; the first one's compare-and-swap decides."""
    house.make()
    schedule = make(house)
    make_due(schedule)
    following = schedules._next

    def meanwhile(found: PowerSchedule, after: datetime) -> datetime | None:
        monkeypatch.setattr(schedules, "_next", following)
        schedules.run(schedule.pk)
        return following(found, after)

    monkeypatch.setattr(schedules, "_next", meanwhile)
    schedules.run(schedule.pk)
    assert Event.objects.filter(kind="schedule.run").count() == 1
    assert Operation.objects.count() == 1


def test_a_run_that_dies_before_its_end_is_run_by_the_next(house: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    house.make()
    schedule = make(house)
    make_due(schedule)

    def dies(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(audit, "record", dies)
        with pytest.raises(RuntimeError):
            schedules.run(schedule.pk)
    assert not Operation.objects.exists()
    assert schedules.due() == [schedule.pk]
    schedules.run(schedule.pk)
    assert Operation.objects.count() == 1


def test_a_run_missed_by_more_than_an_hour_is_skipped_and_says_so(house: Estate) -> None:
    house.make()
    schedule = make(house)
    due = make_due(schedule, timedelta(minutes=61))
    schedules.run(schedule.pk)
    assert not Operation.objects.exists()
    event = Event.objects.get()
    assert (event.kind, event.level, event.pool) == ("schedule.missed", "warning", house.pool)
    assert f"Evenings was due at {due:%Y-%m-%d %H:%M} UTC" in event.message
    schedule.refresh_from_db()
    assert schedule.last_run_at is None
    assert schedules.due() == []


def test_a_run_missed_by_less_is_made_up_for(house: Estate) -> None:
    house.make()
    schedule = make(house)
    make_due(schedule, timedelta(minutes=59))
    schedules.run(schedule.pk)
    assert Operation.objects.count() == 1


def test_off_spares_who_is_at_work_and_says_whom(house: Estate) -> None:
    long_had(house)
    open_screen(house, house.desktop)
    house.give(house.bob)
    house.make(is_in_maintenance=True)
    house.make(power="off", is_answering=False)
    busy = house.make()
    power.set_power(actor=house.dana, desktop_id=busy.pk, action="reboot")
    free = house.make()
    ordered = run(make(house))
    assert [o.desktop for o in ordered] == [free]
    assert Event.objects.get(kind="schedule.run").message == (
        "Evenings: 1 desktop is being shut down. Left alone: 1 busy with another change, 1 in maintenance, 1 in use, "
        "1 just given to somebody, 1 off already."
    )


def test_a_schedules_order_says_by_whom_and_gives_the_guest_grace(house: Estate) -> None:
    house.make()
    (order,) = run(make(house))
    assert (order.cause, order.requested_by) == ("by the schedule Evenings", None)
    assert order.parameters["action"] == "shutdown"
    assert order.parameters["grace_s"] == schedules.GRACE_S
    assert order.rank == house.pool.priority
    assert Event.objects.get(operation=order).message == "Shut down, by the schedule Evenings."


def test_on_switches_on_as_many_as_are_short(house: Estate) -> None:
    for number in range(5):
        house.make(name=f"office-1{number}", power="off", is_answering=False)
    ordered = run(make(house, name="Mornings", action="on", reach="share", amount=50))
    # Of six desktops three shall be on, and Alice's is.
    assert [o.desktop.name for o in ordered if o.desktop] == ["office-10", "office-11"]
    assert {o.parameters["action"] for o in ordered} == {"on"}


def test_a_new_run_replaces_what_the_one_before_has_not_sent(house: Estate) -> None:
    house.make()
    (evening,) = run(make(house))
    assert run(make(house, name="Mornings", action="on")) == []
    evening.refresh_from_db()
    assert evening.state == Operation.State.CANCELLED


def test_a_run_costs_the_same_kinds_of_statements_whatever_the_size_of_the_pool(house: Estate) -> None:
    schedule = make(house)
    costs = []
    for count in (3, 200):
        for _ in range(count):
            house.make()
        Operation.objects.all().delete()
        make_due(schedule)
        with CaptureQueriesContext(connection) as asked:
            schedules.run(schedule.pk)
        assert Operation.objects.count() >= count
        costs.append(kinds(asked))
    assert costs[0] == costs[1]


# --- beside people and planning --------------------------------------------------------------------------------------


def test_a_desktop_whose_shutdown_was_not_sent_is_given_out_and_stays_on(house: Estate) -> None:
    free = house.make()
    (evening,) = run(make(house))
    request, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    evening.refresh_from_db()
    assert (request.desktop_id, evening.state) == (free.pk, Operation.State.CANCELLED)


def test_a_desktop_whose_start_was_not_sent_is_given_out_and_started_first(house: Estate) -> None:
    free = house.make(power="off", is_answering=False)
    (morning,) = run(make(house, action="on"))
    request, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    morning.refresh_from_db()
    start = Operation.objects.get(desktop=free, state="queued")
    assert (request.desktop_id, morning.state) == (free.pk, Operation.State.CANCELLED)
    assert (start.rank, start.requested_by) == (operations.rank_for_person(house.pool.priority), house.bob)


@pytest.mark.parametrize("fields", [{"state": "sent"}, {"state": "running"}, {"attempt": 1}])
def test_a_desktop_whose_shutdown_went_out_is_given_to_nobody(house: Estate, fields: dict[str, Any]) -> None:
    house.make()
    (evening,) = run(make(house))
    Operation.objects.filter(pk=evening.pk).update(**fields)
    request, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert request.state == Request.State.APPROVED


def test_an_administrators_order_for_many_does_not_give_way(house: Estate) -> None:
    house.make()
    power.set_power_of_many(actor=house.dana, wanted=Desktop.objects.exclude(pk=house.desktop.pk), action="off")
    assert brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)[0].desktop_id is None


def _shut_down(house: Estate, *orders: Operation) -> None:
    ids = [order.pk for order in orders]
    Operation.objects.filter(pk__in=ids).update(state="running", pump_epoch=1)
    answers = [Outcome(key=str(pk), stage=Stage.DONE, result=PowerSet(power=Power.OFF)) for pk in ids]
    outcomes.apply(house.hypervisor, 1, answers)


@pytest.mark.parametrize("is_by_schedule", [True, False])
def test_what_a_schedule_shut_down_is_given_out_with_a_start_even_where_the_pool_gives_out_nothing_off(
    house: Estate, is_by_schedule: bool
) -> None:
    """Nobody shall wait until the morning; what an administrator switched off is left alone."""
    house.pool.starts_powered_off = False
    house.pool.save()
    free = house.make()
    _shut_down(house, *(run(make(house)) if is_by_schedule else [power.set_power(
        actor=house.dana, desktop_id=free.pk, action="off"
    )]))  # fmt: skip
    free.refresh_from_db()
    assert (free.power, free.is_resting) == ("off", is_by_schedule)
    request, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert request.desktop_id == (free.pk if is_by_schedule else None)
    assert Operation.objects.filter(desktop=free, parameters__action="on").exists() == is_by_schedule


def test_planning_leaves_a_pool_that_rests_alone(office: Plant) -> None:
    """Silent desktops are recycled after a while; those that a schedule shut down are no silent ones."""
    office.pool.starts_powered_off = False
    office.pool.prepare_timeout_s = 10
    office.pool.save()
    schedule = schedules.create_schedule(
        actor=office.dana, pool_id=office.pool.pk, name="Evenings", action="off", at=time(20), weekdays=EVERY_DAY,
        zone="UTC",
    )  # fmt: skip
    make_due(schedule)
    schedules.run(schedule.pk)
    office.until(lambda: {d.power for d in office.desktops()} == {"off"}, "all are off")
    office.step()
    long_ago = timezone.now() - timedelta(hours=12)
    Desktop.objects.update(observed_at=long_ago, state_since=long_ago)
    Hypervisor.objects.update(status_since=long_ago)
    before = Operation.objects.count()
    office.reconcile()
    assert (office.count(State.READY), Operation.objects.count()) == (2, before)
    # By hand they would be of no use to anybody, and get a fresh disk.
    Desktop.objects.update(is_resting=False)
    office.reconcile()
    assert office.count(State.RECYCLING) == 1
