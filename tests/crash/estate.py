"""Making a pool on the instant hypervisor, and what must hold of it afterwards."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

from django.contrib.auth.models import User
from django.db.models import Sum
from django.utils import timezone

from broker.models import (
    Desktop,
    Entitlement,
    Host,
    Hypervisor,
    Operation,
    Pool,
    PoolMember,
    Template,
    TemplateCopy,
    TemplateVersion,
)
from broker.models.operations import UNFINISHED
from broker.services import reservations
from tests.doubles.instant.world import World


def make_pool(world: World, size: int, *, budget: int = 8, latency_s: float = 0, boot_s: float = 0) -> Pool:
    """A floating pool that wants `size` ready desktops on a world with room for them."""
    template = world.rows("SELECT id, name, storage, vcpus, memory_mib, disk_mib FROM template")[0]
    hypervisor = Hypervisor.objects.create(
        name="instant",
        kind="instant",
        settings={"world": str(Path(world.folder)), "latency_s": str(latency_s), "boot_s": str(boot_s)},
        build_budget=budget,
    )
    version = TemplateVersion.objects.create(template=Template.objects.create(name="Golden"), number=1)
    copy = TemplateCopy.objects.create(
        version=version,
        hypervisor=hypervisor,
        platform_id=str(template[0]),
        name=str(template[1]),
        storage=str(template[2]),
        vcpus=int(str(template[3])),
        memory_mib=int(str(template[4])),
        disk_mib=int(str(template[5])),
    )
    pool = Pool.objects.create(name="Office", naming="office-###", spare=size, maximum=size, delete_budget_per_hour=999)
    PoolMember.objects.create(pool=pool, hypervisor=hypervisor, copy=copy)
    return pool


def want(pool: Pool, size: int) -> None:
    """The pool wants so many ready desktops from now on, and is looked at next."""
    Pool.objects.filter(pk=pool.pk).update(spare=size, maximum=size, next_reconcile_at=None)


def entitled(pool: Pool, name: str) -> User:
    user, _ = User.objects.get_or_create(username=name)
    Entitlement.objects.get_or_create(pool=pool, user=user)
    return user


def assert_nothing_lost_or_doubled(world: World, size: int) -> None:
    """Machines = desktops, one each; nothing in flight; no orphaned disk; promises add up; every failure has words."""
    live = Desktop.objects.exclude(state="gone")
    states = Counter(live.values_list("state", flat=True))
    assert states == {"ready": size}, states
    machines = {machine.id for machine in world.machines()}
    owned = list(live.values_list("machine_id", flat=True))
    assert sorted(owned) == sorted(machines), f"{len(owned)} desktops, {len(machines)} machines"
    assert not world.orphaned_disks()
    made = Counter(key for key, *_ in world.acts("machine"))
    assert len(made) == made.total() == size, "a machine was made more than once, or made and removed again"
    assert not Operation.objects.filter(state__in=UNFINISHED).exists()
    assert not Operation.objects.filter(state="failed", error="").exists()
    assert not any(d.clean_epoch != d.epoch for d in live)
    reservations.recount()
    assert Host.objects.aggregate(s=Sum("reserved_memory_mib"))["s"] == 0


def let_time_pass() -> None:
    """Every lease and every call of the dead runs out now, as it would by itself in a moment."""
    past = timezone.now() - timedelta(seconds=1)
    Hypervisor.objects.exclude(pump_expires_at=None).update(pump_expires_at=past)
    Hypervisor.objects.exclude(inventory_expires_at=None).update(inventory_expires_at=past)
    Operation.objects.filter(state=Operation.State.SENT).update(call_deadline=past)
