"""What is not there, and what is not for somebody's role, said within the console to those who may see it.

The way on and the banners stay in sight."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views import defaults

from broker.console.access import is_staff
from broker.console.answers import came_from, is_htmx, refused, show
from broker.services.errors import Forbidden


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404 for every door. Users, strangers and those who ask for a part of a page get the page that knows no door."""
    if _is_ours(request) and not is_htmx(request):
        return show(request, "console/404.html", {}, status=404)
    return defaults.page_not_found(request, exception)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """403 for every door. Who has a role is told which one it takes; a part of a page says so in a toast."""
    words = str(exception)
    if not (words and _is_ours(request)):
        return defaults.permission_denied(request, exception)
    if is_htmx(request):
        return refused(request, Forbidden(words), came_from(request, reverse("console:dashboard")))
    return show(request, "console/403.html", {"words": words}, status=403)


def _is_ours(request: HttpRequest) -> bool:
    return request.path.startswith(reverse("console:dashboard")) and is_staff(request.user)
