"""The first page: every number opens the list behind it."""

from __future__ import annotations

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from broker.console.access import staff_only
from broker.console.answers import show
from broker.selectors import samples
from broker.selectors.dashboard import overview


@staff_only
def dashboard(request: HttpRequest) -> HttpResponse:
    context = {
        "overview": overview(timezone.now()),
        "is_sqlite": connection.vendor == "sqlite",
        "spans": samples.WORDS,
    }
    return show(request, "console/dashboard/page.html", context)
