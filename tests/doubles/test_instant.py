"""The double itself: it keeps the contract, and its faults strike as they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from connectors import registry
from connectors.base import (
    CloneMachine,
    DeleteMachine,
    MachineMade,
    MachineRef,
    Order,
    Outcome,
    Power,
    PowerAction,
    Receipt,
    RecycleMachine,
    SetPower,
    Stage,
    Stamp,
    Surroundings,
)
from connectors.errors import (
    Busy,
    CapacityExhausted,
    CertificateRejected,
    Conflict,
    CredentialsRejected,
    NotFound,
    PlatformFault,
    Unreachable,
)
from tests.doubles.instant.connector import InstantConnector, InstantSettings
from tests.doubles.instant.faults import BOUNDARIES
from tests.doubles.instant.world import World

HERE = "installation-1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path / "world")
    yield made
    made.close()


@pytest.fixture
def connector(world: World, tmp_path: Path) -> Iterator[InstantConnector]:
    made = connect(world, tmp_path)
    yield made
    made.close()


def connect(world: World, tmp_path: Path, latency_s: str = "0") -> InstantConnector:
    given = InstantSettings(world=str(world.folder), latency_s=latency_s)
    return InstantConnector(given, Surroundings(installation=HERE, workdir=tmp_path))


def soon() -> float:
    return time.monotonic() + 5


def one(connector: InstantConnector, order: Order) -> Outcome:
    (outcome,) = connector.submit([order], soon())
    return outcome


def clone(name: str = "office-1", **more: object) -> CloneMachine:
    return CloneMachine(key=str(uuid4()), name=name, template="template-golden", **more)  # type: ignore[arg-type]


def made(outcome: Outcome) -> MachineMade:
    assert outcome.stage == Stage.DONE, outcome.error
    assert isinstance(outcome.result, MachineMade)
    return outcome.result


def ref(order: CloneMachine, machine: MachineMade) -> MachineRef:
    return MachineRef(machine.machine_id, Stamp(HERE, order.key))


def test_it_is_found_by_entry_point_and_only_there() -> None:
    assert "instant" in registry.kinds()
    assert "instant" not in registry.BUILT_IN
    assert registry.load("instant") is InstantConnector


def test_a_clone_stands_at_once_and_is_listed_with_its_stamp(connector: InstantConnector) -> None:
    order = clone()
    machine = made(one(connector, order))
    (shown,) = connector.inventory(None, soon()).machines
    assert (shown.id, shown.name, shown.power) == (machine.machine_id, "office-1", Power.ON)
    assert shown.stamp == Stamp(HERE, order.key)
    assert shown.addresses


def test_a_second_attempt_finds_the_first_ones_machine(connector: InstantConnector, world: World) -> None:
    order = clone()
    first = made(one(connector, order))
    again = CloneMachine(key=order.key, attempt=2, name=order.name, template=order.template)
    assert made(one(connector, again)) == first
    assert len(world.acts("machine")) == 1


def test_a_name_that_is_taken_is_a_conflict(connector: InstantConnector) -> None:
    made(one(connector, clone()))
    assert isinstance(one(connector, clone()).error, Conflict)


def test_a_slow_clone_is_judged_by_what_stands(world: World, tmp_path: Path) -> None:
    slow = connect(world, tmp_path, latency_s="0.3")
    order = clone()
    started = one(slow, order)
    assert started.stage == Stage.RUNNING
    assert started.receipt is not None
    slow.close()
    successor = connect(world, tmp_path, latency_s="0.3")
    time.sleep(0.3)
    (outcome,) = successor.poll([Receipt(order, started.receipt)], soon())
    assert made(outcome).power == Power.ON
    successor.close()


def test_recycling_leaves_nothing_that_a_user_wrote(connector: InstantConnector, world: World) -> None:
    order = clone()
    machine = made(one(connector, order))
    world.write(machine.machine_id, "secret")
    assert "secret" in world.read(machine.machine_id)
    fresh = RecycleMachine(key=str(uuid4()), machine=ref(order, machine), name=order.name, template=order.template)
    again = made(one(connector, fresh))
    assert not set(again.disks) & set(machine.disks)
    assert world.read(machine.machine_id) == "golden"


def test_a_repeated_recycle_does_not_touch_what_came_after(connector: InstantConnector, world: World) -> None:
    order = clone()
    machine = made(one(connector, order))
    fresh = RecycleMachine(key=str(uuid4()), machine=ref(order, machine), name=order.name, template=order.template)
    made(one(connector, fresh))
    world.write(machine.machine_id, "the next user's work")
    made(one(connector, fresh))
    assert "the next user's work" in world.read(machine.machine_id)


def test_another_machine_under_the_same_id_is_a_conflict(connector: InstantConnector) -> None:
    machine = made(one(connector, clone()))
    wrong = MachineRef(machine.machine_id, Stamp(HERE, str(uuid4())))
    assert isinstance(one(connector, DeleteMachine(key=str(uuid4()), machine=wrong)).error, Conflict)


def test_deleting_what_is_gone_is_success(connector: InstantConnector, world: World) -> None:
    order = clone()
    target = ref(order, made(one(connector, order)))
    for _ in range(2):
        assert one(connector, DeleteMachine(key=str(uuid4()), machine=target)).stage == Stage.DONE
    assert not world.machines()
    assert not world.orphaned_disks()


def test_a_hosts_memory_is_finite(tmp_path: Path) -> None:
    small = World.make(tmp_path / "small", memory_mib=1024)
    connector = connect(small, tmp_path)
    orders = [clone(f"office-{n}", memory_mib=512) for n in range(3)]
    outcomes = list(connector.submit(orders, soon()))
    assert [o.stage for o in outcomes] == [Stage.DONE, Stage.DONE, Stage.FAILED]
    assert isinstance(outcomes[2].error, CapacityExhausted)
    connector.close()
    small.close()


def test_a_machine_that_is_not_there_is_not_found(connector: InstantConnector) -> None:
    order = SetPower(key=str(uuid4()), machine=MachineRef("nowhere"), action=PowerAction.ON)
    assert isinstance(one(connector, order).error, NotFound)


@pytest.mark.parametrize(
    ("knob", "error"),
    [
        ("refuse", Unreachable),
        ("hang", Unreachable),
        ("certificate", CertificateRejected),
        ("credentials", CredentialsRejected),
    ],
)
def test_a_lost_endpoint_raises(connector: InstantConnector, world: World, knob: str, error: type[Exception]) -> None:
    world.faults.set(knob)
    deadline = time.monotonic() + 0.2
    with pytest.raises(error):
        connector.check(deadline)
    with pytest.raises(error):
        list(connector.submit([clone()], time.monotonic() + 0.2))
    assert not world.machines()
    world.faults.clear()
    assert connector.check(soon()).product


def test_a_hanging_endpoint_keeps_the_deadline(connector: InstantConnector, world: World) -> None:
    world.faults.set("hang")
    begun = time.monotonic()
    with pytest.raises(Unreachable):
        connector.inventory(None, begun + 0.3)
    assert 0.25 < time.monotonic() - begun < 10


def test_no_order_is_started_after_the_deadline(connector: InstantConnector, world: World) -> None:
    with pytest.raises(Unreachable):
        list(connector.submit([clone()], time.monotonic() - 1))
    assert not world.acts()


@pytest.mark.parametrize(
    ("knob", "error"), [("busy", Busy), ("fail_clone", PlatformFault), ("storage_full", CapacityExhausted)]
)
def test_a_counted_fault_strikes_so_often_and_leaves_nothing(
    connector: InstantConnector, world: World, knob: str, error: type[Exception]
) -> None:
    world.faults.set(knob, 2)
    for _ in range(2):
        assert isinstance(one(connector, clone()).error, error)
        assert not world.machines()
        assert not world.rows("SELECT * FROM disk")
    made(one(connector, clone()))


def test_a_dropped_answer_was_acted_on(connector: InstantConnector, world: World) -> None:
    world.faults.set("drop", 1)
    order = clone()
    with pytest.raises(Unreachable):
        list(connector.submit([order], soon()))
    assert len(world.machines_of(HERE, order.key)) == 1


def test_a_listing_leaves_out_half_and_says_that_it_is_complete(connector: InstantConnector, world: World) -> None:
    for number in range(6):
        world.add_foreign_machine(f"foreign-{number}")
    world.faults.set("omit", 0.5)
    listing = connector.inventory(None, soon())
    assert len(listing.machines) == 3
    assert listing.complete
    world.faults.set("partial")
    assert not connector.inventory(None, soon()).complete


def test_a_counted_fault_is_shared_by_all_who_look(world: World) -> None:
    world.faults.set("busy", 50)
    struck: list[int] = []

    def look() -> None:
        struck.append(sum(world.faults.strikes("busy") for _ in range(20)))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(struck) == 50


CHILD = """
import sys, time
from pathlib import Path
from connectors.base import CloneMachine, Receipt, Surroundings
from tests.doubles.instant.connector import InstantConnector, InstantSettings
given = InstantSettings(world=sys.argv[1], latency_s=sys.argv[2])
connector = InstantConnector(given, Surroundings(installation="installation-1", workdir=Path(sys.argv[1])))
connector.inventory(None, time.monotonic() + 5)
orders = [CloneMachine(key=f"key-{n}", name=f"pc-{n}", template="template-golden") for n in range(3)]
receipts = [Receipt(o, {}) for o, _ in zip(orders, connector.submit(orders, time.monotonic() + 5))]
for _ in connector.poll(receipts, time.monotonic() + 5):
    pass
print("survived")
"""


def child(world: World, latency_s: str = "0") -> subprocess.Popen[str]:
    repository = Path(registry.__file__).resolve().parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(world.folder), latency_s], cwd=repository, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_process_is_killed_at_each_boundary_once(world: World, boundary: str) -> None:
    world.faults.set("crash_at", boundary)
    with child(world) as killed:
        assert killed.communicate(timeout=30)[0] == ""
    assert killed.returncode == -signal.SIGKILL
    with child(world) as spared:
        assert spared.communicate(timeout=30)[0] == "survived\n"


def test_the_seventh_time_is_the_seventh_over_all_processes(world: World) -> None:
    world.faults.set("crash_at", "act.before 5")
    codes = []
    for _ in range(2):
        with child(world) as process:
            process.communicate(timeout=30)
        codes.append(process.returncode)
    assert codes == [0, -signal.SIGKILL]


def test_a_process_is_frozen_and_thawed(world: World) -> None:
    world.faults.set("freeze_at", "act.between")
    with child(world) as frozen:
        _, status = os.waitpid(frozen.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        os.kill(frozen.pid, signal.SIGCONT)
        assert frozen.communicate(timeout=30)[0] == "survived\n"
