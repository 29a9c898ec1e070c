"""Drop indexes that only cost: a desktop's every move wrote thirteen. Live rows are found by the partial ones."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("broker", "0002_installation"),
    ]

    operations = [
        migrations.AlterField(
            model_name="assignment",
            name="pool",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="assignments",
                to="broker.pool",
            ),
        ),
        migrations.AlterField(
            model_name="desktop",
            name="copy",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="desktops",
                to="broker.templatecopy",
            ),
        ),
        migrations.AlterField(
            model_name="desktop",
            name="hypervisor",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="desktops",
                to="broker.hypervisor",
            ),
        ),
        migrations.AlterField(
            model_name="desktop",
            name="member",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="desktops",
                to="broker.poolmember",
            ),
        ),
        migrations.AlterField(
            model_name="desktop",
            name="pool",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="desktops", to="broker.pool"
            ),
        ),
        migrations.AlterField(
            model_name="desktop",
            name="target_host",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="planned_desktops",
                to="broker.host",
            ),
        ),
        migrations.AlterField(
            model_name="request",
            name="pool",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="requests", to="broker.pool"
            ),
        ),
    ]
