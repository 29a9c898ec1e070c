"""Operations that ended without the platform's answer; when an administrator last let a pool go on."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("broker", "0003_lean_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="operation",
            name="is_unsettled",
            # The database fills it in for a release that does not know it yet.
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="pool",
            name="resumed_at",
            field=models.DateTimeField(null=True),
        ),
    ]
