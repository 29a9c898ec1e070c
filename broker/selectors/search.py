"""Any object by its name: what the search box of the console asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Q

from broker.domain.lifecycle import LIVE
from broker.models import Assignment, Desktop, Hypervisor, Pool, ReplicationPolicy, Template

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
        *(Hit("desktop", d.name, d.pk, d.pool.name) for d in desktops.select_related("pool").order_by("name")[:EACH]),
        *(Hit("pool", p.name, p.pk) for p in Pool.objects.filter(name__icontains=text)[:EACH]),
        *(Hit("template", t.name, t.pk, t.os) for t in Template.objects.filter(name__icontains=text)[:EACH]),
        *(
            Hit("hypervisor", h.name, h.pk, h.product)
            for h in Hypervisor.objects.defer("secrets").filter(name__icontains=text)[:EACH]
        ),
        *(
            Hit("policy", p.name, p.pk, p.vault.name)
            for p in ReplicationPolicy.objects.select_related("vault")
            .defer("vault__secrets")
            .filter(name__icontains=text)[:EACH]
        ),
        *(Hit("user", u.username, u.pk) for u in User.objects.filter(username__icontains=text)[:EACH]),
    ]
