"""Who changed what, and what happened."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Model, Q, QuerySet

from broker.models import AuditEntry, Desktop, Event, Hypervisor, Operation, Pool

EVENTS_SHOWN = 30


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What an administrator looks for; empty fields do not narrow."""

    noun: str = ""
    actor: str = ""
    text: str = ""
    """Part of the object's name or of the action."""
    object_id: str = ""

    def apply(self, entries: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        if self.noun:
            entries = entries.filter(noun=self.noun)
        if self.actor:
            entries = entries.filter(actor_name__iexact=self.actor)
        if self.object_id:
            entries = entries.filter(object_id=self.object_id)
        if self.text:
            entries = entries.filter(Q(object_name__icontains=self.text) | Q(action__icontains=self.text))
        return entries


def audit_entries() -> QuerySet[AuditEntry]:
    return AuditEntry.objects.all()


def audited_nouns() -> list[str]:
    return sorted(AuditEntry.objects.order_by().values_list("noun", flat=True).distinct())


def audit_of(row: Model) -> QuerySet[AuditEntry]:
    """Changes of one thing, newest first."""
    return AuditEntry.objects.filter(noun=row._meta.model_name, object_id=str(row.pk))


def events_of(subject: Desktop | Operation | Pool | Hypervisor) -> list[Event]:
    """The latest events of one thing, newest first, each with its desktop."""
    field = (subject._meta.model_name or "").lower()
    return list(Event.objects.filter(**{field: subject}).select_related("desktop")[:EVENTS_SHOWN])
