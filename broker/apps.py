"""The one app of the project."""

from django.apps import AppConfig


class BrokerConfig(AppConfig):
    name = "broker"
    verbose_name = "Deskyard"
    default_auto_field = "django.db.models.BigAutoField"
