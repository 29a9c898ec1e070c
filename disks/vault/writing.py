"""One copy into the vault: what is there already is shared, what was not read is inherited from the base point."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from disks.base import Extent
from disks.errors import Damaged, NotFound, Refused, SinkRefused
from disks.vault.objects import CHUNKS, LEAF_CHUNKS, LEAF_SIZE, LEAVES, NOTHING, Objects
from disks.vault.points import Configuration, DiskTree, Origin, RecoveryPoint
from disks.vault.sealing import DIGEST


@dataclass(frozen=True, slots=True)
class Tally:
    """What a run has done so far."""

    read_bytes: int = 0
    """Handed to it as data."""
    new_bytes: int = 0
    """Stored anew in the vault, compressed."""
    new_chunks: int = 0
    shared_chunks: int = 0
    """Written, and found in the vault."""


class Books(Protocol):
    """What a run needs of its vault's lists."""

    def is_open(self, run_id: str) -> bool: ...
    def end_run(self, run_id: str) -> None: ...
    def enter(self, point: RecoveryPoint) -> None: ...
    def delete_point(self, point_id: str) -> None: ...
    def has_point(self, point_id: str) -> bool: ...


class Run:
    """A copy of a machine's disks in the making. Registered in the vault until `commit` or `abandon`.

    If this process dies it stays registered, and keeps from collection what it may have seen, until its owner calls
    `vault.end_run(id)`.
    """

    def __init__(
        self,
        objects: Objects,
        books: Books,
        *,
        id: str,
        installation: str,
        source: str,
        base: RecoveryPoint | None,
        threads: int,
    ) -> None:
        self.id, self.installation, self.source, self.base = id, installation, source, base
        self._objects, self._books = objects, books
        self._broken = objects.broken()
        self._guard = threading.Lock()
        self._tally = Tally()
        self._disks: dict[str, VaultDisk] = {}
        self.window = max(1, threads * 2)
        """Chunks of a disk in memory at any time."""
        self.pool: Executor = ThreadPoolExecutor(threads, thread_name_prefix="vault") if threads else _Here()

    @property
    def tally(self) -> Tally:
        return self._tally

    def disk(self, name: str, size: int, *, base_disk: str | None = None) -> VaultDisk:
        """A sink for one disk. What is not written is as in the base point's disk of that name (or of `base_disk`).

        A disk that the base has not begins as zeros. Raises ValueError for a second disk of one name.
        """
        if name in self._disks:
            raise ValueError(f"disk {name!r} is in this run already")
        self._disks[name] = VaultDisk(self, self._objects, name, size, self._base_disk(base_disk or name))
        return self._disks[name]

    def must_read(self, name: str) -> list[Extent]:
        """What of the base of this run's disk is damaged in the vault, whether or not it changed since. Sorted.

        Copy it with what changed (`disks.extents.Widened`), or the run will end as `Damaged`.
        """
        return self._disks[name].must_read()

    def _base_disk(self, name: str) -> DiskTree | None:
        if self.base is None:
            return None
        return next((disk for disk in self.base.disks if disk.name == name), None)

    def commit(self, *, origin: Origin, configuration: Configuration, read_at: datetime) -> RecoveryPoint:
        """Checks that all of the new point is in the vault, then writes it. Until this returns there is no point.

        Every disk must have been committed before (ValueError). Raises `Damaged` if something of it is missing or known
        to be broken: the next run names those areas in `must_read`. Raises `Refused` if the run was ended meanwhile.
        After a failure the run is still open: abandon it.
        """
        if unfinished := [name for name, disk in self._disks.items() if disk.tree is None]:
            raise ValueError(f"these disks are not committed: {', '.join(unfinished)}")
        trees = tuple(disk.tree for disk in self._disks.values() if disk.tree is not None)
        point = RecoveryPoint(
            id=self.id,
            installation=self.installation,
            source=self.source,
            read_at=read_at,
            origin=origin,
            configuration=configuration,
            disks=trees,
        )
        self._require_open()
        is_vouched_for = self._has_a_safe_base()
        for tree in trees:
            self._require_whole(tree, self._disks[tree.name].base if is_vouched_for else None)
        self._books.enter(point)
        # Ended by its owner between the check and now, it was not protected: nobody can say that all is still there.
        if not self._books.is_open(self.id):
            self._books.delete_point(self.id)
            self._require_open()
        self._books.end_run(self.id)
        self.pool.shutdown()
        return point

    def _require_open(self) -> None:
        if not self._books.is_open(self.id):
            raise Refused(f"Run {self.id} was ended by its owner while it still worked. Begin a new one.")

    def _has_a_safe_base(self) -> bool:
        """Whether what is inherited need not be looked at, because the base point vouches for it: without this, a
        small change of a large disk would cost as much as the disk is large.

        Only a collection that noted the open copies before this one began may delete what this one inherits. It has a
        mark until it has ended; and in its end it moved back what the base refers to, if that is a point to this day.
        """
        if self.base is None or self._objects.broken() or any(True for _ in self._objects.marks()):
            return False
        # Asked after the marks: it was a point until the last of them had ended.
        return self._books.has_point(self.base.id)

    def _require_whole(self, tree: DiskTree, base: DiskTree | None) -> None:
        """All leaves and chunks of a disk are in their places; those in the trash are taken back. Of what the base has
        at the same place nothing need be seen."""
        broken = self._objects.broken()
        known = dict(enumerate(base.leaves)) if base is not None else {}
        looked_at: set[str] = set()
        for number, leaf in enumerate(tree.leaves):
            if not leaf or leaf in looked_at or leaf == known.get(number):
                continue
            looked_at.add(leaf)
            names = {name for name in self._readable(leaf) if name}
            if known.get(number):
                names -= set(self._readable(known[number]))
            if found := (names | {leaf}) & broken:
                raise Damaged(
                    f"{len(found)} objects of disk {tree.name} are damaged. Copy it again: they are read anew."
                )
            places = {self._objects.place(CHUNKS, name): name for name in names}
            places[self._objects.place(LEAVES, leaf)] = leaf
            for place in sorted(places.keys() - self._objects.store.present(places.keys())):
                if not self._objects.take_back(place):
                    self._objects.note_broken(places[place])
                    raise Damaged(f"{place} of disk {tree.name} is missing. Copy it again: it is read anew.")

    def _readable(self, leaf: str) -> list[str]:
        try:
            return self._objects.chunk_names(leaf)
        except (Damaged, NotFound) as error:
            self._objects.note_broken(leaf)
            raise Damaged(f"{error.message} Copy it again: it is read anew.") from error

    def abandon(self) -> None:
        """Ends the run without a point. What it stored is left to the next collection. Idempotent.

        Raises `StoreLost` if the vault does not answer: the run then stays registered until `vault.end_run`.
        """
        for disk in self._disks.values():
            disk.abandon()
        self.pool.shutdown()
        self._books.end_run(self.id)

    # --- for its disks ------------------------------------------------------------------------------------------------

    def knows_damage(self) -> bool:
        return bool(self._broken)

    def is_broken(self, name: str) -> bool:
        return name in self._broken

    def keep(self, kind: str, name: str, content: bytes) -> None:
        """Store it unless it is there. In the trash is not there; what is broken is replaced and healed by it."""
        is_broken = name in self._broken
        if not is_broken and self._objects.store.exists(self._objects.place(kind, name)):
            self.count(shared_chunks=int(kind == CHUNKS))
            return
        stored = self._objects.write(kind, name, content)
        if is_broken:
            self._objects.note_healed(name)
            self._broken.discard(name)
        self.count(new_bytes=stored, new_chunks=int(kind == CHUNKS))

    def read(self, kind: str, name: str) -> bytes:
        """Of the base; what turns out to be damaged is noted, so that the next run reads it from the source."""
        try:
            return self._objects.read(kind, name)
        except (Damaged, NotFound) as error:
            self._objects.note_broken(name)
            raise Damaged(f"The base point is damaged: {error.message} Copy again: it is read anew.") from error

    def count(self, **more: int) -> None:
        with self._guard:
            now = self._tally
            self._tally = replace(now, **{field: getattr(now, field) + number for field, number in more.items()})


