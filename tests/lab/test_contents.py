"""What is on the disks of a world: real bytes, in files that hold only what was written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lab import state
from lab.clock import Clock
from lab.contents import GRAIN, Area, Token
from lab.errors import InUse, Misfit, NoSuch, OutOfStorage, UnknownToken, WorldError
from lab.nouns import Machine
from lab.world import MIB, World

SIZE = 3 * GRAIN + 1_024
"""The last grain is a small one."""
PLACES = st.sampled_from([0, 1, GRAIN - 1, GRAIN, 2 * GRAIN, 2 * GRAIN + 700, 3 * GRAIN, SIZE - 1])


def furnished(folder: Path | None = None, capacity_mib: int = 4_000_000, seed: int = 1) -> World:
    world = World("test", seed, Clock(speed=0), folder=folder)
    with world:
        world.add_host("one", memory_mib=10_000_000)
        world.add_storage("disks", capacity_mib)
        world.add_network("office")
    return world


def machine_with(world: World, capacity: int, name: str = "desk") -> Machine:
    disk = world.new_disk(next(iter(world.storages)), capacity=capacity)
    return world.create(name, disks=(disk.id,))


def whole(world: World, disk: str) -> bytes:
    return world.read(disk, 0, world.disks[disk].capacity)


def files(folder: Path) -> dict[str, int]:
    """File -> bytes that it takes."""
    return {path.name: path.stat().st_blocks * 512 for path in folder.glob("*.raw")}


def grains(areas: list[Area]) -> set[int]:
    return {grain for area in areas for grain in range(area.offset // GRAIN, -(-(area.offset + area.length) // GRAIN))}


def apart(one: bytes | bytearray, other: bytes | bytearray) -> set[int]:
    """Grains in which they differ: told in a moment, where pytest would compare two long strings for minutes."""
    size = max(len(one), len(other))
    return {at // GRAIN for at in range(0, size, GRAIN) if one[at : at + GRAIN] != other[at : at + GRAIN]}


@dataclass
class Moment:
    """What a token stands for."""

    token: Token
    content: bytes
    written: dict[str, set[int]]
    """Disk that goes on with the history -> grains written since."""


class Disks(RuleBasedStateMachine):
    """Anything in any order, against a bytearray a disk."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.world = furnished(self.folder / "disks")
        self.model: dict[str, bytearray] = {}
        self.then: dict[str, list[bytes]] = {}
        """What a disk held each time when it was copied since the last saving."""
        self.moments: list[Moment] = []
        with self.world:
            self.model[machine_with(self.world, SIZE).disks[0]] = bytearray(SIZE)
        self.save()

    def teardown(self) -> None:
        self.place.cleanup()

    def pick(self, number: int) -> Machine:
        machines = list(self.world.machines.values())
        return machines[number % len(machines)]

    def copied(self, source: str, copy: str) -> None:
        self.model[copy] = bytearray(self.model[source])
        self.then.setdefault(source, []).append(bytes(self.model[source]))

    def written(self, disk: str, offset: int, length: int) -> None:
        for moment in self.moments:
            if disk in moment.written:
                moment.written[disk] |= grains([Area(offset, length)]) if length else set()

    @rule(
        number=st.integers(0, 9),
        offset=PLACES,
        data=st.binary(min_size=1, max_size=9),
        times=st.sampled_from([1, 9_000]),
    )
    def write(self, number: int, offset: int, data: bytes, times: int) -> None:
        (disk,) = self.pick(number).disks
        data = (data * times)[: SIZE - offset]
        with self.world:
            self.world.write(disk, offset, data)
        self.model[disk][offset : offset + len(data)] = data
        self.written(disk, offset, len(data))

    @rule(number=st.integers(0, 9), offset=PLACES, length=st.integers(0, SIZE))
    def zero(self, number: int, offset: int, length: int) -> None:
        (disk,) = self.pick(number).disks
        length = min(length, SIZE - offset)
        with self.world:
            self.world.zero(disk, offset, length)
        self.model[disk][offset : offset + length] = bytes(length)
        self.written(disk, offset, length)

    @rule(number=st.integers(0, 9))
    def snapshot(self, number: int) -> None:
        machine = self.pick(number)
        (before,) = machine.disks
        with self.world:
            self.world.take_snapshot(machine.id, "point")
        (after,) = machine.disks
        self.copied(before, after)
        for moment in self.moments:
            if before in moment.written:
                moment.written[after] = set(moment.written[before])

    @rule(number=st.integers(0, 9), which=st.integers(0, 9))
    def revert(self, number: int, which: int) -> None:
        machine = self.pick(number)
        if machine.snapshots:
            point = list(machine.snapshots.values())[which % len(machine.snapshots)]
            with self.world:
                self.world.revert(machine.id, point.id)
            self.copied(point.disks[0], machine.disks[0])

    @rule(number=st.integers(0, 9), which=st.integers(0, 9))
    def delete_snapshot(self, number: int, which: int) -> None:
        machine = self.pick(number)
        if machine.snapshots:
            with self.world:
                try:
                    self.world.delete_snapshot(machine.id, list(machine.snapshots)[which % len(machine.snapshots)])
                except InUse:
                    return

    @precondition(lambda self: len(self.world.machines) < 5)
    @rule(number=st.integers(0, 9), is_linked=st.booleans(), of_snapshot=st.booleans())
    def clone(self, number: int, is_linked: bool, of_snapshot: bool) -> None:
        machine = self.pick(number)
        point = next(iter(machine.snapshots.values()), None) if of_snapshot else None
        source = point.disks[0] if point else machine.disks[0]
        with self.world:
            clone = self.world.clone(machine.id, name="clone", linked=is_linked, snapshot=point.id if point else None)
        self.copied(source, clone.disks[0])

    @precondition(lambda self: len(self.world.machines) > 1)
    @rule(number=st.integers(0, 9))
    def delete(self, number: int) -> None:
        with self.world:
            try:
                self.world.delete(self.pick(number).id)
            except InUse:
                return

    @rule(number=st.integers(0, 30))
    def token(self, number: int) -> None:
        disk = list(self.world.disks)[number % len(self.world.disks)]
        with self.world:
            token = self.world.change_token(disk)
        # A snapshot's disk shares its moment with the one that went on from it, as long as that wrote nothing.
        self.moments.append(Moment(token, bytes(self.model[disk]), {disk: set()}))

    @rule()
    def save(self) -> None:
        state.save(self.world, self.folder / "world.json")
        self.then.clear()

    @rule()
    def restart(self) -> None:
        self.save()
        self.load()
        self.look()

    @rule()
    def crash(self) -> None:
        """Disks that were copied after the saving may be as they were at a copy; all others are as they were."""
        self.load()
        for disk in self.world.disks:
            found = whole(self.world, disk)
            possible = (self.model[disk], *self.then.get(disk, ()))
            assert any(not apart(found, one) for one in possible)
            self.model[disk] = bytearray(found)
        for moment in self.moments:
            moment.written.clear()
        self.save()

    def load(self) -> None:
        self.world = World("test", 1, Clock(speed=0), folder=self.folder / "disks")
        state.load(self.world, self.folder / "world.json")

    @rule()
    def look(self) -> None:
        for disk in self.world.disks:
            assert apart(whole(self.world, disk), self.model[disk]) == set()

    @rule()
    def compare(self) -> None:
        for disk in self.world.disks:
            assert apart(self.model[disk], bytes(SIZE)) <= grains(self.world.allocated(disk))
            for other in self.world.disks:
                assert apart(self.model[disk], self.model[other]) <= grains(self.world.allocated(disk, other))

    @invariant()
    def changes_are_told(self) -> None:
        for moment in self.moments:
            for disk in self.world.disks:
                try:
                    told = grains(self.world.changed(disk, moment.token))
                except UnknownToken:
                    assert disk not in moment.written
                    continue
                if disk in moment.written:
                    assert told == moment.written[disk]
                assert apart(self.model[disk], moment.content) <= told


