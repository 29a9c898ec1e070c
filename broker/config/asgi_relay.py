"""The relay alone, so that a new release of the web cuts no desktop: `uvicorn broker.config.asgi_relay:application`."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.config.settings")

import django

django.setup()

from broker.relay.app import relay as application  # noqa: E402

__all__ = ["application"]
