"""Power schedules and the holidays that they respect. For administrators: doors check that first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from django.db.models import Count, F, QuerySet

from broker.models import Holiday, HolidayCalendar, PowerSchedule


def schedules() -> QuerySet[PowerSchedule]:
    """Every schedule with its pool and calendar, the next to run first and paused ones last."""
    soonest = F("next_run_at").asc(nulls_last=True)
    return PowerSchedule.objects.select_related("pool", "calendar").order_by(soonest, "name", "pk")


def schedules_of(pool_id: UUID) -> QuerySet[PowerSchedule]:
    return schedules().filter(pool=pool_id)


@dataclass(frozen=True, slots=True)
class CalendarStanding:
    calendar: HolidayCalendar
    days: int
    next_day: Holiday | None
    """The first from today on; None if none is left."""
    respected_by: int
    """Schedules."""

    @property
    def is_over(self) -> bool:
        """Schedules respect it, and it has no day left: it was perhaps forgotten at the turn of the year."""
        return self.respected_by > 0 and self.next_day is None


def calendar_standings(today: date) -> list[CalendarStanding]:
    """Every calendar by name; two statements."""
    rows = HolidayCalendar.objects.annotate(
        number=Count("days", distinct=True), respected_by=Count("schedules", distinct=True)
    )
    coming: dict[UUID, Holiday] = {}
    for holiday in Holiday.objects.filter(day__gte=today).order_by("day"):
        coming.setdefault(holiday.calendar_id, holiday)
    return [CalendarStanding(row, row.number, coming.get(row.pk), row.respected_by) for row in rows]