TestDisks = Disks.TestCase
TestDisks.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_linked_clone_holds_only_what_differs(tmp_path: Path) -> None:
    world = furnished(tmp_path)
    with world:
        golden = machine_with(world, 64 * MIB, "golden")
        world.write(golden.disks[0], 0, os.urandom(8 * MIB))
        clone = world.clone(golden.id, name="desk")
        assert len(files(tmp_path)) == 1
        world.write(clone.disks[0], 5 * MIB + 100, b"mine")
        mine, theirs = sorted(files(tmp_path).values())
        assert (mine, theirs) == (GRAIN, 8 * MIB)
        assert world.read(clone.disks[0], 5 * MIB, GRAIN)[100:104] == b"mine"
        assert world.read(clone.disks[0], 0, 5 * MIB) == world.read(golden.disks[0], 0, 5 * MIB)
        assert world.allocated(clone.disks[0], golden.disks[0]) == [Area(5 * MIB, GRAIN)]
        assert world.allocated(clone.disks[0]) == [Area(0, 8 * MIB)]


def test_thousands_of_clones_cost_no_file_and_no_entry(tmp_path: Path) -> None:
    world = furnished(tmp_path / "disks")
    with world:
        golden = world.add_template("golden")
        clones = [world.clone(golden.id, name=f"desk-{number}") for number in range(3_000)]
        copy = world.clone(golden.id, name="copy", linked=False)
        assert world.read(clones[-1].disks[0], 0, MIB) == world.read(copy.disks[0], 0, MIB) != bytes(MIB)
        assert len(world.contents.layers) == 1
        assert not world.contents.histories
        assert not (tmp_path / "disks").exists()
        world.write(clones[7].disks[0], 0, b"x")
        assert len(files(tmp_path / "disks")) == 1


