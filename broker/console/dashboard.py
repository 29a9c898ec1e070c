"""The first page: every number opens the list behind it."""

from __future__ import annotations

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy

from broker.console.access import staff_only
from broker.console.answers import show
from broker.selectors import samples
from broker.selectors.dashboard import overview

POOL_COLUMNS = {
    "ready": gettext_lazy("Ready"),
    "assigned": gettext_lazy("Assigned"),
    "used": gettext_lazy("In use right now"),
    "coming": gettext_lazy("On their way"),
    "failed": gettext_lazy("Failed"),
    "missing": gettext_lazy("Missing"),
}
"""What is told of each pool, by the state that the list of desktops is narrowed to."""


@staff_only
def dashboard(request: HttpRequest) -> HttpResponse:
    seen = overview(timezone.now())
    context = {
        "overview": seen,
        "pool_columns": POOL_COLUMNS,
        "pool_rows": [
            (use.pool, [(group, name, use.numbers[group]) for group, name in POOL_COLUMNS.items()])
            for use in seen.notable_pools
        ],
        "is_sqlite": connection.vendor == "sqlite",
        "spans": samples.WORDS,
    }
    return show(request, "console/dashboard/page.html", context)