@dataclass(frozen=True, slots=True)
class _Piece:
    """What was written of a chunk, from `start` on."""

    start: int
    length: int
    data: bytes | None
    """None: zeros."""


class VaultDisk:
    """One disk of a run, as a sink. Chunks are made and stored by the run's threads, a few at a time."""

    def __init__(self, run: Run, objects: Objects, name: str, size: int, base: DiskTree | None) -> None:
        self.name, self.size = name, size
        self.tree: DiskTree | None = None
        """The disk as it lies in the vault, once it is committed."""
        self._run, self._objects, self.base = run, objects, base
        self._chunk = objects.chunk_size
        self._chunks = -(-size // self._chunk)
        leaves = -(-self._chunks // LEAF_CHUNKS)
        inherited = list(base.leaves[:leaves]) if base else []
        self._leaves = inherited + [""] * (leaves - len(inherited))
        self._at = 0
        self._index = -1
        """The chunk that `_pieces` are of."""
        self._pieces: list[_Piece] = []
        self._open_leaf = -1
        self._names = bytearray(LEAF_SIZE)
        self._unwritten = 0
        """Chunks of the open leaf that must still come, since the base's leaf is damaged."""
        self._waiting: deque[tuple[int, Future[bytes]]] = deque()
        self._is_over = False

    def write(self, offset: int, data: bytes) -> None:
        self._advance(offset, len(data))
        self._run.count(read_bytes=len(data))
        done = 0
        while done < len(data):
            index, start = divmod(offset + done, self._chunk)
            length = min(self._chunk - start, len(data) - done)
            self._add(index, _Piece(start, length, data if length == len(data) else data[done : done + length]))
            done += length

    def zero(self, offset: int, length: int) -> None:
        self._advance(offset, length)
        while length:
            index, start = divmod(offset, self._chunk)
            whole = 0 if start else length // self._chunk
            if not start and offset + length == self.size:
                whole = self._chunks - index
            if whole:
                self._add_zeros(index, whole)
                part = min(whole * self._chunk, length)
            else:
                part = min(self._chunk - start, length)
                self._add(index, _Piece(start, part, None))
            offset, length = offset + part, length - part

    def _advance(self, offset: int, length: int) -> None:
        if self._is_over:
            raise ValueError("this copy has ended")
        if offset < self._at:
            raise ValueError(f"offsets rise: {offset} after {self._at}")
        if offset + length > self.size:
            raise SinkRefused(
                f"Disk {self.name} ends at {self.size}, and there is more at {offset}. Read its size anew."
            )
        self._at = offset + length

    # --- chunks -------------------------------------------------------------------------------------------------------

    def _add(self, index: int, piece: _Piece) -> None:
        if index != self._index:
            self._finish_chunk()
            self._index = index
        self._pieces.append(piece)

    def _finish_chunk(self) -> None:
        """Hands the chunk on to the threads."""
        index, pieces = self._index, self._pieces
        self._index, self._pieces = -1, []
        if index < 0:
            return
        place = self._turn_to(index)
        base = bytes(self._names[place * DIGEST : (place + 1) * DIGEST])
        while len(self._waiting) >= self._run.window:
            self._await_one()
        # The last chunk's rest beyond the end of the disk is zeros.
        valid = min(self._chunk, self.size - index * self._chunk)
        self._waiting.append((place, self._run.pool.submit(self._make, valid, pieces, base)))
        if sum(piece.length for piece in pieces) == valid:
            self._unwritten -= 1

    def _make(self, valid: int, pieces: list[_Piece], base: bytes) -> bytes:
        """The chunk's name, once it is in the vault. Runs in a thread."""
        content = self._content(valid, pieces, base)
        if content == self._objects.zeros:
            return NOTHING
        name = self._objects.seal.name(content)
        if name == base and not self._run.is_broken(name.hex()):
            self._run.count(shared_chunks=1)
        else:
            self._run.keep(CHUNKS, name.hex(), content)
        return name

    def _content(self, valid: int, pieces: list[_Piece], base: bytes) -> bytes:
        if len(pieces) == 1 and pieces[0].data is not None and len(pieces[0].data) == self._chunk:
            return pieces[0].data
        is_whole = sum(piece.length for piece in pieces) == valid
        if is_whole or base == NOTHING:
            content = bytearray(self._chunk)
        else:
            content = bytearray(self._run.read(CHUNKS, base.hex()))
            content[valid:] = bytes(self._chunk - valid)
        for piece in pieces:
            content[piece.start : piece.start + piece.length] = (
                bytes(piece.length) if piece.data is None else piece.data
            )
        return bytes(content)

    def _add_zeros(self, index: int, count: int) -> None:
        self._finish_chunk()
        while count:
            leaf, place = divmod(index, LEAF_CHUNKS)
            part = min(count, LEAF_CHUNKS - place)
            if part == LEAF_CHUNKS:
                self._leaves[leaf] = ""  # whatever the base has there need not be read
            else:
                self._turn_to(index)
                self._names[place * DIGEST : (place + part) * DIGEST] = bytes(part * DIGEST)
                self._unwritten -= part
            index, count = index + part, count - part

    # --- leaves -------------------------------------------------------------------------------------------------------

    def _turn_to(self, index: int) -> int:
        """Opens the chunk's leaf; its place in it."""
        leaf, place = divmod(index, LEAF_CHUNKS)
        if leaf != self._open_leaf:
            self._finish_leaf()
            name = self._leaves[leaf]
            is_broken = self._run.is_broken(name)
            content = self._run.read(LEAVES, name) if name and not is_broken else bytes(LEAF_SIZE)
            self._names = bytearray(content)
            in_leaf = min(LEAF_CHUNKS, self._chunks - leaf * LEAF_CHUNKS)
            self._names[in_leaf * DIGEST :] = bytes((LEAF_CHUNKS - in_leaf) * DIGEST)
            self._unwritten = in_leaf if is_broken else 0
            self._open_leaf = leaf
        return place

    def _finish_leaf(self) -> None:
        if self._open_leaf < 0:
            return
        while self._waiting:
            self._await_one()
        if self._unwritten > 0:
            raise Damaged(
                f"Disk {self.name}: a damaged area of the base was not read whole. Copy what `must_read` names."
            )
        content = bytes(self._names)
        if content == bytes(LEAF_SIZE):
            self._leaves[self._open_leaf] = ""
        else:
            name = self._objects.seal.name(content).hex()
            if name != self._leaves[self._open_leaf] or self._run.is_broken(name):
                self._run.keep(LEAVES, name, content)
            self._leaves[self._open_leaf] = name
        self._open_leaf = -1

    def _await_one(self) -> None:
        place, future = self._waiting.popleft()
        self._names[place * DIGEST : (place + 1) * DIGEST] = future.result()

    # --- the end ------------------------------------------------------------------------------------------------------

    def must_read(self) -> list[Extent]:
        found: list[Extent] = []
        for number, leaf in enumerate(self._leaves if self._run.knows_damage() else ()):
            for place in self._damaged(leaf):
                start = (number * LEAF_CHUNKS + place) * self._chunk
                end = min(start + self._chunk, self.size)
                if start >= end:
                    break
                if found and found[-1].end == start:
                    start = found.pop().offset
                found.append(Extent(start, end - start))
        return found

    def _damaged(self, leaf: str) -> list[int]:
        """Places in a leaf whose content is lost."""
        if not leaf:
            return []
        if not self._run.is_broken(leaf):
            content = self._run.read(LEAVES, leaf)
            names = [content[at : at + DIGEST].hex() for at in range(0, LEAF_SIZE, DIGEST)]
            return [place for place, name in enumerate(names) if self._run.is_broken(name)]
        return list(range(LEAF_CHUNKS))

    def commit(self) -> None:
        """All of it is in the vault; there is a copy once the run is committed too. Idempotent."""
        if self.tree is not None:
            return
        if self._is_over:
            raise ValueError("this copy has ended")
        last = self._chunks - 1
        was_cut = self.base is not None and self.base.size > self.size
        if was_cut and last >= 0 and self._at <= last * self._chunk and self._index != last:
            # What the base has beyond the new end must not come back when the disk grows again.
            self._add(last, _Piece(0, 0, None))
        self._finish_chunk()
        self._finish_leaf()
        self.tree = DiskTree(self.name, self.size, tuple(self._leaves))
        self._is_over = True

    def abandon(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()


class _Here(Executor):
    """Does at once what it is handed, in the caller's thread."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*args, **kwargs))
        return future
