"""A mover is killed while it copies a disk of one of the lab's platforms, or brings a point up there; beside that lines
break, tasks fail and stores are full. Whatever the seed: every listed point is what the disk was, none is lost, and
nothing of ours is left on the platform, in the vault or on this machine.

Seeds go round the four makers. What a seed draws is a row of lives: each meets one trouble, and dies of it or not.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from broker.hypervisors import gate
from broker.models import (
    Hypervisor,
    Machine,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    Vault,
)
from broker.services import hypervisors, movers, moving, recovery, replication_policies, replication_runs, vaults
from broker.services.replication_policies import ChoiceWish
from connectors.base import Connector, Stamp
from connectors.hypercore import carrying, exported, work
from connectors.hyperv.connector import HypervConnector
from disks.vault.folder import FolderStore
from lab.http import LabServer, Request, Response
from tests.connectors.contract import new_key
from tests.crash import grounds
from tests.crash.conftest import Estate
from tests.crash.grounds import KINDS, Ground
from tests.crash.lives import was_killed
from tests.crash.mover_lives import die_at, life
from tests.support.effort import IS_LONG
from tests.support.samba import SambaServer, private_samba

SEEDS = range(200) if IS_LONG else range(30)
RUNS = 2
"""After the first, in which nothing goes wrong."""
KEPT = 3
SILENCE_S = 3.0
"""How long a Hyper-V host may be silent: nothing here takes long."""
ANYWHERE = ("request",) * 4 + ("taken", "block", "entering", "entered", "fault", "fault", "task", "cut")
COPYING = (*ANYWHERE, "put", "put", "released", "full")
LANDING = (*ANYWHERE, "storage")
"""What a life may meet."""
SURE = ("request", "request", "request", "taken", "entering", "entered")
"""What no mover that copies outlives: the first life of every seed meets one of these."""


# --- what can go wrong ------------------------------------------------------------------------------------------------


class Strike:
    """Acts once, at the n-th request that the platform gets from now on, before or after it is carried out."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._left, self._after, self._act = 0, False, _nothing
        self.seen = 0
        """Requests so far."""

    def set(self, turn: int, *, after: bool, act: Callable[[], None]) -> None:
        with self._guard:
            self._left, self._after, self._act = turn, after, act

    def clear(self) -> None:
        self.set(0, after=False, act=_nothing)

    def watch(self, server: LabServer) -> None:
        carry_out = server.handle

        def handle(request: Request) -> Response:
            act, after = self._turn()
            if not after:
                act()
            response = carry_out(request)
            if after:
                act()
            return response

        server.handle = handle  # type: ignore[method-assign]

    def _turn(self) -> tuple[Callable[[], None], bool]:
        with self._guard:
            self._left, self.seen = self._left - 1, self.seen + 1
            return (self._act, self._after) if self._left == 0 else (_nothing, False)


def _nothing() -> None: ...


@dataclass
class Prey:
    """A process that is to be killed from outside. Its number may be somebody else's once it has ended: its handle
    is not."""

    _handle: int = -1
    _known: threading.Event = field(default_factory=threading.Event)

    def becomes(self, pid: int) -> None:
        self._handle = os.pidfd_open(pid)
        self._known.set()

    def kill(self) -> None:
        self._known.wait()
        signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def close(self) -> None:
        os.close(self._handle)


def hastily(make: Callable[..., Connector]) -> Callable[..., Connector]:
    """Connectors that give a silent host up sooner."""

    def made(*given: Any) -> Connector:
        connector = make(*given)
        if isinstance(connector, HypervConnector):
            connector.reader = dataclasses.replace(connector.reader, silence_s=SILENCE_S)
            connector.builder = dataclasses.replace(connector.builder, silence_s=SILENCE_S)
        return connector

    return made


