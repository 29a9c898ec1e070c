"""Races for desktops, each run in a process of its own on the database that DATABASE_URL names.

    python -m tests.broker.race claim --people 200 --desktops 200

prints one JSON object with what the people were told and what the rows say. Started by `test_races.py`; a process of
its own, because the database of a Django process is settled when it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count, zip_longest
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402 - after setup
from django.db import connection, transaction  # noqa: E402
from django.db.models import F  # noqa: E402
from django.utils import timezone  # noqa: E402

from broker.domain.lifecycle import State  # noqa: E402
from broker.models import (  # noqa: E402
    Assignment,
    AuditEntry,
    Desktop,
    DesktopSession,
    Entitlement,
    Event,
    Hypervisor,
    Notice,
    Operation,
    Pool,
    PoolMember,
    PowerSchedule,
    Publication,
    RecoveryPoint,
    ReplicationRun,
    Request,
    Template,
    TemplateCopy,
    TemplateVersion,
    Vault,
)
from broker.services import (  # noqa: E402
    brokering,
    entitlements,
    inventory,
    leases,
    pools,
    publication_steps,
    publications,
    pump,
    reconcile,
    schedules,
    screens,
    session_timers,
    sessions,
)
from broker.services.errors import Clash, Missing  # noqa: E402
from broker.services.rows import locked  # noqa: E402
from connectors.presence import GuestUsers  # noqa: E402
from tests.broker.plant import Plant  # noqa: E402
from tests.doubles.instant.world import World  # noqa: E402

THREADS = 64
T = TypeVar("T")


class Ground:
    """A pool of its own, with ready desktops and entitled people."""

    def __init__(self, people: int, desktops: int) -> None:
        name = uuid4().hex[:10]
        self.now = timezone.now()
        self.hypervisor = Hypervisor.objects.create(
            name=name, kind="instant", status=Hypervisor.Status.UP, status_since=self.now
        )
        version = TemplateVersion.objects.create(template=Template.objects.create(name=name), number=1)
        self.copy = TemplateCopy.objects.create(
            version=version, hypervisor=self.hypervisor, platform_id=name, name=name, vcpus=1, memory_mib=512
        )
        self.pool = Pool.objects.create(name=name, naming=f"{name}-####", maximum=5000)
        self.member = PoolMember.objects.create(pool=self.pool, hypervisor=self.hypervisor, copy=self.copy)
        group = Group.objects.create(name=name)
        Entitlement.objects.create(pool=self.pool, group=group)
        self.people = User.objects.bulk_create([User(username=f"{name}-{n}") for n in range(people)])
        group.user_set.set(self.people)
        self.add_desktops(desktops)

    def add_desktops(self, count: int) -> None:
        first = self.pool.desktops.count()
        Desktop.objects.bulk_create(
            Desktop(
                name=f"{self.pool.name}-{number:04}",
                pool=self.pool,
                member=self.member,
                hypervisor=self.hypervisor,
                copy=self.copy,
                state=State.READY,
                state_since=self.now,
                ready_at=self.now + timedelta(milliseconds=number),
                epoch=1,
                clean_epoch=1,
                machine_id=str(uuid4()),
                stamp_key=str(uuid4()),
                vcpus=1,
                memory_mib=512,
                power="on",
                is_answering=True,
            )
            for number in range(first, first + count)
        )

    def ask(self, user: User) -> tuple[UUID, str, UUID | None, str]:
        """(request, state, desktop, reason), as this person is told."""
        request, _ = brokering.request_desktop(user=user, pool_id=self.pool.pk)
        return request.pk, request.state, request.desktop_id, request.reason

    def standing(self) -> dict[str, Any]:
        """What the rows say."""
        held = list(Assignment.objects.filter(pool=self.pool, until=None).values_list("user_id", "desktop_id"))
        states = Counter(Desktop.objects.filter(pool=self.pool).values_list("state", flat=True))
        requests = Request.objects.filter(pool=self.pool)
        served = requests.filter(state=Request.State.READY).values_list("user_id", "desktop_id")
        return {
            "holders": len({user for user, _ in held}),
            "held": len({desktop for _, desktop in held}),
            "assignments": len(held),
            "states": dict(states),
            "requests": dict(Counter(requests.values_list("state", flat=True))),
            "agree": set(held) == set(served),
            "epochs": sorted(set(Desktop.objects.filter(pool=self.pool).values_list("state", "epoch"))),
            "audited": AuditEntry.objects.filter(
                action="desktop.claim", object_id__in=[str(desktop) for _, desktop in held]
            ).count(),
        }


def at_once(calls: Iterable[Callable[[], T]]) -> list[T | Exception]:
    """Every call's result or error; all threads start together."""
    todo = list(calls)
    width = min(THREADS, len(todo))
    gate = threading.Barrier(width)
    local = threading.local()

    def run(call: Callable[[], T]) -> T | Exception:
        if not getattr(local, "is_started", False):
            local.is_started = True
            connection.ensure_connection()
            gate.wait(30)
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error

    with ThreadPoolExecutor(width) as threads:
        results = list(threads.map(run, todo))
        # Each thread closes its own connection; one call each keeps a thread from taking two.
        leave = threading.Barrier(width)

        def close(_: int) -> None:
            leave.wait(30)
            connection.close()

        list(threads.map(close, range(width)))
    return results


