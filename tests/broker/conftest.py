"""What the tests of the broker's floors share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """The database keeps its installation's row: tests without a transaction empty all tables when they end."""
    from django.apps import apps
    from django.db.models.signals import post_migrate

    from broker.hypervisors import gate

    def name_installation(**_: object) -> None:
        apps.get_model("broker", "Installation").objects.get_or_create(only=True)
        gate.installation_id.cache_clear()

    post_migrate.connect(name_installation, sender=apps.get_app_config("broker"), weak=False)
