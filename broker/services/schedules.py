"""Power schedules: kept by administrators, run by whoever the clock wakes.

A schedule is due when its `next_run_at` has come. Whoever moves that from its old value runs it, in the transaction
that writes the orders: any number of clocks and workers may see it, and one that dies in between has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import ProtectedError, Q
from django.utils import timezone

from broker.domain import schedules as rules
from broker.domain.power import SCHEDULED, Selection, select_by_schedule
from broker.domain.schedules import Action, Reach, Rule
from broker.models import Desktop, Holiday, HolidayCalendar, Pool, PowerSchedule
from broker.selectors.power import facts_of
from broker.services import audit, nudges, operations, power
from broker.services.errors import Clash
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import alter, locked, refusing_duplicates

NAME_TAKEN = "This pool already has a schedule of that name."
CALENDAR_TAKEN = "There is already a calendar of that name."
GRACE_S = 300
"""How long a guest may take to shut down before its power is cut."""
DAYS_LIMIT = 1000
YEARS = range(2000, 2101)
TIMING = {"at", "weekdays", "zone", "calendar_id", "is_enabled"}
"""What moves the next run."""


class ScheduleFields(TypedDict, total=False):
    """What a schedule's form lets people set, all optional. `amount` belongs to the reaches "number" and "share"."""

    name: str
    action: str
    at: time
    weekdays: str
    zone: str
    reach: str
    amount: int | None
    calendar_id: UUID | None
    is_enabled: bool


# --- kept by administrators ------------------------------------------------------------------------------------------


