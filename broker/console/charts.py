"""What charts are drawn from, as JSON for the page's script."""

from __future__ import annotations

from django.http import Http404, HttpRequest, JsonResponse
from django.utils import timezone

from broker.console.access import staff_only
from broker.console.answers import typed, typed_uuid
from broker.selectors import samples


@staff_only
def chart(request: HttpRequest, name: str) -> JsonResponse:
    """`?span=day|week|month&hypervisor=ID`: times (seconds since 1970) and a list of values for each line."""
    if name not in samples.CHARTS:
        raise Http404
    span = typed(request, "span")
    found = samples.chart(
        name, span if span in samples.SPANS else "day", timezone.now(), typed_uuid(request, "hypervisor")
    )
    lines = [{"name": str(line.name), "tone": line.tone, "values": values} for line, values in found.lines]
    return JsonResponse({"times": found.times, "lines": lines, "unit": "%" if found.is_share else ""})
