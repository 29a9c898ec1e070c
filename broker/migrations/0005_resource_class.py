"""Pools have a resource class; desktops remember the share of its host that their machine was given."""

from typing import Any

from django.db import migrations, models
from django.db.models import F, Q


def keep_priorities(apps: Any, schema_editor: Any) -> None:
    """A pool whose priority somebody has set keeps it: as a number of its own."""
    apps.get_model("broker", "Pool").objects.exclude(priority=50).update(resource_class="own")


class Migration(migrations.Migration):
    dependencies = [
        ("broker", "0004_unsettled_and_resumed"),
    ]

    operations = [
        migrations.AddField(
            model_name="pool",
            name="resource_class",
            # The database fills in what a release does not know yet, here and below.
            field=models.CharField(
                choices=[
                    ("critical", "Critical"),
                    ("high", "High"),
                    ("normal", "Normal"),
                    ("low", "Low"),
                    ("own", "Own"),
                ],
                db_default="normal",
                default="normal",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="pool",
            name="weight",
            field=models.PositiveSmallIntegerField(db_default=100, default=100),
        ),
        migrations.AddField(
            model_name="pool",
            name="cpu_reservation_percent",
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="pool",
            name="cpu_limit_percent",
            field=models.PositiveSmallIntegerField(db_default=100, default=100),
        ),
        migrations.AddField(
            model_name="pool",
            name="memory_reservation_percent",
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddConstraint(
            model_name="pool",
            constraint=models.CheckConstraint(
                condition=Q(
                    weight__range=(1, 10_000),
                    cpu_limit_percent__range=(1, 100),
                    cpu_reservation_percent__lte=F("cpu_limit_percent"),
                    memory_reservation_percent__lte=100,
                ),
                name="pool_share_in_range",
            ),
        ),
        migrations.RunPython(keep_priorities, migrations.RunPython.noop),
        migrations.AddField(
            model_name="desktop",
            name="applied_share",
            field=models.CharField(blank=True, db_default="", default="", max_length=30),
        ),
        migrations.AlterField(
            model_name="operation",
            name="kind",
            field=models.CharField(
                choices=[
                    ("clone", "Build"),
                    ("recycle", "Recycle"),
                    ("delete", "Delete"),
                    ("power", "Power"),
                    ("snapshot", "Take snapshot"),
                    ("revert", "Revert to snapshot"),
                    ("unsnapshot", "Delete snapshot"),
                    ("reconfigure", "Reconfigure"),
                    ("share", "Share resources"),
                    ("screen", "Open screen"),
                    ("probe", "Probe acceleration"),
                ],
                max_length=12,
            ),
        ),
    ]