def create_schedule(*, actor: User, pool_id: UUID, **fields: Unpack[ScheduleFields]) -> PowerSchedule:
    """A schedule of a pool. Needs `name`, `action`, `at`, `weekdays` and `zone`.

    Raises `Missing` for an unknown pool, `Forbidden`, `Invalid`.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        schedule = PowerSchedule(pool=locked(Pool.objects.all(), pool_id, "pool"))
        intake = Intake()
        needed: ScheduleFields = {"name": "", "action": "", "weekdays": "", "zone": "", "reach": schedule.reach}
        values = _cleaned(intake, schedule, {**needed, **fields})
        if "at" not in fields:
            intake.faults["at"] = "Give a time of day."
        intake.refuse_faults("The schedule was not created.")
        for field, value in values.items():
            setattr(schedule, field, value)
        schedule.next_run_at = _next(schedule, timezone.now())
        schedule.save(force_insert=True)
        changes = {field: [None, _plain(value)] for field, value in values.items()}
        audit.record(actor=actor, action="schedule.create", subject=schedule, changes=changes)
        nudges.announce("pools")
    return schedule


def change_schedule(*, actor: User, schedule_id: UUID, **fields: Unpack[ScheduleFields]) -> PowerSchedule:
    """Change what is named; the rest stays. Raises `Missing`, `Forbidden`, `Invalid`."""
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        schedule = locked(PowerSchedule.objects.select_related("pool", "calendar"), schedule_id, "schedule")
        intake = Intake()
        values = _cleaned(intake, schedule, fields)
        intake.refuse_faults("The schedule was not changed.")
        changes = alter(schedule, _with_next_run(schedule, values))
        if changes:
            shown = {field: [_plain(before), _plain(after)] for field, (before, after) in changes.items()}
            audit.record(actor=actor, action="schedule.change", subject=schedule, changes=shown)
            nudges.announce("pools")
    return schedule


def enable_schedule(*, actor: User, schedule_id: UUID, on: bool) -> PowerSchedule:
    """Paused it never runs; what it missed meanwhile is not made up for."""
    return change_schedule(actor=actor, schedule_id=schedule_id, is_enabled=on)


def delete_schedule(*, actor: User, schedule_id: UUID) -> None:
    require(actor, Right.OPERATE)
    with transaction.atomic():
        schedule = locked(PowerSchedule.objects.all(), schedule_id, "schedule")
        audit.record(actor=actor, action="schedule.delete", subject=schedule)
        schedule.delete()
        nudges.announce("pools")


def _cleaned(intake: Intake, schedule: PowerSchedule, fields: ScheduleFields) -> dict[str, Any]:
    """What is named, checked against what stays; what is wrong is in `intake`."""
    values: dict[str, Any] = dict(fields)
    if "name" in values:
        values["name"] = intake.name("name", values["name"])
    if "action" in values:
        intake.choice("action", values["action"], PowerSchedule.Action)
    if "weekdays" in values and not _are_weekdays(values["weekdays"]):
        intake.faults["weekdays"] = "Choose at least one weekday: 1 (Monday) to 7, in order."
    if "zone" in values and values["zone"] not in rules.zones():
        intake.faults["zone"] = "Choose a time zone such as Europe/Berlin."
    if values.get("calendar_id") and not HolidayCalendar.objects.filter(pk=values["calendar_id"]).exists():
        intake.faults["calendar_id"] = "There is no such calendar."
    if {"action", "reach", "amount"} & values.keys():
        values |= _reach(intake, schedule, values)
    return values


def _are_weekdays(text: str) -> bool:
    return bool(text) and text == rules.weekdays_of(int(day) for day in text if day in rules.WEEKDAYS)


def _reach(intake: Intake, schedule: PowerSchedule, values: dict[str, Any]) -> dict[str, Any]:
    """How many, whole: off reaches all that nobody uses, "all" has no amount."""
    action, reach, amount = (values.get(name, getattr(schedule, name)) for name in ("action", "reach", "amount"))
    if action == Action.OFF or reach == Reach.ALL:
        return {"reach": Reach.ALL.value, "amount": None}
    intake.choice("reach", reach, PowerSchedule.Reach)
    if amount is None:
        intake.faults["amount"] = "Say how many."
    else:
        intake.whole("amount", amount, lowest=1, highest=100 if reach == Reach.SHARE else 100_000)
    return {"reach": reach, "amount": amount}


def _with_next_run(schedule: PowerSchedule, values: dict[str, Any]) -> dict[str, Any]:
    """The values with the next run that follows from them. One that is due and waits for a worker is not lost."""
    if not any(getattr(schedule, field) != value for field, value in values.items() if field in TIMING):
        return values
    wanted = PowerSchedule(**{
        field: values.get(field, getattr(schedule, field)) for field in TIMING
    })  # fmt: skip
    return values | {"next_run_at": _next(wanted, timezone.now())}


def _next(schedule: PowerSchedule, after: datetime) -> datetime | None:
    """When it runs next; None while it is paused."""
    return rules.next_run(_rule(schedule), after) if schedule.is_enabled else None


def _rule(schedule: PowerSchedule) -> Rule:
    days = Holiday.objects.filter(calendar=schedule.calendar_id).values_list("day", flat=True)
    holidays = frozenset(days) if schedule.calendar_id else frozenset()
    return Rule(at=schedule.at, weekdays=schedule.weekdays, zone=schedule.zone, holidays=holidays)


def _plain(value: Any) -> Any:
    """As the audit keeps it."""
    if isinstance(value, time):
        return f"{value:%H:%M}"
    return str(value) if isinstance(value, UUID | datetime) else value


# --- holidays --------------------------------------------------------------------------------------------------------


def create_calendar(*, actor: User, name: str, days: Mapping[date, str]) -> HolidayCalendar:
    """A named list of days, each with what it is (may be empty). Raises `Forbidden`, `Invalid`."""
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", CALENDAR_TAKEN):
        intake = Intake()
        calendar = HolidayCalendar(name=intake.name("name", name))
        named = _days(intake, days)
        intake.refuse_faults("The calendar was not created.")
        calendar.save(force_insert=True)
        _write_days(calendar, named)
        changes = {"name": [None, calendar.name], "days": [None, _listed(named)]}
        audit.record(actor=actor, action="calendar.create", subject=calendar, changes=changes)
    return calendar


def change_calendar(*, actor: User, calendar_id: UUID, name: str, days: Mapping[date, str]) -> HolidayCalendar:
    """Name and days as given, all of them. Schedules that respect it run by the new days from now on."""
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", CALENDAR_TAKEN):
        calendar = locked(HolidayCalendar.objects.all(), calendar_id, "calendar")
        intake = Intake()
        changes = {"name": intake.name("name", name)}
        named = _days(intake, days)
        intake.refuse_faults("The calendar was not changed.")
        audited = alter(calendar, changes)
        before = dict(calendar.days.values_list("day", "name"))
        if before != named:
            calendar.days.all().delete()
            _write_days(calendar, named)
            audited["days"] = [_listed(before), _listed(named)]
            _move_runs(calendar)
        if audited:
            audit.record(actor=actor, action="calendar.change", subject=calendar, changes=audited)
    return calendar


def delete_calendar(*, actor: User, calendar_id: UUID) -> None:
    """Raises `Clash` while a schedule respects it."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        calendar = locked(HolidayCalendar.objects.all(), calendar_id, "calendar")
        audit.record(actor=actor, action="calendar.delete", subject=calendar)
        try:
            calendar.delete()
        except ProtectedError as error:
            names = ", ".join(sorted(str(row) for row in error.protected_objects))
            raise Clash(f"{calendar} is respected by {names}. Change or delete that first.") from None


