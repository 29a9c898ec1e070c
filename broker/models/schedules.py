"""When pools are switched on and off by themselves, and the days on which they are not."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from broker.models.pools import Pool


class HolidayCalendar(models.Model):
    """A named list of days. A schedule that respects it does not run on them."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Holiday(models.Model):
    calendar = models.ForeignKey(HolidayCalendar, models.CASCADE, related_name="days", db_index=False)
    day = models.DateField()
    name = models.CharField(max_length=100, blank=True)

    class Meta:
        ordering = ["day"]
        constraints = [models.UniqueConstraint(fields=["calendar", "day"], name="holiday_once")]

    def __str__(self) -> str:
        return f"{self.day:%Y-%m-%d} {self.name}".strip()


class PowerSchedule(models.Model):
    class Action(models.TextChoices):
        ON = "on", "Switch on"
        OFF = "off", "Shut down"
        """With grace for the guest; what somebody uses is spared."""

    class Reach(models.TextChoices):
        ALL = "all", "All of them"
        NUMBER = "number", "So many"
        SHARE = "share", "So many per cent"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pool = models.ForeignKey(Pool, models.CASCADE, related_name="schedules", db_index=False)
    name = models.CharField(max_length=100)
    action = models.CharField(max_length=3, choices=Action)
    at = models.TimeField()
    """On the clock of `zone`."""
    weekdays = models.CharField(max_length=7)
    """ISO numbers in order, 1 for Monday."""
    zone = models.CharField(max_length=60)
    """IANA name, such as Europe/Berlin."""
    reach = models.CharField(max_length=6, choices=Reach, default=Reach.ALL)
    amount = models.PositiveIntegerField(null=True)
    """Desktops or per cent that shall be on; None with `all`."""
    calendar = models.ForeignKey(HolidayCalendar, models.PROTECT, null=True, related_name="schedules")
    is_enabled = models.BooleanField(default=True)
    next_run_at = models.DateTimeField(null=True)
    """Who moves it from its old value runs it; None while it is paused."""
    last_run_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["pool", "name"], name="schedule_name_once"),
            models.CheckConstraint(condition=~Q(weekdays=""), name="schedule_has_a_day"),
            models.CheckConstraint(
                condition=Q(is_enabled=False, next_run_at=None) | Q(is_enabled=True, next_run_at__isnull=False),
                name="schedule_runs_unless_paused",
            ),
            models.CheckConstraint(
                condition=Q(reach="all", amount=None)
                | Q(reach="number", action="on", amount__gte=1)
                | Q(reach="share", action="on", amount__gte=1, amount__lte=100),
                name="schedule_amount_fits_reach",
            ),
        ]
        indexes = [
            models.Index(fields=["next_run_at"], condition=Q(next_run_at__isnull=False), name="schedule_due"),
        ]

    def __str__(self) -> str:
        return self.name
