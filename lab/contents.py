"""The bytes of a world's disks: sparse files that come into being with the first write. A disk that nobody wrote to
has no file and no entry here, so thousands of clones cost nothing.

A disk is a stack of layers: below the ones that stand still and may be shared with other disks, on top one of its own.
What a layer does not hold shows through from below; what none holds is zero. Whatever makes a disk out of another
(linked clone, full clone, snapshot) shares the layers and copies nothing: the source's own layer stands still from then
on, and source and copy each go on in a new one. A layer holds grains of 64 KiB; a smaller write first fetches the rest
of its grain from below, as the deltas of real platforms do.

What a crash loses. Stacks, and what each layer holds, are saved with the world (`lab.state`), now and then and whole.
In between only data are written, and a log of what the layers hold since. So nothing that the last saved state speaks
of is removed or changed its meaning before the next one is safe: that is when `tidy` removes layers without a disk and
joins those that only ever show together. After a crash the world is as it was saved last: a disk that it knows has all
that was written up to the moment when it was made a snapshot or a clone's source; the history of changes of disks that
were written since the last saving is lost, so their tokens are unknown, as after the crash of a real host.

All but `read` is for whoever holds the world's lock.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from lab.errors import NoSuch, UnknownToken
from lab.nouns import Disk
from lab.runs import Runs

GRAIN = 64 * 1024
DATA, ZERO = 1, 2
"""Marks of what a layer holds: it is in its file; it is zero, whatever is below."""
PIECE = 1024 * 1024
SEEDED_AREAS = 8
"""A seeded disk has so many areas of 1 MiB that are not zero, the first at its beginning."""


@dataclass(frozen=True, slots=True, order=True)
class Area:
    """Bytes of a disk."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Token:
    """A moment in the history of a disk."""

    uuid: str
    """The history. A disk gets another one when what was written cannot be told any more."""
    sequence: int

    def __str__(self) -> str:
        return f"{self.uuid}/{self.sequence}"

    @staticmethod
    def of(text: str) -> Token:
        """From "uuid/sequence". Raises `UnknownToken` for anything else."""
        uuid, slash, sequence = text.rpartition("/")
        if not (slash and sequence.isascii() and sequence.isdigit()):
            raise UnknownToken(text)
        return Token(uuid, int(sequence))


@dataclass(slots=True)
class Layer:
    """What one step in the life of a disk holds."""

    id: str
    runs: Runs = field(default_factory=Runs)
    image: str = ""
    """The file that it shows; nobody writes there."""
    seed: str = ""
    """Of what it shows, if that is made up on demand."""
    grains: int = 0
    """So many are in its file."""

    @property
    def is_ours(self) -> bool:
        return not (self.image or self.seed)


@dataclass(slots=True)
class History:
    """When each grain was written last."""

    uuid: str = field(default_factory=lambda: str(uuid4()))
    sequence: int = 1
    is_told: bool = False
    """Somebody knows a token with this sequence: the next write is a later one."""
    is_over: bool = False
    """The disk of a snapshot: another disk goes on with it."""
    runs: Runs = field(default_factory=Runs)


