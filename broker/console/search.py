"""The search box of the header: any object by its name."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from broker.console import frame
from broker.console.access import Can, staff_only
from broker.console.answers import is_htmx, typed
from broker.selectors.search import Hit, find

ICONS = {
    "desktop": "desktops", "pool": "pool", "template": "template", "hypervisor": "hypervisor",
    "policy": "replication", "user": "user", "operation": "operation", "request": "request",
}  # fmt: skip


def _shown(hit: Hit) -> dict[str, str]:
    if hit.noun == "request":
        address = f"{reverse('console:requests')}?state=all&request={hit.pk}"
    else:
        address = reverse(f"console:{hit.noun}", args=[hit.pk])
    return {"address": address, "icon": ICONS[hit.noun], "name": hit.name, "noun": hit.noun, "note": hit.note}


@staff_only
def search(request: HttpRequest) -> HttpResponse:
    text = typed(request, "q")
    can = Can(request.user)
    hits = [hit for hit in map(_shown, find(text)) if can.reach(hit["address"])]
    if is_htmx(request):
        return render(request, "console/search/_results.html", {"hits": hits, "text": text})
    if len(hits) == 1:
        return redirect(hits[0]["address"])
    return render(request, "console/search/page.html", {"hits": hits, "text": text, **frame.of(request)})
