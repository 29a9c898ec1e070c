"""Operations: all for administrators; for everybody else what they asked for and what befalls their desktops."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from broker.models import Assignment, Operation
from broker.models.operations import UNFINISHED


def operations() -> QuerySet[Operation]:
    """Every operation with what lists show of its desktop, hypervisor and who asked."""
    return Operation.objects.select_related("desktop", "hypervisor", "requested_by").defer("receipt")


def operations_seen_by(user: User) -> QuerySet[Operation]:
    """Those this person asked for, and those of the desktops assigned to them alone.

    Of the latter only those of the desktop's present epoch: earlier ones tell of the user before. Those of a session
    host tell of the others on it.
    """
    mine = Assignment.objects.filter(desktop=OuterRef("desktop"), user=user, until=None, seat=0)
    on_mine = Exists(mine) & Q(epoch=F("desktop__epoch"))
    return operations().filter(Q(requested_by=user) | on_mine)


LATELY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """What an administrator looks for; empty fields do not narrow."""

    state: str = ""
    """A state, or "unfinished"."""
    kind: str = ""
    hypervisor: UUID | None = None
    text: str = ""
    """Part of the desktop's name or of who asked."""

    def apply(self, found: QuerySet[Operation]) -> QuerySet[Operation]:
        if self.state == "unfinished":
            found = found.filter(state__in=UNFINISHED)
        elif self.state:
            found = found.filter(state=self.state)
        if self.kind:
            found = found.filter(kind=self.kind)
        if self.hypervisor:
            found = found.filter(hypervisor=self.hypervisor)
        if self.text:
            found = found.filter(Q(desktop__name__icontains=self.text) | Q(requested_by__username__icontains=self.text))
        return found


def unfinished_count() -> int:
    return Operation.objects.filter(state__in=UNFINISHED).count()


def failed_lately(now: datetime) -> int:
    """How many failed in the last 24 hours."""
    return Operation.objects.filter(state=Operation.State.FAILED, finished_at__gte=now - LATELY).count()