def test_a_full_clone_depends_on_nobody(tmp_path: Path) -> None:
    world = furnished()
    with world:
        golden = machine_with(world, MIB)
        world.write(golden.disks[0], 0, b"golden")
        copy = world.clone(golden.id, name="copy", linked=False)
        world.write(golden.disks[0], 0, b"newer ")
        world.delete(golden.id)
        assert world.read(copy.disks[0], 0, 6) == b"golden"


def test_the_file_goes_with_the_disk_and_merging_leaves_one(tmp_path: Path) -> None:
    world = furnished(tmp_path / "disks")
    with world:
        desk = machine_with(world, 4 * MIB)
        world.write(desk.disks[0], 0, b"a" * MIB)
        point = world.take_snapshot(desk.id, "point")
        world.write(desk.disks[0], MIB // 2, b"b" * MIB)
        world.delete_snapshot(desk.id, point.id)
        assert len(files(tmp_path / "disks")) == 2, "the saved state may still speak of it"
        state.save(world, tmp_path / "world.json")
        assert len(files(tmp_path / "disks")) == 1
        assert world.read(desk.disks[0], 0, 2 * MIB) == b"a" * (MIB // 2) + b"b" * MIB + bytes(MIB // 2)
        world.delete(desk.id)
        state.save(world, tmp_path / "world.json")
        assert files(tmp_path / "disks") == {}


def test_what_was_merged_outlives_a_crash_whatever_was_written_since(tmp_path: Path) -> None:
    world = furnished(tmp_path / "disks")
    with world:
        desk = machine_with(world, 8 * GRAIN)
        (disk,) = desk.disks
        world.write(disk, 0, b"a" * 3 * GRAIN)
        world.zero(disk, 3 * GRAIN, GRAIN)
        point = world.take_snapshot(desk.id, "point")
        (disk,) = desk.disks
        world.write(disk, GRAIN, b"b" * GRAIN)
        world.zero(disk, 2 * GRAIN, GRAIN)
        world.write(disk, 3 * GRAIN, b"c" * GRAIN)
        world.delete_snapshot(desk.id, point.id)
        state.save(world, tmp_path / "world.json")
        expected = b"".join(letter * GRAIN for letter in (b"a", b"b", b"\0", b"c")) + bytes(4 * GRAIN)
        assert apart(whole(world, disk), expected) == set()
        assert len(files(tmp_path / "disks")) == 1
        world.write(disk, 5 * GRAIN, b"d")
        expected = expected[: 5 * GRAIN] + b"d" + expected[5 * GRAIN + 1 :]
    for new in (b"e", b"f"):
        world = World("test", clock=Clock(speed=0), folder=tmp_path / "disks")
        state.load(world, tmp_path / "world.json")
        with world:
            assert apart(whole(world, disk), expected) == set()
            world.write(disk, 6 * GRAIN, new)
            expected = expected[: 6 * GRAIN] + new + expected[6 * GRAIN + 1 :]


def test_a_world_without_a_folder_tidies_at_once() -> None:
    world = furnished()
    with world:
        desk = machine_with(world, 4 * MIB)
        world.write(desk.disks[0], 0, b"a")
        place = world.contents._place
        assert len(files(place)) == 1
        with pytest.raises(ValueError, match="needs a folder"):
            state.dump(world)
        world.delete(desk.id)
        assert files(place) == {}


def test_zeros_hide_what_is_below_and_take_no_room(tmp_path: Path) -> None:
    world = furnished(tmp_path)
    with world:
        desk = machine_with(world, 1024 * MIB)
        world.write(desk.disks[0], MIB, b"a" * MIB)
        world.take_snapshot(desk.id, "point")
        world.zero(desk.disks[0], 0, 1024 * MIB)
        assert len(files(tmp_path)) == 1
        assert world.read(desk.disks[0], MIB, MIB) == bytes(MIB)
        assert world.allocated(desk.disks[0]) == []
        bare = machine_with(world, 4 * MIB).disks[0]
        world.write(bare, 0, b"a" * MIB)
        world.zero(bare, 0, MIB)
        world.write(bare, 5, b"b")
        assert world.read(bare, 4, 3) == b"\0b\0"
        assert files(tmp_path)[f"{bare}.raw"] == GRAIN


def test_a_golden_image_holds_the_same_bytes_in_every_run_and_no_file() -> None:
    def golden(seed: int) -> tuple[list[Area], bytes]:
        world = furnished(seed=seed)
        with world:
            (disk,) = world.add_template("golden").disks
            areas = world.allocated(disk)
            assert world.disks[disk].capacity == 20_480 * MIB
            return areas, world.read(disk, areas[-1].offset + 7, 5_000)

    areas, data = golden(7)
    assert (areas, data) == golden(7)
    assert data != golden(8)[1]
    assert areas[0].offset == 0
    assert sum(area.length for area in areas) <= 8 * MIB


def test_an_image_file_is_shown_as_it_is(tmp_path: Path) -> None:
    image = tmp_path / "golden.img"
    with image.open("wb") as file:
        file.truncate(3_000 * MIB)
        file.seek(2_000 * MIB)
        file.write(b"in the middle")
    world = furnished(tmp_path / "disks")
    with world:
        golden = machine_with(world, 4_000 * MIB)
        (disk,) = golden.disks
        world.write(disk, 0, b"before")
        world.fill_disk(disk, image)
        assert world.allocated(disk) == [Area(2_000 * MIB, GRAIN)]
        assert world.read(disk, 2_000 * MIB, 13) == b"in the middle"
        assert world.read(disk, 0, 6) == bytes(6)
        world.write(disk, 2_000 * MIB, b"IN")
        assert world.read(disk, 2_000 * MIB, 13) == b"IN the middle"
        assert image.stat().st_blocks * 512 <= GRAIN
        small = machine_with(world, MIB)
        with pytest.raises(Misfit):
            world.fill_disk(small.disks[0], image)
        bare = machine_with(world, 3_000 * MIB)
        world.fill_disk(bare.disks[0], image)
        image.unlink()
        with pytest.raises(NoSuch, match=r"golden\.img"):
            world.read(bare.disks[0], 2_000 * MIB, 1)


def test_sizes_are_exact_to_the_sector_and_nothing_lies_beyond() -> None:
    world = furnished()
    with world:
        size = 2_048 * MIB + 512
        (disk,) = machine_with(world, size).disks
        world.write(disk, size - 3, b"end")
        assert world.read(disk, size - 4, 4) == b"\0end"
        assert (world.disks[disk].capacity, world.disks[disk].capacity_mib) == (size, 2_049)
        assert world.allocated(disk) == [Area(2_048 * MIB, 512)]
        for beyond in (lambda: world.write(disk, size - 2, b"end"), lambda: world.read(disk, -1, 1)):
            with pytest.raises(Misfit):
                beyond()
        with pytest.raises(Misfit, match="whole sectors"):
            machine_with(world, size + 1)
        world.resize_disk(disk, size + MIB)
        assert world.read(disk, size - 3, 6) == b"end\0\0\0"
        with pytest.raises(Misfit):
            world.resize_disk(disk, size)


def test_an_import_into_a_full_storage_is_refused() -> None:
    world = furnished(capacity_mib=100)
    with world:
        (storage,) = world.storages
        disk = world.new_disk(storage, 50)
        world.fill(storage, leaving_mib=4)
        for at in range(5):
            world.write(disk.id, at * MIB, bytes(MIB))
        with pytest.raises(OutOfStorage):
            world.write(disk.id, 5 * MIB, bytes(MIB))
        assert world.allocated(disk.id) == [Area(0, 5 * MIB)]
        world.write(disk.id, 0, b"what has its room is written")
        assert world.free_mib(storage) == 0
        world.drain(storage)
        world.write(disk.id, 5 * MIB, bytes(MIB))
        assert disk.used_mib == 6


def test_a_machine_is_made_of_disks_that_nobody_has() -> None:
    world = furnished()
    with world:
        storage = next(iter(world.storages))
        system, more, loose = (world.new_disk(storage, 10).id for _ in range(3))
        desk = world.create("desk", disks=(system,), disks_mib=(5,))
        assert [world.disks[disk].capacity_mib for disk in desk.disks] == [10, 5]
        world.attach_disk(desk.id, more)
        child = world.copy_disk(loose, linked=True).id
        point = world.take_snapshot(desk.id, "point")
        for taken in (*desk.disks, *point.disks, loose):
            with pytest.raises(InUse):
                world.create("other", disks=(taken,))
            with pytest.raises(InUse):
                world.attach_disk(desk.id, taken)
        for disk in list(desk.disks):
            world.detach_disk(desk.id, disk)
            world.drop_disk(disk)
        with pytest.raises(InUse):
            world.create("other", disks=point.disks[:1])
        with pytest.raises(NoSuch):
            world.attach_disk(desk.id, "nothing")
        world.attach_disk(desk.id, child)
        world.detach_disk(desk.id, child)
        with pytest.raises(NoSuch):
            world.detach_disk(desk.id, child)
        assert child in world.disks


def test_changes_are_told_across_snapshots_but_not_after_a_revert_or_for_a_clone() -> None:
    world = furnished()
    with world:
        desk = machine_with(world, 64 * MIB)
        first = world.take_snapshot(desk.id, "first")
        world.write(desk.disks[0], 10 * MIB, b"x" * (GRAIN + 1))
        second = world.take_snapshot(desk.id, "second")
        world.write(desk.disks[0], 20 * MIB, b"later")
        told = world.change_token(first.disks[0])
        assert Token.of(str(told)) == told
        assert world.changed(second.disks[0], told) == [Area(10 * MIB, 2 * GRAIN)]
        assert world.changed(desk.disks[0], told) == [Area(10 * MIB, 2 * GRAIN), Area(20 * MIB, GRAIN)]
        assert world.allocated(second.disks[0], first.disks[0]) == [Area(10 * MIB, 2 * GRAIN)]
        clone = world.clone(desk.id, name="clone")
        for stranger in (Token.of("a/1"), Token(told.uuid, 99), Token(told.uuid, 0)):
            with pytest.raises(UnknownToken):
                world.changed(desk.disks[0], stranger)
        world.revert(desk.id, second.id)
        for disk in (*desk.disks, *clone.disks):
            with pytest.raises(UnknownToken):
                world.changed(disk, told)
        for text in ("", "*", "a", "a/", "a/b", "a/-1", "a/²"):
            with pytest.raises(UnknownToken):
                Token.of(text)


def test_a_history_that_is_forgotten_or_forks_begins_anew() -> None:
    world = furnished()
    with world:
        desk = machine_with(world, MIB)
        (disk,) = desk.disks
        before = world.change_token(disk)
        world.forget_changes(disk)
        after = world.change_token(disk)
        with pytest.raises(UnknownToken):
            world.changed(disk, before)
        point = world.take_snapshot(desk.id, "point")
        world.write(point.disks[0], 0, b"nobody should do that")
        with pytest.raises(UnknownToken):
            world.changed(point.disks[0], after)
        assert world.changed(desk.disks[0], after) == []


def test_whoever_reads_holds_no_lock_and_is_not_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = furnished(tmp_path / "disks")
    with world:
        desk = machine_with(world, 4 * MIB)
        world.write(desk.disks[0], 0, b"a" * MIB)
        point = world.take_snapshot(desk.id, "point")
        world.write(desk.disks[0], 0, b"b" * GRAIN)
    read, meanwhile = os.pread, list[str]()

    def merge() -> None:
        with world:
            world.delete_snapshot(desk.id, point.id)
            state.save(world, tmp_path / "world.json")
            meanwhile.append("merged")

    def pread(*where: int) -> bytes:
        monkeypatch.setattr(os, "pread", read)
        other = threading.Thread(target=merge)
        other.start()
        other.join(30)
        return read(*where)

    monkeypatch.setattr(os, "pread", pread)
    assert world.read(desk.disks[0], 0, MIB) == b"b" * GRAIN + b"a" * (MIB - GRAIN)
    assert meanwhile == ["merged"]
    assert len(files(tmp_path / "disks")) == 1


def test_a_disk_that_goes_while_it_is_read_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = furnished(tmp_path / "disks")
    with world:
        desk = machine_with(world, MIB)
        world.write(desk.disks[0], 0, b"a")
    (disk,), read = desk.disks, os.pread

    def pread(*where: int) -> bytes:
        with world:
            world.erase_disk(disk)
        return read(*where)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(NoSuch):
        world.read(disk, 0, 1)


def test_a_guest_scribbles_the_same_in_every_run_while_it_is_up() -> None:
    def diary(seed: str) -> tuple[bytes, int]:
        world = furnished()
        with world:
            desk = machine_with(world, 4 * MIB)
            world.scribble(desk.id, seed, times=30, every_s=10)
            assert whole(world, desk.disks[0]) == bytes(4 * MIB)
            world.power_on(desk.id)
        world.clock.advance(100)
        with world:
            before = world.change_token(desk.disks[0])
            world.take_snapshot(desk.id, "point")
        world.clock.advance(100)
        with world:
            changed = len(grains(world.changed(desk.disks[0], before)))
            world.power_off(desk.id)
            content = whole(world, desk.disks[0])
        world.clock.advance(1_000)
        with world:
            assert whole(world, desk.disks[0]) == content
            world.power_on(desk.id)
        world.clock.advance(1_000)
        with world:
            assert whole(world, desk.disks[0]) == content, "it had its thirty"
        return content, changed

    content, changed = diary("a")
    assert (content, changed) == diary("a")
    assert diary("b")[0] != content
    assert 1 <= changed <= 20


def test_a_crash_brings_back_what_went_after_the_saving_and_forgets_what_was_forgotten(tmp_path: Path) -> None:
    world = furnished(tmp_path / "disks")
    with world:
        gone, stays = machine_with(world, MIB, "gone"), machine_with(world, MIB, "stays")
        for it in (gone, stays):
            world.write(it.disks[0], 0, b"saved")
        token = world.change_token(stays.disks[0])
        state.save(world, tmp_path / "world.json")
        world.delete(gone.id)
        world.forget_changes(stays.disks[0])
        world.write(stays.disks[0], 0, b"after")
    (tmp_path / "disks" / "stray.raw").write_bytes(b"written, but not yet in the log")
    world = World("test", clock=Clock(speed=0), folder=tmp_path / "disks")
    state.load(world, tmp_path / "world.json")
    with world:
        assert world.read(gone.disks[0], 0, 5) == b"saved"
        assert world.read(stays.disks[0], 0, 5) == b"after"
        with pytest.raises(UnknownToken):
            world.changed(stays.disks[0], token)
    assert len(files(tmp_path / "disks")) == 2


DIES = """
import os, signal, sys
from pathlib import Path
from lab import state
from lab.platform import site
from lab.clock import Clock

here = site("esxi", Path(sys.argv[1]), Clock(speed=0))
with here.world() as world:
    world.add_host("one"); world.add_storage("disks"); world.add_network("office")
    golden = world.add_template("golden")
    desk = world.clone(golden.id, name="desk")
    quiet = world.clone(golden.id, name="quiet")
    for it in (desk, quiet):
        world.write(it.disks[0], 0, b"saved")
        world.take_snapshot(it.id, "point")
        world.write(it.disks[0], 512, b"saved too")
    print(world.change_token(desk.disks[0]), world.change_token(quiet.disks[0]))
    state.save(world, here.folder / "world.json")
    world.write(desk.disks[0], 1024, b"not saved but written")
    world.write(desk.disks[0], 7 * 2**20, b"far away")
    world.write(world.clone(golden.id, name="lost").disks[0], 0, b"lost")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_written_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", DIES, tmp_path], capture_output=True, text=True, check=False)
    assert dead.returncode == -9, dead.stderr
    changed, unchanged = dead.stdout.split()
    with (tmp_path / "esxi" / "disks" / "held.log").open("a") as log:
        log.write('["held", "torn')
    world = World("esxi", clock=Clock(speed=0), folder=tmp_path / "esxi" / "disks")
    assert state.load(world, tmp_path / "esxi" / "world.json")
    with world:
        by_name = {it.name: it for it in world.machines.values()}
        assert by_name.keys() == {"golden", "desk", "quiet"}
        (disk,), (quiet,) = by_name["desk"].disks, by_name["quiet"].disks
        assert world.read(disk, 0, 5) == b"saved"
        assert world.read(disk, 512, 9) == b"saved too"
        assert world.read(disk, 1024, 21) == b"not saved but written"
        assert world.read(disk, 7 * MIB, 8) == b"far away"
        (point,) = by_name["desk"].snapshots.values()
        assert world.read(point.disks[0], 512, 9) != b"saved too"
        with pytest.raises(UnknownToken):
            world.changed(disk, Token.of(changed))
        assert world.changed(quiet, Token.of(unchanged)) == []
        world.write(quiet, 3 * MIB, b"and again")
    world = World("esxi", clock=Clock(speed=0), folder=tmp_path / "esxi" / "disks")
    state.load(world, tmp_path / "esxi" / "world.json")
    with world:
        assert world.read(quiet, 3 * MIB, 9) == b"and again"
        state.save(world, tmp_path / "esxi" / "world.json")
        assert len(files(tmp_path / "esxi" / "disks")) == 4, "what was lost has left nothing"


def test_a_world_saved_before_disks_had_files_still_loads(tmp_path: Path) -> None:
    world = furnished(tmp_path / "disks")
    with world:
        (disk,) = machine_with(world, 2 * MIB).disks
        old = state.dump(world)
    del old["contents"]
    (it,) = old["disks"]
    for new in ("capacity", "layers", "top"):
        del it[new]
    it |= {"capacity_mib": 2, "extents": [[512, "b2xk"]]}
    again = World("test", clock=Clock(speed=0), folder=tmp_path / "disks")
    with again:
        state.restore(again, old)
        assert again.disks[disk].capacity == 2 * MIB
        assert again.read(disk, 512, 3) == b"old"


def test_errors_of_disks_are_the_worlds() -> None:
    assert all(issubclass(error, WorldError) for error in (Misfit, UnknownToken))