def full_from(turn: int) -> None:
    """The folder of the vault takes nothing more from its n-th object on, in this process."""
    write, turns, guard = FolderStore._write, iter(range(1, 100_000)), threading.Lock()

    def refuse(store: FolderStore, half: Path, content: bytes) -> None:
        with guard:
            is_full = next(turns) >= turn
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(store, half, content)

    FolderStore._write = refuse  # type: ignore[method-assign, assignment]


# --- the scene --------------------------------------------------------------------------------------------------------


@dataclass
class Scene:
    ground: Ground
    folder: Path
    dana: User
    hypervisor: Hypervisor
    policy: ReplicationPolicy
    vault: Vault
    strike: Strike
    dice: random.Random
    held: dict[UUID, bytes] = field(default_factory=dict)
    """Point -> what the disk was then."""
    made: list[str] = field(default_factory=list)
    """Machines that were brought up."""
    asked: int = 0
    """What a run that goes well asks of the platform."""
    deaths: int = 0
    told: list[str] = field(default_factory=list)

    # --- lives ---

    def live(self, prepare: Callable[[], None] | None = None, prey: Prey | None = None) -> bool:
        """A mover takes all that waits; whether it was killed."""
        doors = self.ground.doors()

        def begin() -> None:
            # Nobody listens twice: what a fork inherited would keep a platform's door open that is to be shut.
            for server in doors:
                if server._server is not None:
                    server._server.socket.close()
                for line in list(server._open):
                    line.close()
            moving.CALL_S, moving.FINISH_S, moving.SLICE_S = 15.0, 30.0, 2.0
            gate.make = hastily(gate.make)
            if prepare is not None:
                prepare()

        pid = life(begin)
        if prey is not None:
            prey.becomes(pid)
        killed = was_killed(pid)
        self.deaths += killed
        return killed

    def calm(self) -> None:
        """All that went wrong is over, and so are the leases of the dead and all pauses."""
        self.strike.clear()
        self.ground.world.faults.clear()
        for server in self.ground.servers:
            server.come_back()
        with self.ground.world as world:
            world.drain(self.ground.storage if self.ground.storage in world.storages else next(iter(world.storages)))
        self.ground.world.clock.advance(60)
        past = timezone.now() - timedelta(seconds=1)
        ReplicationRun.objects.filter(state="running").update(mover_expires_at=past)
        ReplicationRun.objects.filter(state="queued").update(not_before=None)

    def end(self) -> None:
        """Whoever comes next goes on until nothing waits."""
        for _ in range(20):
            self.calm()
            assert not self.live()
            if not ReplicationRun.objects.filter(state__in=("queued", "running")).exists():
                return
        rows = ReplicationRun.objects.exclude(state="done").values_list("kind", "state", "step", "error")
        raise AssertionError(f"It never ends: {list(rows)}; {self.told}")

    def trouble(self, kinds: Sequence[str], *, within: float = 1.0) -> None:
        """One life that meets something, within that part of what a run asks."""
        prey, dice = Prey(), self.dice
        kind, turn, after = dice.choice(kinds), dice.randrange(1, int(self.asked * within) + 1), dice.random() < 0.5
        self.told.append(f"{kind} {turn}{'+' if after else ''}")
        match kind:
            case "request":
                self.strike.set(turn, after=after, act=prey.kill)
                self.live(None, prey)
            case "put":
                self.live(lambda: die_at(FolderStore, "put", after=after, turn=turn % 7 + 1), prey)
            case "block":
                self.live(lambda: die_at(movers.Hold, "moved", after=after, turn=turn % 4 + 1), prey)
            case "taken":
                self.live(lambda: die_at(movers, "take", after=True), prey)
            case "entering" | "entered":
                self.live(lambda: die_at(movers.Hold, "finish", after=kind == "entered"), prey)
            case "released":
                self.live(lambda: die_at(moving, "_release", after=after), prey)
            case "fault":
                fault = dice.choice(("drop_before", "drop_after", "truncate", "status", "session_expires"))
                self.ground.world.faults.add(fault, skip=turn)
                self.live(None, prey)
            case "task":
                self.ground.world.faults.add("task_fails", skip=turn % 3)
                self.live(None, prey)
            case "cut":
                self.strike.set(turn, after=after, act=self._cut_off)
                self.live(None, prey)
            case "full":
                self.live(lambda: full_from(turn % 7 + 1), prey)
            case "storage":
                with self.ground.world as world:
                    for storage in world.storages:
                        world.fill(storage)
                self.live(None, prey)
        prey.close()

    def _cut_off(self) -> None:
        for server in self.ground.servers:
            server.cut_off()

    # --- what is ordered ---

    def copy(self) -> ReplicationRun:
        return replication_runs.run_now(actor=self.dana, policy_id=self.policy.pk)[0]

    def collect(self) -> None:
        ReplicationRun.objects.create(kind="collect", vault=self.vault, subject="Cellar")

    def land(self, point: RecoveryPoint, name: str) -> ReplicationRun:
        return recovery.order_landing(
            point, self.hypervisor, self.dana, name=name, storage=self.ground.storage, networks=[]
        )

    # --- what must hold ---

    def check(self) -> None:
        assert self.ground.left(self.made) == {}, self.told
        with vaults.opened(self.vault) as vault:
            # A collection that died stands there for a day: nobody knows so soon that it does not live.
            assert [run for run in vault.runs() if not run.is_collection] == [], self.told
            listed = self._listed()
            assert {UUID(one) for one in vault.point_ids()} == {point.pk for point in listed}
            content = grounds.now(self.ground)
            for point in listed:
                stored = vault.point(str(point.pk))
                assert vault.verify(stored).is_good, self.told
                with closing(vault.open_disk(stored, stored.disks[0].name)) as source:
                    is_same = source.read(0, source.size) == self.held.setdefault(point.pk, content)
                assert is_same, f"a point holds what never was: {self.told}"
        with gate.opened(self.hypervisor):
            # What the dead had in their working directories goes when the next one makes his.
            scratch = list(Path(settings.CONNECTOR_WORKDIR).iterdir())
        assert len(scratch) == 1, self.told

    def _listed(self) -> list[RecoveryPoint]:
        """The newest of all that were ever listed, as many as the policy keeps."""
        listed = list(RecoveryPoint.objects.filter(state="usable").order_by("taken_at"))
        known = list(self.held)
        fresh = [point.pk for point in listed if point.pk not in self.held]
        assert [point.pk for point in listed][-KEPT:] == [*known, *fresh][-KEPT:], f"a point was lost: {self.told}"
        return listed

    def check_landed(self, run: ReplicationRun) -> None:
        """One machine that holds what the point holds, or none."""
        run.refresh_from_db()
        found = self.ground.made(str(run.pk))
        if run.state == "failed":
            assert run.error
            assert found == [], f"the machine of {run.error!r} is nobody's: {self.told}"
            return
        assert (run.state, found) == ("done", [run.platform_id]), self.told
        assert run.point_id is not None
        there, before = grounds.now(self.ground, run.platform_id), self.held[run.point_id]
        is_same = there[: len(before)] == before and not there[len(before) :].strip(b"\0")
        assert is_same, f"what landed is another disk: {self.told}"
        self.made.append(run.platform_id)

    def check_vault(self) -> None:
        """After a collection the vault holds what its points need and nothing else."""
        with vaults.opened(self.vault) as opened:
            for dead in opened.runs():
                opened.end_run(dead.id)  # as after a day
        self.collect()
        self.end()
        stored = {file.name for file in (self.folder / "chunks").rglob("*") if file.is_file()}
        needed = set()
        with vaults.opened(self.vault) as opened:
            for point in opened.points():
                for leaf in filter(None, point.disks[0].leaves):
                    needed |= {name for name in opened._objects.chunk_names(leaf) if name}
        assert stored == needed, self.told
        assert not list((self.folder / ".half-written").glob("*"))


