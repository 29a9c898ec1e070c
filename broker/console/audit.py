"""Audit: who changed what, from what to what."""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from broker.console.access import Right, needs
from broker.console.answers import typed
from broker.console.lists import Column, Listing
from broker.selectors import audit as selectors

LIST = Listing(
    "audit",
    Column("when", _("When"), lambda row: row.at, ("at",), begins_down=True),
    Column("who", _("Who"), lambda row: row.actor_name, ("actor_name",)),
    Column("address", _("Address"), lambda row: row.address),
    Column("act", _("Act"), lambda row: row.action, ("action",)),
    Column("noun", _("What"), lambda row: row.noun, ("noun",)),
    Column("on", _("On"), lambda row: row.object_name, ("object_name",)),
    Column("id", _("Id"), lambda row: row.object_id),
    Column("changes", _("Before and after"), lambda row: json.dumps(row.changes, ensure_ascii=False)),
)


@needs(Right.REVIEW)
def list_(request: HttpRequest) -> HttpResponse:
    wanted = selectors.AuditFilter(
        noun=typed(request, "noun", length=30),
        actor=typed(request, "actor", length=150),
        text=typed(request, "q"),
        object_id=typed(request, "object", length=64),
    )
    context = {"wanted": wanted, "nouns": selectors.audited_nouns()}
    return LIST.answer(request, "console/audit/list.html", wanted.apply(selectors.audit_entries()), context)
