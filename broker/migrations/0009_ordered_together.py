"""What an operation was ordered with or by, and which desktops rest because a schedule shut them down."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("broker", "0008_power_schedules"),
    ]

    operations = [
        # The database fills both in for a release that does not know them yet.
        migrations.AddField(
            model_name="operation",
            name="cause",
            field=models.CharField(blank=True, db_default="", default="", max_length=200),
        ),
        migrations.AddField(
            model_name="desktop",
            name="is_resting",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
