"""What a pool wants of the places that it builds at: minimum, storage and hosts of each member, desktops on one host."""

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
    ]
