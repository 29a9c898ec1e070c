"""Less is asked of a hypervisor that is busy; users are told why a pool is closed."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("broker", "0006_where_pools_build"),
    ]

    operations = [
        migrations.AddField(
            model_name="hypervisor",
            name="halvings",
            # The database fills it in for a release that does not know it yet.
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="hypervisor",
            name="halved_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="pool",
            name="closed_words",
            field=models.CharField(blank=True, db_default="", default="", max_length=300),
        ),
    ]
