"""What a pool wants of the places that it builds at: minimum, storage and hosts of each member, desktops on one host,
and a logical network with its counterpart on each hypervisor."""

import uuid

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import F, Q


class Migration(migrations.Migration):
    dependencies = [
        ("broker", "0005_resource_class"),
    ]

    operations = [
        migrations.AddField(
            model_name="pool",
            name="maximum_per_host",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="poolmember",
            name="minimum",
            # The database fills in what a release does not know yet, here and below.
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="poolmember",
            name="storage",
            field=models.CharField(blank=True, db_default="", default="", max_length=200),
        ),
        migrations.AddField(
            model_name="poolmember",
            name="hosts",
            field=models.JSONField(db_default=models.Value([], models.JSONField()), default=list),
        ),
        migrations.AddConstraint(
            model_name="poolmember",
            constraint=models.CheckConstraint(
                condition=Q(maximum=None) | Q(minimum__lte=F("maximum")), name="member_minimum_within_maximum"
            ),
        ),
        migrations.AddField(
            model_name="network",
            name="is_isolated",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.CreateModel(
            name="LogicalNetwork",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100, unique=True)),
                ("description", models.TextField(blank=True)),
                ("wants_isolation", models.BooleanField(default=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={"ordering": ["name"]},
        ),
        migrations.CreateModel(
            name="NetworkMapping",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "hypervisor",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="network_mappings",
                        to="broker.hypervisor",
                    ),
                ),
                (
                    "logical",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="mappings",
                        to="broker.logicalnetwork",
                    ),
                ),
                (
                    "network",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="mappings", to="broker.network"
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=["logical", "hypervisor"], name="mapping_once")],
            },
        ),
        migrations.AddField(
            model_name="pool",
            name="network",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="pools",
                to="broker.logicalnetwork",
            ),
        ),
    ]