class Contents:
    """See the module. Without a folder the files lie in a temporary one that goes with this object."""

    def __init__(self, folder: Path | None = None) -> None:
        self.is_kept = folder is not None
        self._folder = folder
        self._is_there = False
        self.layers: dict[str, Layer] = {}
        """Those that hold anything."""
        self.histories: dict[str, History] = {}
        """Disk -> its history, if anybody ever asked or a snapshot was taken."""
        self.sequence = 0
        """Grows with everything that should be saved."""
        self._is_loose = False
        """A disk has gone: there may be something to tidy."""
        self._logged: set[str] = set()
        """Histories of which the log says that they went on since the last saving."""

    # --- reading ------------------------------------------------------------------------------------------------------

    def reading(self, disk: Disk, offset: int, length: int) -> Reading:
        """For `Reading.read`, which needs no lock: files that go meanwhile are still there for it."""
        reading = Reading()
        try:
            for start, stop, layer in self._visible(disk, offset // GRAIN, _grains(offset + length)):
                begin, end = max(offset, start * GRAIN), min(offset + length, stop * GRAIN)
                if layer and not layer.seed and layer.id not in reading.files:
                    reading.files[layer.id] = self._open(layer)
                reading.pieces.append((begin, end, layer))
        except BaseException:
            reading.close()
            raise
        return reading

    def read(self, disk: Disk, offset: int, length: int) -> bytes:
        with self.reading(disk, offset, length) as reading:
            return reading.read()

    def _visible(self, disk: Disk, start: int, stop: int) -> Iterator[tuple[int, int, Layer | None]]:
        """Grains and the layer that shows there, None for zeros."""
        layers = [self.layers[id] for id in reversed(self.stack(disk))]
        waiting = [(start, stop, 0)] if start < stop else []
        while waiting:
            begin, end, depth = waiting.pop()
            if depth == len(layers):
                yield begin, end, None
                continue
            first, reached, mark = next(layers[depth].runs.cut(begin, end))
            if reached < end:
                waiting.append((reached, end, depth))
            if mark:
                yield first, reached, layers[depth] if mark == DATA else None
            else:
                waiting.append((first, reached, depth + 1))

    def stack(self, disk: Disk) -> tuple[str, ...]:
        """Its layers that hold anything, the lowest first."""
        return tuple(id for id in (*disk.layers, _top(disk)) if id in self.layers)

    # --- writing ------------------------------------------------------------------------------------------------------

    def missing(self, disk: Disk, offset: int, length: int) -> tuple[int, int]:
        """How many grains the disk's own layer has in its file, and how many more it would have with this written."""
        top = self.layers.get(_top(disk), Layer(""))
        pieces = top.runs.cut(offset // GRAIN, _grains(offset + length))
        return top.grains, sum(stop - start for start, stop, mark in pieces if mark != DATA)

    def write(self, disk: Disk, offset: int, data: bytes) -> None:
        if not data:
            return
        end, top = offset + len(data), self._own(disk)
        start, stop = offset // GRAIN, _grains(end)
        before = after = b""
        if offset % GRAIN and not top.runs.has(start, start + 1, DATA):
            before = self.read(disk, start * GRAIN, offset - start * GRAIN)
        whole = min(stop * GRAIN, disk.capacity)
        if end < whole and not top.runs.has(stop - 1, stop, DATA):
            after = self.read(disk, end, whole - end)
        # A layer that holds no data has no file, or one that a crash left behind.
        flags = os.O_WRONLY | os.O_CREAT | (0 if top.grains else os.O_TRUNC)
        file = os.open(self._path(top.id), flags, 0o600)
        try:
            _write(file, b"".join((before, data, after)) if before or after else data, offset - len(before))
        finally:
            os.close(file)
        self._hold(disk, top, start, stop, DATA)

    def zero(self, disk: Disk, offset: int, length: int) -> None:
        """Whole grains of it take no room."""
        end = offset + length
        start, stop = _grains(offset), end // GRAIN if end < disk.capacity else _grains(end)
        if start >= stop:
            self.write(disk, offset, bytes(length))
            return
        self.write(disk, offset, bytes(start * GRAIN - offset))
        self._hold(disk, self._own(disk), start, stop, ZERO)
        self.write(disk, stop * GRAIN, bytes(max(0, end - stop * GRAIN)))

    def _own(self, disk: Disk) -> Layer:
        """The layer to write to; known to `layers` once it holds something."""
        return self.layers.get(_top(disk)) or Layer(_top(disk))

    def _hold(self, disk: Disk, layer: Layer, start: int, stop: int, mark: int) -> None:
        self.sequence += 1
        if not layer.runs.has(start, stop, mark):
            had = sum(end - begin for begin, end, old in layer.runs.cut(start, stop) if old == DATA)
            layer.grains += (stop - start if mark == DATA else 0) - had
            layer.runs.put(start, stop, mark)
            self._log("held", layer.id, start, stop, mark)
        self.layers[layer.id] = layer
        history = self.histories.get(disk.id)
        if history and history.is_over:
            # Two disks with one history would give one token to two moments.
            self.forget(disk.id)
        elif history:
            self._went_on(history, start, stop)

    # --- making disks out of disks ------------------------------------------------------------------------------------

    def share(self, source: Disk, copy: Disk) -> None:
        """The copy, new and empty, holds what the source holds; from now on each goes its own way."""
        if _top(source) in self.layers:
            source.layers = (*source.layers, _top(source))
            source.top = uuid4().hex
        copy.layers = source.layers
        self.sequence += 1

    def show(self, disk: Disk, layer: Layer) -> None:
        """From now on the disk holds this and nothing else."""
        self.layers[layer.id] = layer
        disk.layers, disk.top = (layer.id,), uuid4().hex
        self.histories.pop(disk.id, None)
        self._is_loose = True
        self.sequence += 1

    # --- what is held, what has changed -------------------------------------------------------------------------------

    def allocated(self, disk: Disk) -> list[Area]:
        """Everywhere else it is zero."""
        found = self._visible(disk, 0, _grains(disk.capacity))
        return _areas(((start, stop) for start, stop, layer in found if layer), disk.capacity)

    def differing(self, disk: Disk, other: Disk) -> list[Area]:
        """Everywhere else the two hold the same."""
        apart = set(self.stack(disk)) ^ set(self.stack(other))
        marked = Runs()
        for id in apart:
            for start, stop, _ in self.layers[id].runs:
                marked.put(start, stop, DATA)
        return _areas(((start, stop) for start, stop, _ in marked), disk.capacity)

    def token(self, disk: Disk) -> Token:
        history = self.histories.setdefault(disk.id, History())
        self.sequence += not history.is_told
        history.is_told = True
        return Token(history.uuid, history.sequence)

    def changed(self, disk: Disk, since: Token) -> list[Area]:
        """Raises `UnknownToken`."""
        history = self.histories.get(disk.id)
        if history is None or history.uuid != since.uuid or not 0 < since.sequence <= history.sequence:
            raise UnknownToken(f"{since} of disk {disk.id}")
        later = ((start, stop) for start, stop, at in history.runs if at > since.sequence)
        return _areas(later, disk.capacity)

    def forget(self, disk: str) -> None:
        """Its history is another one from now on."""
        if self.histories.pop(disk, None):
            self.sequence += 1
            self._log("forgot", disk)

    def hand_on(self, disk: str, successor: str) -> None:
        """The successor, which holds the same, goes on with the history."""
        history = self.histories.setdefault(disk, History())
        self.histories[successor] = History(history.uuid, history.sequence, True, False, history.runs.copy())
        history.is_told = history.is_over = True

    def _went_on(self, history: History, start: int, stop: int) -> None:
        if history.is_told:
            history.sequence, history.is_told = history.sequence + 1, False
        history.runs.put(start, stop, history.sequence)
        if history.uuid not in self._logged:
            self._logged.add(history.uuid)
            self._log("went on", history.uuid)

    # --- going away ---------------------------------------------------------------------------------------------------

    def drop(self, disk: Disk, disks: Mapping[str, Disk]) -> None:
        """It has gone from these, which are all there are."""
        self.histories.pop(disk.id, None)
        self._is_loose = True
        self.sequence += 1
        if not self.is_kept and _top(disk) in self.layers:
            self.tidy(disks)

    def tidy(self, disks: Mapping[str, Disk]) -> None:
        """Removes layers that no disk has, and joins those that show only together. Kept contents: after saving."""
        if not self._is_loose:
            return
        self._is_loose = False
        stacks = {self.stack(disk) for disk in disks.values()}
        used = {layer for stack in stacks for layer in stack}
        for id in self.layers.keys() - used:
            self._remove(id)
        above: dict[str, set[str]] = {}
        for stack in stacks:
            for lower, upper in pairwise((*stack, "")):
                above.setdefault(lower, set()).add(upper)
        for stack in sorted(stacks, key=len, reverse=True):
            for lower, upper in reversed(list(pairwise(stack))):
                if above.get(lower) == {upper} and self._can_join(lower, upper):
                    above[lower] = above.pop(upper)
                    self._join(lower, upper, disks)

    def _can_join(self, lower: str, upper: str) -> bool:
        return all(id in self.layers and self.layers[id].is_ours for id in (lower, upper))

    def _join(self, lower: str, upper: str, disks: Mapping[str, Disk]) -> None:
        """Both become the lower one. Whoever reads meanwhile, or comes after a crash, finds the same bytes."""
        self._move(self.layers[upper], self.layers[lower])
        self._log("joined", lower, upper)
        self._join_runs(lower, upper)
        self._unlink(upper)
        for disk in disks.values():
            if lower not in disk.layers:
                continue
            layers = tuple(id for id in disk.layers if id != upper)
            if _top(disk) == upper:
                disk.layers, disk.top = tuple(id for id in layers if id != lower), lower
            else:
                disk.layers = layers

    def _move(self, source: Layer, target: Layer) -> None:
        """The source's data into the target's file."""
        if not source.grains:
            return
        reader = os.open(self._path(source.id), os.O_RDONLY)
        writer = os.open(self._path(target.id), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            for start, stop, mark in source.runs:
                for at in range(start * GRAIN, stop * GRAIN, PIECE) if mark == DATA else ():
                    _write(writer, _exactly(reader, at, min(at + PIECE, stop * GRAIN)), at)
        finally:
            os.close(reader)
            os.close(writer)

    def _join_runs(self, lower: str, upper: str) -> None:
        kept, gone = self.layers.get(lower), self.layers.get(upper)
        if gone is None:
            return
        kept = kept or Layer(lower)
        for start, stop, mark in gone.runs:
            kept.runs.put(start, stop, mark)
        kept.grains = _in_file(kept.runs)
        self.layers[lower] = kept
        del self.layers[upper]

    def _remove(self, layer: str) -> None:
        if self.layers.pop(layer).is_ours:
            self._unlink(layer)

    def _unlink(self, layer: str) -> None:
        self.sequence += 1
        if self._folder:
            (self._folder / f"{layer}.raw").unlink(missing_ok=True)

    # --- saving -------------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Raises ValueError if there are bytes that lie in no lasting place."""
        if not self.is_kept and any(layer.is_ours for layer in self.layers.values()):
            raise ValueError("A world whose disks hold anything needs a folder to outlive its process.")
        return {
            "layers": [[one.id, one.runs.flat(), one.image, one.seed] for one in self.layers.values()],
            "histories": [
                [disk, one.uuid, one.sequence, one.is_over, one.runs.flat()] for disk, one in self.histories.items()
            ],
        }

    def saved(self, disks: Mapping[str, Disk]) -> None:
        """What `dump` gave is safe, and nothing has happened since."""
        if self.is_kept:
            self._log_path.unlink(missing_ok=True)
            self._logged.clear()
        self.tidy(disks)

    def restore(self, data: Mapping[str, Any]) -> None:
        """As it was dumped, and what the log says came after. Raises ValueError without the folder."""
        if not self.is_kept and any(not (image or seed) for _, _, image, seed in data["layers"]):
            raise ValueError("The bytes of these disks lie in a folder; the world needs it.")
        for id, flat, image, seed in data["layers"]:
            self.layers[id] = Layer(id, Runs(flat), image, seed, _in_file(Runs(flat)))
        for disk, uuid, sequence, is_over, flat in data["histories"]:
            # A token may have been given out after the saving.
            self.histories[disk] = History(uuid, sequence, True, is_over, Runs(flat))
        self._is_loose = True
        if self.is_kept:
            self._replay()
            self._sweep()

    def _replay(self) -> None:
        if not self._log_path.exists():
            return
        for line in self._log_path.read_text().splitlines():
            try:
                what, *rest = json.loads(line)
            except ValueError:
                # The process died while it wrote this: nobody was told yet that it is done.
                continue
            self._again(what, rest)
        self.sequence += 1

    def _again(self, what: str, rest: Sequence[Any]) -> None:
        if what == "held":
            id, start, stop, mark = rest
            layer = self.layers.setdefault(id, Layer(id))
            layer.runs.put(start, stop, mark)
            layer.grains = _in_file(layer.runs)
        elif what == "joined":
            # The file of the upper one stays: somebody may have begun it anew.
            self._join_runs(*rest)
        elif what == "forgot":
            self.histories.pop(rest[0], None)
        elif what == "went on":
            for disk, history in list(self.histories.items()):
                if history.uuid == rest[0] and not history.is_over:
                    del self.histories[disk]

    def _sweep(self) -> None:
        """Files that nobody knows: what a crash left behind."""
        for path in self._place.glob("*.raw") if self._place.exists() else ():
            layer = self.layers.get(path.stem)
            if layer is None or not layer.grains:
                path.unlink(missing_ok=True)

    def _log(self, *record: object) -> None:
        if not self.is_kept:
            return
        self._place.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("a") as log:
            # In front too: the last line may be half of one.
            log.write(f"\n{json.dumps(record)}\n")

    # --- files --------------------------------------------------------------------------------------------------------

    @property
    def _place(self) -> Path:
        """Made when first asked for, unless it is a lasting one: that comes with the first file."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="lab-disks-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    @property
    def _log_path(self) -> Path:
        return self._place / "held.log"

    def _path(self, layer: str) -> Path:
        if not self._is_there:
            self._place.mkdir(parents=True, exist_ok=True)
            self._is_there = True
        return self._place / f"{layer}.raw"

    def _open(self, layer: Layer) -> int:
        try:
            return os.open(layer.image or self._path(layer.id), os.O_RDONLY)
        except FileNotFoundError as missing:
            raise NoSuch(f"file {missing.filename}, which holds what is on the disk") from missing


@dataclass(slots=True)
class Reading:
    """Pieces of a disk and where each lies, fixed at one moment."""

    pieces: list[tuple[int, int, Layer | None]] = field(default_factory=list)
    """From, to, layer."""
    files: dict[str, int] = field(default_factory=dict)
    """Layer -> its file, open."""

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> bytes:
        return b"".join(self._piece(*piece) for piece in self.pieces)

    def close(self) -> None:
        while self.files:
            os.close(self.files.popitem()[1])

    def _piece(self, start: int, stop: int, layer: Layer | None) -> bytes:
        if layer is None:
            return bytes(stop - start)
        return _seeded(layer.seed, start, stop) if layer.seed else _exactly(self.files[layer.id], start, stop)


def image_layer(path: Path) -> tuple[Layer, int]:
    """Shows that file, which must stay; and the file's size. Its holes are none of it."""
    layer = Layer(uuid4().hex, image=str(path.absolute()))
    file = os.open(path, os.O_RDONLY)
    try:
        size, at = os.fstat(file).st_size, 0
        while at < size:
            try:
                start = os.lseek(file, at, os.SEEK_DATA)
            except OSError:
                break  # ENXIO: no data any more
            at = os.lseek(file, start, os.SEEK_HOLE)
            layer.runs.put(start // GRAIN, _grains(at), DATA)
    finally:
        os.close(file)
    return layer, size


def seeded_layer(seed: str, capacity: int) -> Layer:
    """The same bytes for the same seed and size, made up when somebody reads them."""
    layer, chance = Layer(uuid4().hex, seed=seed), random.Random(f"{seed} areas")
    last, size = capacity // GRAIN, PIECE // GRAIN
    for start in (0, *(chance.randrange(last) for _ in range(SEEDED_AREAS - 1))) if last else ():
        layer.runs.put(start, min(last, start + size), DATA)
    return layer


def _top(disk: Disk) -> str:
    return disk.top or disk.id


def _grains(end: int) -> int:
    """How many it takes to reach so far."""
    return -(-end // GRAIN)


def _in_file(runs: Runs) -> int:
    return sum(stop - start for start, stop, mark in runs if mark == DATA)


def _areas(grains: Iterable[tuple[int, int]], capacity: int) -> list[Area]:
    """In bytes, neighbours as one; the grains come in their order."""
    found: list[Area] = []
    for start, stop in grains:
        offset, end = start * GRAIN, min(stop * GRAIN, capacity)
        if found and found[-1].offset + found[-1].length == offset:
            offset = found.pop().offset
        if offset < end:
            found.append(Area(offset, end - offset))
    return found


def _seeded(seed: str, start: int, stop: int) -> bytes:
    first = start // GRAIN
    grains = (random.Random(f"{seed} {grain}").randbytes(GRAIN) for grain in range(first, _grains(stop)))
    return b"".join(grains)[start - first * GRAIN : stop - first * GRAIN]


def _exactly(file: int, start: int, stop: int) -> bytes:
    """The file ends where its last data end; all behind is zero."""
    found = bytearray()
    while len(found) < stop - start and (part := os.pread(file, stop - start - len(found), start + len(found))):
        found += part
    return bytes(found) + bytes(stop - start - len(found))


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
