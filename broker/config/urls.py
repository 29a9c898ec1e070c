"""Which door stands where."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("", include("broker.portal.urls")),
    path("console/", include("broker.console.urls")),
    path("api/v1/", include("broker.api.urls")),
]
