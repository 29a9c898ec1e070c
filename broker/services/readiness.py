"""When a desktop is prepared, and the question to its guest's RDP server, where its pool waits for that.

A guest's agent answers before its RDP server does: who gets a desktop in between waits before a dark page.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.hypervisors import rdp_servers
from broker.models import Desktop, Event, Pool
from broker.services import guests, nudges, operations
from broker.services.outcomes import lock_desktops
from broker.services.setwise import update_each

ASK_EVERY = timedelta(seconds=5)
AT_ONCE = 100


def is_prepared(desktop: Desktop) -> bool:
    """Whether it may be called ready now, by what is known of it. Needs `pool`."""
    if desktop.state != State.PREPARING or desktop.clean_epoch != desktop.epoch:
        return False
    if desktop.pool.preparation == Pool.Preparation.NONE:
        return True
    waits_for_rdp = desktop.pool.preparation == Pool.Preparation.RDP
    return desktop.is_answering and (not waits_for_rdp or desktop.rdp_epoch == desktop.epoch)


def _waiting(now: datetime) -> QuerySet[Desktop]:
    """Desktops that lack nothing but an answer of their RDP server. Those that have answered are never asked again:
    what this costs follows what is built, not the estate."""
    is_time = Q(rdp_asked_at=None) | Q(rdp_asked_at__lte=now - ASK_EVERY)
    return Desktop.objects.filter(
        ~Q(rdp_epoch=F("epoch")), is_time, state=State.PREPARING, is_answering=True,
        pool__preparation=Pool.Preparation.RDP,
    )  # fmt: skip


def due() -> bool:
    return _waiting(timezone.now()).exists()


def ask() -> int:
    """Ask the RDP servers of those that wait for that; returns how many answered, and are ready.

    Each is asked by one worker at a time. Nothing is held while guests are asked.
    """
    nudges.taken(nudges.READINESS, "due")
    now = timezone.now()
    wanted = _claim(now)
    places = {
        (desktop.pk, desktop.epoch): (guests.reachable(desktop.addresses), desktop.pool.rdp_port) for desktop in wanted
    }
    answered = rdp_servers.answering(places)
    return _note(dict(answered), timezone.now()) if answered else 0


def _claim(now: datetime) -> list[Desktop]:
    with transaction.atomic():
        rows = _waiting(now).select_for_update(skip_locked=True, of=("self",), no_key=True).order_by("pk")
        ids = list(rows.values_list("pk", flat=True)[:AT_ONCE])
        Desktop.objects.filter(pk__in=ids).update(rdp_asked_at=now)
    return list(Desktop.objects.filter(pk__in=ids).select_related("pool"))


def _note(answered: dict[UUID, int], now: datetime) -> int:
    """Desktop -> the epoch in which its server answered: in another one it is another guest."""
    with transaction.atomic():
        desktops = [one for one in lock_desktops(list(answered)).values() if one.epoch == answered[one.pk]]
        ready = []
        for desktop in desktops:
            desktop.rdp_epoch = desktop.epoch
            if is_prepared(desktop):
                desktop.state, desktop.state_since, desktop.ready_at, desktop.attempts = State.READY, now, now, 0
                ready.append(desktop)
        update_each(desktops, ["rdp_epoch", "state", "state_since", "ready_at", "attempts"])
        words = "The guest's remote desktop (RDP) answers: ready."
        Event.objects.bulk_create(operations.event("desktop.prepared", words, desktop=one) for one in ready)
        for desktop in ready:
            nudges.announce("desktops", desktop=str(desktop.pk))
        for pool_id in {desktop.pool_id for desktop in ready}:
            nudges.nudge(nudges.RECONCILE, pool_id)
    return len(ready)
