"""A broker at work on instant hypervisors, in the test's own process: every step is taken when the test says so.

The cast: Alice and Bob are entitled, Dana is the administrator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.hypervisors import sessions
from broker.models import Desktop, Hypervisor, Machine, Operation, Pool, PoolMember, Request, TemplateVersion
from broker.services import (
    brokering,
    entitlements,
    hypervisors,
    inventory,
    pools,
    pump,
    reconcile,
    templates,
)
from tests.doubles.instant.world import World

PASSWORD = "a password of the hypervisor"


@dataclass
class Plant:
    """Hypervisors with their worlds, one pool over all of them."""

    folder: Path
    worlds: dict[str, World] = field(default_factory=dict)
    hypervisors: dict[str, Hypervisor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dana = User.objects.create_user("dana", is_staff=True)
        self.alice = User.objects.create_user("alice")
        self.bob = User.objects.create_user("bob")
        template = templates.create_template(actor=self.dana, name="Debian")
        self.version: TemplateVersion = templates.add_version(actor=self.dana, template_id=template.pk)

    # Building it.

    def add_hypervisor(
        self, name: str = "instant-1", *, hosts: int = 1, memory_mib: int = 1 << 20, boot_s: str = "0"
    ) -> Hypervisor:
        """A world, registered and read once."""
        self.worlds[name] = World.make(self.folder / name, hosts=hosts, memory_mib=memory_mib)
        values = {"world": str(self.folder / name), "password": PASSWORD, "latency_s": "0", "boot_s": boot_s}
        made = hypervisors.register_hypervisor(actor=self.dana, name=name, kind="instant", values=values)
        self.hypervisors[name] = made
        self.look(name)
        self.pump(name)
        return self.hypervisor(name)

    def add_pool(self, **fields: Any) -> Pool:
        """A pool over all hypervisors; Alice and Bob are entitled."""
        wishes = []
        for made in self.hypervisors.values():
            golden = Machine.objects.get(hypervisor=made, is_template=True)
            copy = templates.link_copy(actor=self.dana, version_id=self.version.pk, machine_id=golden.pk)
            wishes.append(pools.MemberWish(copy_id=copy.pk))
        values: dict[str, Any] = {"name": "Office", "naming": "office-###", "spare": 2, "maximum": 20} | fields
        self.pool = pools.create_pool(actor=self.dana, members=wishes, **values)
        for user in (self.alice, self.bob):
            entitlements.entitle(actor=self.dana, pool_id=self.pool.pk, user_id=user.pk)
        return self.pool

    # One step of each of the broker's workers.

    def pump(self, name: str = "instant-1") -> None:
        pump.run(self.hypervisors[name].pk)

    def look(self, name: str = "instant-1") -> None:
        """A complete listing: by a new session, as every worker's first is."""
        sessions.discard(sessions.borrow(self.hypervisor(name)))
        inventory.take(self.hypervisors[name].pk)

    def reconcile(self) -> None:
        reconcile.run(self.pool.pk)

    def step(self) -> None:
        """Every worker has its turn."""
        self.reconcile()
        for name in self.hypervisors:
            self.pump(name)
            self.look(name)

    def until(self, holds: Callable[[], bool], what: str, steps: int = 20) -> None:
        """Let everybody work, and pauses pass, until it holds."""
        for _ in range(steps):
            if holds():
                return
            self.pauses_pass()
            self.step()
        raise AssertionError(f"It never came to pass that {what}: {self.describe()}")

    def fill(self, ready: int = 2) -> None:
        self.until(lambda: self.count(State.READY) >= ready, f"{ready} desktops are ready")

    def pauses_pass(self) -> None:
        """Back-off and holds are over; nothing else about the time changes."""
        Hypervisor.objects.update(retry_at=None)
        Operation.objects.filter(state=Operation.State.QUEUED).update(not_before=None)
        PoolMember.objects.update(hold_until=None)
        past = timezone.now() - timedelta(hours=1)
        Desktop.objects.filter(state__in=[State.FAILED, State.RETIRING, State.RECYCLING], attempts__gt=0).update(
            state_since=past
        )
        Operation.objects.filter(state=Operation.State.FAILED).update(finished_at=past)

    # Looking at it.

    def hypervisor(self, name: str = "instant-1") -> Hypervisor:
        found: Hypervisor = Hypervisor.objects.get(pk=self.hypervisors[name].pk)
        return found

    def world(self, name: str = "instant-1") -> World:
        return self.worlds[name]

    def desktops(self, *states: State) -> list[Desktop]:
        rows = Desktop.objects.filter(pool=self.pool).order_by("name")
        return list(rows.filter(state__in=states) if states else rows)

    def count(self, *states: State) -> int:
        return len(self.desktops(*states))

    def ask(self, user: User) -> Request:
        return brokering.request_desktop(user=user, pool_id=self.pool.pk)[0]

    def describe(self) -> str:
        rows = [f"{d.name} {d.state} {d.failure}" for d in self.desktops()]
        orders = [f"{o.kind} {o.state} {o.error}" for o in Operation.objects.order_by("created_at")]
        return "; ".join(
            [*rows, *orders, *(f"{h.name} {h.status} {h.status_reason}" for h in Hypervisor.objects.all())]
        )

    def assert_tidy(self) -> None:
        """Machines of ours are machines of desktops, each of one; nothing is left behind."""
        live = {
            (d.hypervisor_id, d.machine_id)
            for d in self.desktops()
            if d.state != State.GONE and d.machine_id and d.state != State.MISSING
        }
        there = {(self.hypervisors[n].pk, m.id) for n, w in self.worlds.items() for m in w.machines() if m.key}
        assert there == live, self.describe()
        assert not [disk for world in self.worlds.values() for disk in world.orphaned_disks()]

    def close(self) -> None:
        for made in self.hypervisors.values():
            sessions.discard(sessions.borrow(made))
        for world in self.worlds.values():
            world.close()
