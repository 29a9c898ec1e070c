"""What is not there, said within the console to those who may see it: the way on and the banners stay in sight."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views import defaults

from broker.console.access import is_administrator
from broker.console.answers import is_htmx, show


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404 for every door. Users, strangers and those who ask for a part of a page get the page that knows no door."""
    is_ours = request.path.startswith(reverse("console:dashboard")) and not is_htmx(request)
    if is_ours and is_administrator(request.user):
        return show(request, "console/404.html", {}, status=404)
    return defaults.page_not_found(request, exception)
