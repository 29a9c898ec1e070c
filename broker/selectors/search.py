"""Any object by its name: what the search box of the console asks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Q

from broker.domain.lifecycle import LIVE
from broker.models import Assignment, Desktop, Hypervisor, Operation, Pool, ReplicationPolicy, Request, Template

EACH = 6
"""Of each noun, at most so many."""


@dataclass(frozen=True, slots=True)
class Hit:
    noun: str
    name: str
    pk: Any
    note: str = ""


def find(text: str) -> list[Hit]:
    """What bears the text in its name, and the desktops of people who do; nothing for an empty text."""
    text = text.strip()
    if not text:
        return []
    held = Assignment.objects.filter(until=None, user__username__icontains=text).values("desktop")
    desktops = Desktop.objects.filter(state__in=LIVE).filter(Q(name__icontains=text) | Q(pk__in=held))
    return [
        *_referred(text),
        *(Hit("desktop", d.name, d.pk, d.pool.name) for d in desktops.select_related("pool").order_by("name")[:EACH]),
        *(Hit("pool", p.name, p.pk) for p in Pool.objects.filter(name__icontains=text)[:EACH]),
        *(Hit("template", t.name, t.pk, t.os) for t in Template.objects.filter(name__icontains=text)[:EACH]),
        *(
            Hit("hypervisor", h.name, h.pk, h.product)
            for h in Hypervisor.objects.defer("secrets").filter(name__icontains=text)[:EACH]
        ),
        *(
            Hit("policy", p.name, p.pk, p.vault.name if p.vault else "")
            for p in ReplicationPolicy.objects.select_related("vault")
            .defer("vault__secrets")
            .filter(name__icontains=text, is_own=False)[:EACH]
        ),
        *(Hit("user", u.username, u.pk) for u in User.objects.filter(username__icontains=text)[:EACH]),
    ]


REFERENCE = re.compile(r"[0-9a-fA-F]{8}")


def _referred(text: str) -> list[Hit]:
    """What a person reads out to the help desk: the first eight signs of a desktop's, task's or request's id."""
    if not REFERENCE.fullmatch(text):
        return []
    between = {"pk__gte": UUID(text + "0" * 24), "pk__lte": UUID(text + "f" * 24)}
    requests = Request.objects.filter(**between).select_related("user", "pool")
    return [
        *(Hit("desktop", d.name, d.pk, d.pool.name) for d in Desktop.objects.filter(**between).select_related("pool")),
        *(Hit("operation", str(o), o.pk, o.error[:80]) for o in Operation.objects.filter(**between)),
        *(Hit("request", f"{r.user}: {r.pool}", r.pk, r.reason[:80]) for r in requests),
    ]
