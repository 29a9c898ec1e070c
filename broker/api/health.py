"""`GET /healthz`: for supervisors and load balancers. `GET /alive`: for pages that doubt whether anybody is there."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from broker.selectors import health


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 when every part is up, else 503; the parts with their state in words either way."""
    parts = health.parts()
    is_up = all(part.is_up for part in parts)
    body = {
        "status": "up" if is_up else "down",
        "parts": [{"name": part.name, "up": part.is_up, "words": part.words} for part in parts],
    }
    return JsonResponse(body, status=200 if is_up else 503)


@require_safe
def alive(request: HttpRequest) -> HttpResponse:
    """204 from whatever serves pages, be anything else down: it asks nothing and nobody."""
    return HttpResponse(status=204, headers={"Cache-Control": "no-store"})
