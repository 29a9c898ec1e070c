"""Audit: who changed what, from what to what."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from broker.console.access import administrators_only
from broker.console.answers import page_of, show, typed
from broker.selectors import audit as selectors


@administrators_only
def list_(request: HttpRequest) -> HttpResponse:
    wanted = selectors.AuditFilter(
        noun=typed(request, "noun", length=30),
        actor=typed(request, "actor", length=150),
        text=typed(request, "q"),
        object_id=typed(request, "object", length=64),
    )
    context = {
        "page": page_of(request, wanted.apply(selectors.audit_entries())),
        "wanted": wanted,
        "nouns": selectors.audited_nouns(),
    }
    return show(request, "console/audit/list.html", context)