@pytest.fixture(scope="session")
def file_server() -> Iterator[SambaServer]:
    with private_samba() as server:
        yield server


@pytest.fixture
def samba(file_server: SambaServer) -> Iterator[SambaServer]:
    yield file_server
    for path in file_server.files.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def scene(
    seed: int, estate: Estate, folder: Path, tmp_path: Path, samba: SambaServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    movers._stopping.clear()
    (tmp_path / "connectors").mkdir()
    monkeypatch.setattr(settings, "CONNECTOR_WORKDIR", tmp_path / "connectors")
    # Virtual time is quick, so tasks may be asked after soon.
    for place, name, value in ((work, "TASK_S", 0.05), (work, "WAIT_S", 0.1), (carrying, "SETTLE_S", 0.5),
                               (exported, "ASK_S", 0.05)):  # fmt: skip
        monkeypatch.setattr(place, name, value)
    (tmp_path / "ground").mkdir()
    with grounds.ground_of(KINDS[seed % len(KINDS)], tmp_path / "ground", samba) as ground:
        strike = Strike()
        for server in ground.servers:
            strike.watch(server)
        yield _set_up(ground, folder / "vault", strike, random.Random(seed))


def _set_up(ground: Ground, place: Path, strike: Strike, dice: random.Random) -> Scene:
    place.mkdir()
    dana = User.objects.create_user("dana", is_staff=True)
    hypervisor = hypervisors.register_hypervisor(
        actor=dana, name=ground.kind, kind=ground.kind, values=grounds.values(ground)
    )
    Hypervisor.objects.filter(pk=hypervisor.pk).update(status="up")
    stamp = Stamp(gate.installation_id(), new_key())
    ground.stamp(stamp)
    row = Machine.objects.create(
        hypervisor=hypervisor, platform_id=ground.machine, name="work", power="on", seen_at=timezone.now(),
        stamp_installation=stamp.installation, stamp_key=stamp.key,
    )  # fmt: skip
    vault = vaults.create_vault(actor=dana, name="Cellar", kind="folder", location={"path": str(place)})
    policy = replication_policies.create_policy(
        actor=dana, name="Nightly", vault_id=vault.pk, interval_s=86_400, rpo_s=86_400, keep_last=KEPT, keep_daily=0,
        is_enabled=False, choices=[ChoiceWish(kind="machine", machine_id=row.pk)],
    )  # fmt: skip
    return Scene(ground, place, dana, hypervisor, policy, vault, strike, dice)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mover_killed_on_a_platform_of_the_lab_loses_no_point_and_leaves_nothing(seed: int, scene: Scene) -> None:
    dice, ground = scene.dice, scene.ground
    if dice.random() < 0.3:
        ground.theirs()
    others = ground.of_others()
    scene.copy()
    scene.end()
    scene.asked = scene.strike.seen
    scene.check()
    for number in range(RUNS):
        grounds.write(ground, dice)
        run = scene.copy()
        if dice.random() < 0.3:
            scene.collect()
        for turn in range(dice.choice((1, 1, 2))):
            is_first = number == turn == 0
            scene.trouble(SURE if is_first else COPYING, within=0.5 if is_first else 1.0)
            scene.calm()
        scene.end()
        run.refresh_from_db()
        assert run.state == "done" or run.error, scene.told
        scene.check()
    landing = scene.land(RecoveryPoint.objects.latest("taken_at"), "again")
    scene.trouble(LANDING)
    scene.end()
    scene.check_landed(landing)
    scene.check()
    scene.check_vault()
    assert ground.of_others() == others
    assert scene.deaths, f"nobody died: {scene.told}"
    assert ReplicationSource.objects.get().common_id in {None, RecoveryPoint.objects.latest("taken_at").pk}