def errors(results: Iterable[object]) -> list[str]:
    return sorted({f"{type(result).__name__}: {result}" for result in results if isinstance(result, Exception)})


def claim(people: int, desktops: int) -> dict[str, Any]:
    """Everybody asks at once."""
    ground = Ground(people, desktops)
    results = at_once([lambda user=user: ground.ask(user) for user in ground.people])  # type: ignore[misc]
    told = [result for result in results if isinstance(result, tuple)]
    return ground.standing() | {
        "errors": errors(results),
        "told_ready": len({desktop for _, state, desktop, _ in told if state == "ready"}),
        "told_waiting": sum(state == "approved" and bool(reason) for _, state, _, reason in told),
    }


def tabs(people: int, desktops: int) -> dict[str, Any]:
    """One person asks in as many tabs at once as there are people."""
    ground = Ground(1, desktops)
    results = at_once([lambda: ground.ask(ground.people[0])] * people)
    told = [result for result in results if isinstance(result, tuple)]
    return ground.standing() | {
        "errors": errors(results),
        "told": len(told),
        "told_requests": len({request for request, *_ in told}),
        "told_desktops": len({desktop for _, _, desktop, _ in told}),
    }


def queue(people: int, desktops: int) -> dict[str, Any]:
    """People wait; then desktops become ready, and many serve the queue at once."""
    ground = Ground(people, 0)
    for user in ground.people:
        ground.ask(user)
    ground.add_desktops(desktops)
    results = at_once([lambda: brokering.serve_queue(pool_id=ground.pool.pk)] * THREADS)
    first = list(
        Request.objects.filter(pool=ground.pool).order_by("created_at").values_list("pk", flat=True)[:desktops]
    )
    served = set(Request.objects.filter(pool=ground.pool, state=Request.State.READY).values_list("pk", flat=True))
    return ground.standing() | {
        "errors": errors(results),
        "served": sum(result for result in results if isinstance(result, int)),
        "first_come_first_served": served == set(first),
    }


def release(people: int, desktops: int) -> dict[str, Any]:
    """Everybody has a desktop and gives it back in three tabs at once."""
    ground = Ground(people, desktops)
    for user in ground.people:
        ground.ask(user)
    held = list(Assignment.objects.filter(pool=ground.pool, until=None).select_related("user"))
    results = at_once(
        [
            lambda a=assignment: brokering.release_desktop(actor=a.user, desktop_id=a.desktop_id)  # type: ignore[misc]
            for assignment in held
            for _ in range(3)
        ]
    )
    return ground.standing() | {
        "errors": errors(result for result in results if not isinstance(result, Clash | Missing)),
        "released": sum(not isinstance(result, Exception) for result in results),
        "recycles": Operation.objects.filter(desktop__pool=ground.pool, kind=Operation.Kind.RECYCLE).count(),
        "one_each": Operation.objects.filter(desktop__pool=ground.pool).values("desktop").distinct().count(),
    }


SEATS = 5


def share_hosts(ground: Ground) -> None:
    """The ground's desktops are session hosts."""
    Pool.objects.filter(pk=ground.pool.pk).update(kind="shared", protocol="rdp", seats=SEATS)


def seated(ground: Ground) -> dict[str, Any]:
    """What the rows say of the seats."""
    rows = Assignment.objects.filter(pool=ground.pool, until=None).values_list("desktop_id", "seat", "desktop__state")
    taken = list(rows)
    return {
        "on_each": sorted(Counter(desktop for desktop, *_ in taken).values()),
        "twice": len(taken) - len({(desktop, seat) for desktop, seat, _ in taken}),
        "numbers": sorted({seat for _, seat, _ in taken}),
        "states_of_used": sorted({state for *_, state in taken}),
    }