def _days(intake: Intake, days: Mapping[date, str]) -> dict[date, str]:
    if len(days) > DAYS_LIMIT:
        intake.faults["days"] = f"At most {DAYS_LIMIT} days; these are {len(days)}."
    if wrong := [day for day in days if day.year not in YEARS]:
        intake.faults["days"] = f"Years from {YEARS[0]} to {YEARS[-1]}; not {wrong[0]}."
    return {day: intake.line("days", name) for day, name in sorted(days.items())}


def _write_days(calendar: HolidayCalendar, days: Mapping[date, str]) -> None:
    Holiday.objects.bulk_create(Holiday(calendar=calendar, day=day, name=name) for day, name in days.items())


def _listed(days: Mapping[date, str]) -> list[str]:
    return [f"{day} {name}".strip() for day, name in sorted(days.items())]


def _move_runs(calendar: HolidayCalendar) -> None:
    now = timezone.now()
    # What is due already waits for a worker only.
    for schedule in calendar.schedules.select_for_update().filter(next_run_at__gt=now).order_by("pk"):
        alter(schedule, {"next_run_at": _next(schedule, now)})
    nudges.announce("pools")


# --- run by the clock ------------------------------------------------------------------------------------------------


def due() -> list[UUID]:
    """Schedules whose time has come. They stay due until one who runs them has moved their time."""
    return list(PowerSchedule.objects.filter(next_run_at__lte=timezone.now()).values_list("pk", flat=True))


def run(schedule_id: UUID) -> None:
    """Run a schedule if it is due and nobody else does. One that is more than an hour late is skipped, and says so."""
    nudges.taken(nudges.SCHEDULE, schedule_id)
    now = timezone.now()
    with transaction.atomic():
        waiting = PowerSchedule.objects.select_related("pool").filter(pk=schedule_id, next_run_at__lte=now)
        schedule = waiting.first()
        if schedule is None or schedule.next_run_at is None:
            return
        due_at = schedule.next_run_at
        is_missed = rules.is_too_late(due_at, now)
        moved = {"next_run_at": _next(schedule, now)} | ({} if is_missed else {"last_run_at": now})
        if not PowerSchedule.objects.filter(pk=schedule_id, next_run_at=due_at).update(**moved):
            return
        if is_missed:
            _say(schedule, "schedule.missed", _missed(schedule, due_at), level="warning")
        else:
            _switch(schedule, now)
        nudges.announce("pools")


def _switch(schedule: PowerSchedule, now: datetime) -> None:
    action = Action(schedule.action)
    rows = power.locked(Desktop.objects.filter(pool=schedule.pool, state__in=SCHEDULED))
    # What an earlier run has not even sent yet is not wanted any more.
    operations.give_way(Q(desktop__pool=schedule.pool_id))
    facts = [facts_of(desktop) for desktop in rows.values()]
    found = select_by_schedule(action, Reach(schedule.reach), schedule.amount, facts, now)
    cause = f"by the schedule {schedule}"
    ordered = power.order_together(
        found,
        rows,
        action="on" if action == Action.ON else "shutdown",
        asked=cause,
        cause=cause,
        rank=schedule.pool.priority,
        parameters={} if action == Action.ON else {"grace_s": GRACE_S},
    )
    skipped = Selection(skipped=ordered.skipped).reasons
    _say(schedule, "schedule.run", _done(schedule, len(ordered.operations), skipped))
    changes = {"desktops": [None, len(ordered.operations)], "left alone": [None, skipped]}
    audit.record(actor=None, action="schedule.run", subject=schedule, changes=changes)


def _done(schedule: PowerSchedule, count: int, skipped: str) -> str:
    verb = "switched on" if schedule.action == Action.ON else "shut down"
    left = f" Left alone: {skipped}." if skipped else ""
    if not count:
        return f"{schedule}: no desktop had to be {verb}.{left}"
    return f"{schedule}: {count} {'desktops are' if count > 1 else 'desktop is'} being {verb}.{left}"


def _missed(schedule: PowerSchedule, due_at: datetime) -> str:
    return (
        f"{schedule} was due at {due_at:%Y-%m-%d %H:%M} UTC; nothing ran it for more than an hour, so it was skipped. "
        "See whether worker and beat are running."
    )


def _say(schedule: PowerSchedule, kind: str, message: str, *, level: str = "info") -> None:
    operations.event(kind, message, level=level, pool_id=schedule.pool_id).save(force_insert=True)
