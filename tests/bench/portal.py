"""The portal's first page for somebody with twenty pools: six desktops, two requests that wait, twelve offers."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.utils import timezone

from broker.models import Assignment, Desktop, Entitlement, Pool, Request
from tests.bench import estate
from tests.bench.ground import Ground
from tests.bench.pages import browser, measure

SIZES, SMALL_SIZES = (1_000, 100_000), (1_000, 4_000)
POOLS, DESKTOPS, WAITING = 20, 6, 2


def run(ground: Ground) -> None:
    for size in SMALL_SIZES if ground.is_small else SIZES:
        estate.raze()
        estate.build(size)
        measure("portal", browser(_somebody()), "/", page="my desktops", size=size)


def _somebody() -> User:
    """In no group, so that exactly these pools are theirs."""
    user = User.objects.create_user("somebody")
    ready = {desktop.pool_id: desktop for desktop in Desktop.objects.filter(state="ready").order_by("pk")[:1000]}
    mine = list(ready.values())[:DESKTOPS]
    others = list(Pool.objects.exclude(pk__in=[desktop.pool_id for desktop in mine]).order_by("name"))
    now = timezone.now()
    for pool_id in [*(desktop.pool_id for desktop in mine), *(pool.pk for pool in others[: POOLS - DESKTOPS])]:
        Entitlement.objects.create(pool_id=pool_id, user=user)
    for desktop in mine:
        Desktop.objects.filter(pk=desktop.pk).update(state="assigned", epoch=2)
        whose = {"pool_id": desktop.pool_id, "user": user, "desktop": desktop}
        Assignment.objects.create(**whose, since=now)
        Request.objects.create(**whose, state="ready", created_at=now, served_at=now)
    for pool in others[:WAITING]:
        Request.objects.create(pool=pool, user=user, state="building", created_at=now, reason="Being built.")
    return user