def seats(people: int, desktops: int) -> dict[str, Any]:
    """Everybody asks for a seat on a session host, in two tabs at once."""
    ground = Ground(people, desktops)
    share_hosts(ground)
    results = at_once([lambda user=user: ground.ask(user) for user in ground.people for _ in range(2)])  # type: ignore[misc]
    brokering.serve_queue(pool_id=ground.pool.pk)
    return ground.standing() | seated(ground) | {"errors": errors(results)}


def leave(people: int, desktops: int) -> dict[str, Any]:
    """Everybody has a seat and gives it back in two tabs at once; a few others ask at the same moment."""
    ground = Ground(people + people // 8, desktops)
    share_hosts(ground)
    there, others = ground.people[:people], ground.people[people:]
    for user in there:
        ground.ask(user)
    held = list(Assignment.objects.filter(pool=ground.pool, until=None).select_related("user"))
    leaving = [
        lambda a=assignment: brokering.release_desktop(actor=a.user, desktop_id=a.desktop_id)
        for assignment in held
        for _ in range(2)
    ]
    asking = [lambda user=user: ground.ask(user) for user in others]
    results = at_once([call for pair in zip_longest(leaving, asking) for call in pair if call])
    hosts = Desktop.objects.filter(pool=ground.pool)
    recycled = hosts.filter(operations__kind=Operation.Kind.RECYCLE)
    return (
        ground.standing()
        | seated(ground)
        | {
            "errors": errors(result for result in results if not isinstance(result, Clash | Missing)),
            "left": Assignment.objects.filter(user__in=there, until__isnull=False).count(),
            "stayed": Assignment.objects.filter(user__in=there, until=None).count(),
            "empty_and_used": hosts.filter(state=State.ASSIGNED)
            .exclude(assignments__until=None, assignments__isnull=False)
            .count(),
            "recycling": hosts.filter(state=State.RECYCLING).count(),
            "recycled_once": recycled.distinct().count() == recycled.count(),
            "recycles": recycled.count(),
        }
    )


def lease(people: int, desktops: int) -> dict[str, Any]:
    """Everybody's lease is over and told of. Two clocks see each; half of the people renew in two tabs at the same
    moment, the others release."""
    ground = Ground(people, desktops)
    for user in ground.people:
        ground.ask(user)
    before = ground.now - timedelta(hours=1)
    ground.pool.assignments.update(
        since=before - timedelta(hours=2), lease_until=before, told_at=before, end_told_at=before, next_lease_at=before
    )
    Pool.objects.filter(pk=ground.pool.pk).update(lease_h=2, renewals=1, notice_h=1)
    held = list(Assignment.objects.filter(pool=ground.pool, until=None).select_related("user").order_by("user"))
    renewing = held[::2]
    calls: list[Callable[[], object]] = []
    for assignment in held:
        act: Callable[[], object] = partial(
            brokering.release_desktop, actor=assignment.user, desktop_id=assignment.desktop_id
        )
        if assignment in renewing:
            act = partial(leases.renew, actor=assignment.user, desktop_id=assignment.desktop_id, seen_until=before)
        ends = partial(leases.run, assignment.pk)
        calls += [ends, act, ends, act]
    results = at_once(calls)
    ended = Assignment.objects.filter(pool=ground.pool, until__isnull=False)
    told = Notice.objects.filter(pool=ground.pool, kind="desktop_reclaimed")
    both = ended.filter(renewals__gt=0)
    return ground.standing() | {
        "errors": errors(result for result in results if not isinstance(result, Clash | Missing)),
        "renewed": sum(isinstance(result, tuple) and result[1] for result in results),
        "renewals": sum(Assignment.objects.filter(pool=ground.pool).values_list("renewals", flat=True)),
        "renewed_and_ended": both.count(),
        "kept": Assignment.objects.filter(pk__in=[row.pk for row in renewing], until=None, renewals=1).count(),
        "ended": ended.count(),
        "reclaimed": told.count(),
        "reclaimed_once": told.values("desktop").distinct().count(),
        "released": sum(isinstance(result, Operation) for result in results),
        "recycles": Operation.objects.filter(desktop__pool=ground.pool, kind=Operation.Kind.RECYCLE).count(),
    }


def session(people: int, desktops: int) -> dict[str, Any]:
    """Everybody left an hour ago and was told that the desktop goes. Two clocks see each, a guest says that nobody is
    there, a relay that its stream ended; a third of the people come back at the same moment, a third release."""
    ground = Ground(people, desktops)
    Pool.objects.filter(pk=ground.pool.pk).update(disconnected_min=30)
    held = []
    for user in ground.people:
        ground.ask(user)
        desktop = Desktop.objects.get(assignments__user=user, assignments__until=None)
        admission = screens.Admission(uuid4(), desktop.pk, desktop.epoch, user.pk, "vnc")
        stream = screens.start_session(admission=admission, address=None)
        screens.end_session(heartbeat=screens.Heartbeat(stream, 0, 0), reason="The browser left.")
        held.append((user, desktop, admission))
    hour = timedelta(hours=1)
    left = ground.now - hour
    rows = DesktopSession.objects.filter(desktop__pool=ground.pool)
    rows.update(
        closed_at=left, input_at=left, began_at=left, next_at=ground.now, warned_at=left, had_user=True, empties=1,
        warned_for=left + timedelta(minutes=30),
    )  # fmt: skip
    by_desktop = dict(rows.values_list("desktop", "pk"))
    back = {user.pk for user, _, _ in held[::3]}
    calls: list[Callable[[], object]] = []
    for number, (user, desktop, admission) in enumerate(held):
        ends = partial(session_timers.run, by_desktop[desktop.pk])
        asked = {desktop.machine_id: [by_desktop[desktop.pk]]}
        says = partial(sessions.told, asked, [GuestUsers(desktop.machine_id, timezone.now(), ())], timezone.now())
        calls += [ends, says, ends]
        if user.pk in back:
            calls.append(partial(screens.start_session, admission=admission, address=None))
        elif number % 3 == 1:
            calls.append(partial(brokering.release_desktop, actor=user, desktop_id=desktop.pk))
    calls += [session_timers.look, screens.end_lost] * 4
    results = at_once(calls)
    kept = Assignment.objects.filter(pool=ground.pool, until=None)
    going_on = DesktopSession.objects.filter(desktop__pool=ground.pool, ended_at=None)
    return ground.standing() | {
        "errors": errors(result for result in results if not isinstance(result, Clash | Missing)),
        "kept_by_those_back": kept.filter(user__in=back).count(),
        "going_on": going_on.count(),
        "connected": going_on.filter(state="connected", desktop__in=kept.values("desktop")).count(),
        "recycles": Operation.objects.filter(desktop__pool=ground.pool, kind=Operation.Kind.RECYCLE).count(),
        "audited_once": AuditEntry.objects.filter(
            action__in=["desktop.reclaim", "desktop.release"],
            object_id__in=[str(pk) for pk in by_desktop],
        ).count(),
    }


def use(people: int, desktops: int) -> dict[str, Any]:
    """People take, use and give back desktops for a while; three workers' worth of threads build and recycle them.

    What a person finds on a desktop's disk before writing there must be the template's alone, and stay theirs.
    """
    with tempfile.TemporaryDirectory() as folder:
        plant = Plant(Path(folder))
        plant.add_hypervisor("instant-1")
        plant.add_hypervisor("instant-2")
        plant.add_pool(spare=desktops, maximum=desktops * 2, delete_budget_per_hour=10_000)
        plant.fill(desktops)
        users = User.objects.bulk_create([User(username=f"user-{n}") for n in range(people)])
        for user in users:
            entitlements.entitle(actor=plant.dana, pool_id=plant.pool.pk, user_id=user.pk)
        told = Day(plant, threading.Event()).pass_by(users)
        go_home(plant)
        plant.until(lambda: plant.count(State.READY) >= desktops, "all is calm again", steps=40)
        plant.assert_tidy()
        plant.close()
    return told


def go_home(plant: Plant) -> None:
    """Those who wait go; those who were served meanwhile give their desktops back."""
    for request in Request.objects.filter(pool=plant.pool, state__in=Request.IN_QUEUE):
        brokering.cancel_request(actor=plant.dana, request_id=request.pk)
    for assignment in Assignment.objects.filter(pool=plant.pool, until=None):
        brokering.release_desktop(actor=plant.dana, desktop_id=assignment.desktop_id)


USE_S = 8.0
SHARE_S = 9.0
"""Long enough for hosts that are locked in any order to end in a deadlock, though not every time."""


@dataclass
class Day:
    """A while of use: errors and foreign files found, and how often a desktop was used."""

    plant: Plant
    is_over: threading.Event
    uses: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def pass_by(self, users: list[User]) -> dict[str, Any]:
        workers = [self.work] * 6
        people = [lambda user=user: self.come_and_go(user) for user in users]
        timer = threading.Timer(USE_S, self.is_over.set)
        timer.start()
        results = at_once([*workers, *people])
        timer.join()
        return {"errors": errors(results), "foreign_files": self.found, "uses": len(self.uses)}

    def work(self) -> None:
        """As three workers do: whoever comes first takes what is due."""
        while not self.is_over.is_set():
            reconcile.run(self.plant.pool.pk)
            for hypervisor in self.plant.hypervisors.values():
                pump.run(hypervisor.pk)
                inventory.take(hypervisor.pk)
            time.sleep(0.05)

    def come_and_go(self, user: User) -> None:
        worlds = {
            hypervisor.pk: World(self.plant.worlds[name].folder) for name, hypervisor in self.plant.hypervisors.items()
        }
        while not self.is_over.is_set():
            request, _ = brokering.request_desktop(user=user, pool_id=self.plant.pool.pk)
            desktop = request.desktop
            if desktop is None:
                time.sleep(0.05)
                continue
            world = worlds[desktop.hypervisor_id]
            before = world.read(desktop.machine_id)
            world.write(desktop.machine_id, f" {user.username}")
            time.sleep(0.02)
            after = world.read(desktop.machine_id)
            if (before, after) != ("golden", f"golden {user.username}"):
                self.found.append(f"{user.username} found {before!r}, then {after!r} on {desktop}")
            self.uses.append(user.username)
            brokering.release_desktop(actor=user, desktop_id=desktop.pk)
        for world in worlds.values():
            world.close()


def share(people: int, desktops: int) -> dict[str, Any]:
    """As many pools as there are people build and delete on the same hosts, in whatever order, at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        plant = Plant(Path(folder))
        for name in ("instant-1", "instant-2"):
            plant.add_hypervisor(name, hosts=8)
        plant.add_pool(spare=desktops, maximum=desktops * 4, delete_budget_per_hour=10_000)
        wishes = [pools.MemberWish(copy_id=member.copy_id) for member in plant.pool.members.all()]
        shared = [plant.pool] + [
            pools.create_pool(
                actor=plant.dana, name=f"pool {n}", naming=f"p{n}-###", members=wishes, spare=desktops,
                maximum=desktops * 4, delete_budget_per_hour=10_000,
            )
            for n in range(1, people)
        ]  # fmt: skip
        is_over = threading.Event()

        def work(take: Callable[[UUID], None], subjects: list[UUID]) -> None:
            while not is_over.is_set():
                for subject in subjects:
                    take(subject)

        hosts = [hypervisor.pk for hypervisor in plant.hypervisors.values()]
        shares = [lambda pool=pool: work(reconcile.run, [pool.pk]) for pool in shared]
        shares += [lambda pk=pk: work(inventory.take, [pk]) for pk in hosts]
        shares += [lambda pk=pk: work(pump.run, [pk]) for pk in hosts]
        timer = threading.Timer(SHARE_S, is_over.set)
        timer.start()
        results = at_once([*shares, lambda: resize(shared, desktops, is_over)])
        timer.join()
        built = Operation.objects.filter(kind=Operation.Kind.CLONE, state=Operation.State.DONE).count()
        plant.close()
    return {"errors": errors(results), "built": built}


def schedule(people: int, desktops: int) -> dict[str, Any]:
    """Two schedules are due, eight clocks run each of them, and people ask for desktops at the same moment."""
    ground = Ground(people, desktops)
    due = [
        PowerSchedule.objects.create(
            pool=ground.pool, name=name, action="off", at=ground.now.time(), weekdays="1234567", zone="UTC",
            next_run_at=ground.now,
        )
        for name in ("Evenings", "Nights")
    ]  # fmt: skip
    clocks = [lambda pk=row.pk: schedules.run(pk) for row in due * 8]
    asking = [lambda user=user: ground.ask(user) for user in ground.people]
    # Both at once from the first thread on.
    results = at_once([call for pair in zip_longest(clocks, asking) for call in pair if call])
    # Whoever asks while a schedule has all desktops locked waits for whoever comes by next.
    brokering.serve_queue(pool_id=ground.pool.pk)
    unfinished = Operation.objects.filter(desktop__pool=ground.pool, state="queued").exclude(cause="")
    return ground.standing() | {
        "errors": errors(results),
        "runs": Event.objects.filter(pool=ground.pool, kind="schedule.run").count(),
        "ordered": unfinished.count(),
        "of_somebodys": unfinished.filter(desktop__state="assigned", epoch=F("desktop__epoch")).count(),
    }


def resize(shared: list[Pool], desktops: int, is_over: threading.Event) -> None:
    """Large, small, large: while some are still deleting, others build."""
    for turn in count():
        for number, pool in enumerate(shared):
            Pool.objects.filter(pk=pool.pk).update(spare=desktops if (turn + number) % 2 else desktops // 2)
        if is_over.wait(0.2):
            return


def publish(people: int, desktops: int) -> dict[str, Any]:
    """So many publications stand before their landing; several workers take each up at once, and every second one is
    cancelled meanwhile."""
    ground = Ground(1, desktops)
    dana = User.objects.create_user(uuid4().hex[:10], is_staff=True)
    vault = Vault.objects.create(name=uuid4().hex, kind="folder", status="up")
    point = RecoveryPoint.objects.create(
        vault=vault, machine_name="image", hypervisor_name="here", taken_at=ground.now, committed_at=ground.now,
        consistency="off", size_bytes=1, new_bytes=1, configuration={"nics": []},
    )  # fmt: skip
    copying = ReplicationRun.objects.create(kind="replicate", vault=vault, subject="image", state="done", point=point)
    rows = Publication.objects.bulk_create(
        Publication(
            version=ground.copy.version, group=uuid4(), step="landing", step_since=ground.now, source=ground.copy,
            vault=vault, hypervisor=ground.hypervisor, storage=f"storage-{number}", name=f"image-{number}",
            copying=copying,
        )
        for number in range(people)
    )  # fmt: skip
    cancelled = rows[::2]
    taking_up: list[Callable[[], object]] = [
        lambda row=row: publication_steps.advance(row.pk)  # type: ignore[misc]
        for row in rows
        for _ in range(5)
    ]
    cancelling: list[Callable[[], object]] = [
        lambda row=row: publications.cancel(actor=dana, publication_id=row.pk)  # type: ignore[misc]
        for row in cancelled
    ]
    results = at_once(call for pair in zip_longest(taking_up, cancelling) for call in pair if call is not None)
    for row in rows:
        publication_steps.advance(row.pk)
    landings = ReplicationRun.objects.filter(kind="materialise")
    now = {row.pk: row for row in Publication.objects.select_related("landing")}
    ended = [now[row.pk] for row in cancelled]
    return {
        "errors": errors(results),
        "landings": landings.count(),
        "owned": Publication.objects.exclude(landing=None).count(),
        "going_on": sum(
            one.landing is not None and not one.landing.is_to_end and one.state == "running"
            for one in now.values()
            if one not in ended
        ),
        "ended_before": sum(one.state == "cancelled" and one.landing is None for one in ended),
        "told_to_end": sum(
            one.state == "running" and one.landing is not None and one.landing.is_to_end for one in ended
        ),
        "audited": AuditEntry.objects.filter(action="publication.cancel").count(),
    }


def lock(people: int, desktops: int) -> dict[str, Any]:
    """Somebody waits for a row, to which meanwhile a column is given that it comes with."""
    ground = Ground(1, desktops)
    run = ReplicationRun.objects.create(kind="materialise", hypervisor=ground.hypervisor, subject="image")
    row = Publication.objects.create(
        version=ground.copy.version, group=uuid4(), step="landing", step_since=ground.now, source=ground.copy,
        hypervisor=ground.hypervisor, storage="storage", name="image",
    )  # fmt: skip
    is_held = threading.Event()

    def give() -> None:
        with transaction.atomic():
            Publication.objects.filter(pk=row.pk).update(landing=run)
            is_held.set()
            time.sleep(1.0)

    def wait() -> bool:
        is_held.wait(30)
        with transaction.atomic():
            found = locked(Publication.objects.select_related("landing"), row.pk, "publication")
            return found.landing == run

    results = at_once([give, wait])
    return {"errors": errors(results), "came_with_it": results[1]}


RACES: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "claim": claim,
    "lock": lock,
    "tabs": tabs,
    "queue": queue,
    "release": release,
    "use": use,
    "share": share,
    "schedule": schedule,
    "publish": publish,
    "lease": lease,
    "seats": seats,
    "leave": leave,
    "session": session,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("race", choices=RACES)
    parser.add_argument("--people", type=int, required=True)
    parser.add_argument("--desktops", type=int, required=True)
    given = parser.parse_args()
    sys.stdout.write(json.dumps(RACES[given.race](given.people, given.desktops)) + "\n")


if __name__ == "__main__":
    main()
