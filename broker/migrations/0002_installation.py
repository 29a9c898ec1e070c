"""Gives this installation its identity."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def name_installation(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("broker", "Installation").objects.get_or_create(only=True)


class Migration(migrations.Migration):
    dependencies = [("broker", "0001_initial")]
    operations = [migrations.RunPython(name_installation, migrations.RunPython.noop)]
