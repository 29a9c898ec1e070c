"""Power schedules of pools and the holidays that they respect."""

import uuid

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [
        ("broker", "0007_slowed_and_closed"),
    ]

    operations = [
        migrations.CreateModel(
            name="HolidayCalendar",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100, unique=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={"ordering": ["name"]},
        ),
        migrations.CreateModel(
            name="Holiday",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField()),
                ("name", models.CharField(blank=True, max_length=100)),
                ("calendar", models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="days", to="broker.holidaycalendar")),
            ],
            options={
                "ordering": ["day"],
                "constraints": [models.UniqueConstraint(fields=("calendar", "day"), name="holiday_once")],
            },
        ),
        migrations.CreateModel(
            name="PowerSchedule",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
                ("action", models.CharField(choices=[("on", "Switch on"), ("off", "Shut down")], max_length=3)),
                ("at", models.TimeField()),
                ("weekdays", models.CharField(max_length=7)),
                ("zone", models.CharField(max_length=60)),
                ("reach", models.CharField(choices=[("all", "All of them"), ("number", "So many"), ("share", "So many per cent")], default="all", max_length=6)),
                ("amount", models.PositiveIntegerField(null=True)),
                ("is_enabled", models.BooleanField(default=True)),
                ("next_run_at", models.DateTimeField(null=True)),
                ("last_run_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("calendar", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="schedules", to="broker.holidaycalendar")),
                ("pool", models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="schedules", to="broker.pool")),
            ],
            options={
                "ordering": ["-created_at", "-id"],
                "indexes": [models.Index(condition=Q(next_run_at__isnull=False), fields=["next_run_at"], name="schedule_due")],
                "constraints": [
                    models.UniqueConstraint(fields=("pool", "name"), name="schedule_name_once"),
                    models.CheckConstraint(condition=~Q(weekdays=""), name="schedule_has_a_day"),
                    models.CheckConstraint(
                        condition=Q(is_enabled=False, next_run_at=None) | Q(is_enabled=True, next_run_at__isnull=False),
                        name="schedule_runs_unless_paused",
                    ),
                    models.CheckConstraint(
                        condition=Q(amount=None, reach="all")
                        | Q(action="on", amount__gte=1, reach="number")
                        | Q(action="on", amount__gte=1, amount__lte=100, reach="share"),
                        name="schedule_amount_fits_reach",
                    ),
                ],
            },
        ),
    ]
