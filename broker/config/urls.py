"""Which door stands where."""

from __future__ import annotations

from django.urls import include, path

from broker.api.health import alive, healthz
from broker.console.errors import forbidden, not_found

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("alive", alive, name="alive"),
    path("", include("broker.portal.urls")),
    path("console/", include("broker.console.urls")),
    path("api/v1/", include("broker.api.urls")),
]

handler403 = forbidden
handler404 = not_found
