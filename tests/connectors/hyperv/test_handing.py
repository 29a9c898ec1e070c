"""A machine goes over to the replica that Hyper-V Replica keeps of it, between two hosts of the lab."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from connectors.base import MachineRef, Power, PowerAction, SetPower, Stage, Stamp
from connectors.errors import Conflict, ConnectorError, NotFound, Unsupported
from connectors.hyperv.connector import HypervConnector
from connectors.replication import DrivesMirrors, MirrorState
from lab import mirrors
from lab.hyperv import replicas
from lab.mirrors import Course
from tests.connectors.contract import OURS, clone, finish, made, new_key, soon
from tests.connectors.hyperv.worlds import HypervWorld


@dataclass
class Pair:
    """A host with a machine, and the host that keeps its replica."""

    here: HypervWorld
    there: HypervWorld
    machine: MachineRef

    @property
    def source(self) -> HypervConnector:
        return self.here.connector()

    @property
    def target(self) -> HypervConnector:
        return self.there.connector()

    def write(self, world: HypervWorld, data: bytes) -> None:
        with world.world as lab:
            lab.write(lab.machine(self.machine.id).disks[0], 1 << 20, data)

    def read(self, world: HypervWorld, length: int) -> bytes:
        with world.world as lab:
            disk = lab.machine(self.machine.id).disks[0]
        return world.world.read(disk, 1 << 20, length)

    def switch(self, world: HypervWorld, action: PowerAction) -> Stage:
        order = SetPower(key=new_key(), machine=self.machine, action=action)
        return finish(world, world.connector(), order).stage

    def power(self, world: HypervWorld) -> str:
        return str(world.machine(self.machine.id).power)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        folder.mkdir()
    here, there = HypervWorld(folders[0]), HypervWorld(folders[1], hosts=("HV-DR",))
    try:
        one = made(here, here.connector(), clone(here))
        ref = MachineRef(one.machine_id, here.machines()[one.machine_id])
        replicas.keep(here.server.host, ref.id, there.server.host)
        yield Pair(here, there, ref)
    finally:
        here.close()
        there.close()


def test_the_connector_drives_what_it_tells_of() -> None:
    assert issubclass(HypervConnector, DrivesMirrors)


def test_a_machine_goes_over_with_its_last_bytes_and_replicates_back(pair: Pair) -> None:
    pair.write(pair.here, b"written last")
    pair.source.hand_over(pair.machine, soon())
    pair.target.take_over(pair.machine, soon())
    assert pair.read(pair.there, 12) == b"written last"
    assert pair.switch(pair.there, PowerAction.ON) is Stage.DONE
    assert pair.power(pair.there) == Power.ON
    pair.target.reverse(pair.machine, soon())
    (back,) = pair.target.mirrors(soon()).mirrors
    assert (back.machine, back.to, back.state) == (pair.machine.id, "HV1", MirrorState.HEALTHY)
    assert pair.source.mirrors(soon()).mirrors == ()


def test_what_came_without_notes_bears_its_stamp_there(pair: Pair) -> None:
    assert pair.there.machines()[pair.machine.id] is None
    pair.source.hand_over(pair.machine, soon())
    pair.target.take_over(pair.machine, soon())
    assert pair.there.machines()[pair.machine.id] == pair.machine.stamp


def test_every_step_may_be_asked_again(pair: Pair) -> None:
    for connector, step in ((pair.source, "hand_over"), (pair.target, "take_over"), (pair.target, "reverse")):
        for _ in range(2):
            getattr(connector, step)(pair.machine, soon())


def test_neither_end_can_be_started_before_its_turn(pair: Pair) -> None:
    assert pair.switch(pair.there, PowerAction.ON) is Stage.FAILED
    pair.source.hand_over(pair.machine, soon())
    assert pair.switch(pair.here, PowerAction.ON) is Stage.FAILED


def test_a_failover_is_taken_back_at_either_end(pair: Pair) -> None:
    pair.source.hand_over(pair.machine, soon())
    pair.target.take_over(pair.machine, soon())
    pair.switch(pair.there, PowerAction.ON)
    for _ in range(2):
        pair.target.take_back(pair.machine, soon())
        pair.source.take_back(pair.machine, soon())
    assert pair.power(pair.there) == Power.OFF
    assert pair.switch(pair.there, PowerAction.ON) is Stage.FAILED
    assert pair.switch(pair.here, PowerAction.ON) is Stage.DONE
    (still,) = pair.source.mirrors(soon()).mirrors
    assert still.state is MirrorState.HEALTHY


def test_a_machine_that_runs_is_not_handed_over(pair: Pair) -> None:
    pair.switch(pair.here, PowerAction.ON)
    with pytest.raises(Unsupported, match="on"):
        pair.source.hand_over(pair.machine, soon())


def test_what_does_not_replicate_just_now_is_not_handed_over(pair: Pair) -> None:
    with pair.here.world as lab:
        mirrors.turn(lab, pair.machine.id, Course.PAUSED)
    with pytest.raises(Conflict, match="paused"):
        pair.source.hand_over(pair.machine, soon())


def test_steps_at_the_wrong_end_are_refused(pair: Pair) -> None:
    with pytest.raises(ConnectorError, match="stamp"):
        pair.target.hand_over(pair.machine, soon())
    with pytest.raises(Conflict, match="no replica"):
        pair.source.take_over(pair.machine, soon())


def test_another_machine_of_that_id_is_left_alone(pair: Pair) -> None:
    other = dataclasses.replace(pair.machine, stamp=Stamp(OURS, new_key()))
    for step in ("hand_over", "take_back"):
        with pytest.raises(Conflict, match="stamp"):
            getattr(pair.source, step)(other, soon())


def test_what_is_not_there_cannot_go_over_and_needs_no_taking_back(pair: Pair) -> None:
    gone = MachineRef(new_key(), pair.machine.stamp)
    for step in ("hand_over", "take_over", "reverse"):
        with pytest.raises(NotFound):
            getattr(pair.source, step)(gone, soon())
    pair.source.take_back(gone, soon())


def test_what_is_not_replicated_is_told_so(pair: Pair) -> None:
    with pair.here.world as lab:
        mirrors.end(lab, pair.machine.id)
    with pytest.raises(Unsupported, match="does not replicate"):
        pair.source.hand_over(pair.machine, soon())
