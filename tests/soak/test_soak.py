"""Minutes of joins, leaves, faults and power schedules over all makers at once; in the end everything adds up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User

from broker.domain import planning
from broker.models import Assignment, Desktop, Hypervisor, Operation, Pool, PoolMember, Request
from broker.models.operations import UNFINISHED
from broker.services import brokering, entitlements, power
from broker.services.errors import Refusal
from lab.platform import Platform
from tests.soak.plan import Happening, What, happenings
from tests.support import kvm_estate, lab_estate
from tests.support.effort import IS_LONG
from tests.support.lab_estate import FIVE
from tests.support.redis import private_redis
from tests.support.stack import Stack, database, stack, wait_until

SEED = 20
HEALED_S = 600 if not IS_LONG else 3600


@dataclass(frozen=True, slots=True)
class Size:
    desktops: int
    users: int
    lasts_s: float
    """Virtual seconds."""
    troubles: int
    platforms: int
    """How many times as large as in the demo."""
    speed: float
    """Virtual seconds a second."""


HYPERCORE_MAXIMUM = 250
"""It takes one change at a time: with an even share the soak would be an hour of waiting for it alone."""

SHORT = Size(desktops=60, users=30, lasts_s=400, troubles=12, platforms=1, speed=10)
WHOLE = Size(desktops=5_000, users=2_000, lasts_s=600, troubles=60, platforms=20, speed=3)


@pytest.fixture
def installation(postgres_url: str, tmp_path: Path, django_db_blocker: pytest.Item) -> Iterator[Stack]:
    with (
        private_redis() as server,
        database(postgres_url, f"soak_{uuid4().hex[:12]}") as url,
        stack(tmp_path, url, server) as made,
        django_db_blocker.unblock(),  # type: ignore[attr-defined]
        made.rows(),
    ):
        for number in range(2):
            made.start("worker", f"worker-{number}")
        made.start("beat")
        yield made


@dataclass
class Soak:
    """The stage on which a plan is played."""

    stood: dict[str, Platform]
    pool: Pool
    away: dict[str, float] = field(default_factory=dict)
    """Kind -> when it comes back."""

    def play(self, plan: list[Happening]) -> None:
        """Each thing at its time; platforms that were cut off come back at theirs."""
        begun = self.now
        for happening in plan:
            while self.now - begun < happening.at_s:
                self.bring_back(self.now - begun)
                time.sleep(0.05)
            self.bring_back(self.now - begun)
            self.happen(happening)
        self.bring_back(float("inf"))
        for platform in self.stood.values():
            platform.world.faults.clear()
            platform.start()

    @property
    def now(self) -> float:
        return next(iter(self.stood.values())).world.now

    def bring_back(self, now: float) -> None:
        for kind in [kind for kind, at in self.away.items() if at <= now]:
            del self.away[kind]
            self.stood[kind].start()

    def happen(self, happening: Happening) -> None:
        act = {
            What.JOIN: self.join, What.LEAVE: self.leave, What.POWER: self.switch, What.LOSE: self.lose,
            What.BREAK: self.break_, What.STUMBLE: self.stumble, What.FORGET: self.forget,
        }[happening.what]  # fmt: skip
        act(happening)

    def join(self, happening: Happening) -> None:
        brokering.request_desktop(user=User.objects.get(username=happening.subject), pool_id=self.pool.pk)

    def leave(self, happening: Happening) -> None:
        """Nobody is told off for leaving while the desktop is not there yet."""
        user = User.objects.get(username=happening.subject)
        held = Assignment.objects.filter(user=user, until=None).first()
        request = Request.objects.filter(user=user).exclude(state__in=["ended", "cancelled", "refused"]).first()
        try:
            if held is not None:
                brokering.release_desktop(actor=user, desktop_id=held.desktop_id)
            elif request is not None:
                brokering.cancel_request(actor=user, request_id=request.pk)
        except Refusal:
            return

    def switch(self, happening: Happening) -> None:
        """As a schedule does: all ready ones."""
        ready = Desktop.objects.filter(pool=self.pool, state="ready")
        power.set_power_of_many(actor=kvm_estate.administrator(), wanted=ready, action=happening.detail)

    def lose(self, happening: Happening) -> None:
        self.stood[happening.subject].cut_off()
        self.away[happening.subject] = happening.ends_s

    def break_(self, happening: Happening) -> None:
        faults = self.stood[happening.subject].world.faults
        kind, status = ("status", int(happening.detail)) if happening.detail.isdigit() else (happening.detail, 503)
        faults.add(kind, count=3, status=status)

    def stumble(self, happening: Happening) -> None:
        self.stood[happening.subject].world.faults.add("task_fails", count=2)

    def forget(self, happening: Happening) -> None:
        self.stood[happening.subject].world.faults.add("session_expires")


def test_the_same_seed_gives_the_same_troubles() -> None:
    def plan(seed: int) -> list[Happening]:
        return happenings(seed, users=20, kinds=FIVE, lasts_s=300, troubles=10)

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


@pytest.mark.timeout(1200)
def test_everything_adds_up_after_joins_leaves_faults_and_power_schedules(installation: Stack, tmp_path: Path) -> None:
    soak(installation, tmp_path / "lab", SHORT)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_everything_adds_up_with_five_thousand_desktops(installation: Stack, tmp_path: Path) -> None:
    soak(installation, tmp_path / "lab", WHOLE)


def soak(installation: Stack, folder: Path, size: Size) -> None:
    folder.mkdir()
    with lab_estate.platforms(folder, names=FIVE, speed=size.speed, seed=SEED, size=size.platforms) as stood:
        made = lab_estate.register(stood, installation.log_tail, build_budget=20, power_budget=50)
        pool = lab_estate.pool_over(
            stood, made, spare=size.desktops - size.users, maximum=size.desktops, delete_budget_per_hour=100_000
        )
        PoolMember.objects.filter(pool=pool, hypervisor__kind="hypercore").update(maximum=HYPERCORE_MAXIMUM)
        everybody = Group.objects.create(name="Everybody")
        everybody.user_set.set(User.objects.bulk_create(User(username=f"user{n}") for n in range(size.users)))
        entitlements.entitle(actor=kvm_estate.administrator(), pool_id=pool.pk, group_id=everybody.pk)
        plan = happenings(SEED, users=size.users, kinds=FIVE, lasts_s=size.lasts_s, troubles=size.troubles)
        Soak(stood, pool).play(plan)
        wait_until(lambda: is_healed(pool, size), HEALED_S, "all is quiet", lambda: told(pool), pause_s=1)
        lab_estate.assert_nothing_lost_or_doubled(stood, made)


def is_healed(pool: Pool, size: Size) -> bool:
    """Everybody who asked has a desktop, the spare is full, and nothing is on its way.

    A few that failed may be kept, with their reason, for an administrator to look at.
    """
    kept = Desktop.objects.filter(pool=pool, state="failed")
    live = Desktop.objects.filter(pool=pool).exclude(state__in=["gone", "failed"])
    held = Assignment.objects.filter(pool=pool, until=None).count()
    wanted = min(size.desktops, held + size.desktops - size.users)
    return (
        not Hypervisor.objects.exclude(status="up").exists()
        and not Operation.objects.filter(state__in=UNFINISHED).exists()
        and not Request.objects.filter(pool=pool, desktop=None, state__in=["waiting", "approved", "building"]).exists()
        and not live.exclude(state__in=["ready", "assigned"]).exists()
        and live.count() == wanted
        and kept.count() <= planning.KEPT_FAILED
        and not kept.filter(failure="").exists()
    )


def told(pool: Pool) -> str:
    states: dict[str, int] = {}
    for state in Desktop.objects.filter(pool=pool).values_list("state", flat=True):
        states[state] = states.get(state, 0) + 1
    hypervisors = [(one.name, one.status, one.status_reason) for one in Hypervisor.objects.all()]
    failed = Operation.objects.filter(state="failed").order_by("-finished_at").values_list("kind", "error")[:8]
    flying = Operation.objects.filter(state__in=UNFINISHED).values_list("kind", "state", "step", "error")[:8]
    return f"{states} {hypervisors}\nfailed: {list(failed)}\nin flight: {list(flying)}"
