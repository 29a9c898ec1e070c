"""A copy into the vault reads back as what was written, whatever its base."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disks.base import Extent
from disks.copying import copy
from disks.errors import OutOfSpace, SinkRefused
from disks.vault import objects, writing
from disks.vault.points import RecoveryPoint
from disks.vault.vault import Vault
from tests.disks.memory import MemorySource
from tests.disks.vault.judging import CHUNK, commit
from tests.disks.vault.stores import MemoryStore

PATTERNS = st.sampled_from([b"\0", b"a", b"b"])


@dataclass(frozen=True)
class Change:
    offset: int
    length: int
    filling: bytes
    as_zero: bool


@st.composite
def generations(draw: st.DrawFn) -> list[tuple[int, list[Change]]]:
    """Sizes of a disk and what is written of it, sorted; the first is a whole disk."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 5 * CHUNK))
        cuts = sorted(draw(st.sets(st.one_of(st.integers(0, size), st.integers(0, size // CHUNK).map(CHUNK.__mul__)))))
        changes = [
            Change(start, end - start, draw(PATTERNS), draw(st.booleans()))
            for start, end in pairwise(cuts)
            if draw(st.booleans())
        ]
        made.append((size, changes))
    return made


def read_back(vault: Vault, point: RecoveryPoint) -> bytes:
    disk = vault.open_disk(point, "vda")
    content = bytearray()
    for extent in disk.extents():
        assert extent.offset == len(content)
        data = disk.read(extent.offset, extent.length)
        assert not extent.is_zero or not any(data)
        content += data
    assert len(content) == disk.size
    return bytes(content)


@given(made=generations(), threads=st.sampled_from([0, 2]))
def test_any_sorted_writes_over_any_base_read_back(made: list[tuple[int, list[Change]]], threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Leaves of two chunks, so that a disk has several.
        for module in (objects, writing):
            patch.setattr(module, "LEAF_CHUNKS", 2)
            patch.setattr(module, "LEAF_SIZE", 64)
        patch.setattr("disks.vault.reading.LEAF_CHUNKS", 2)
        vault = Vault.create(MemoryStore(), chunk_size=CHUNK)
        base, expected = None, bytearray()
        for size, changes in made:
            run = vault.begin("here", "desk", base, threads=threads)
            disk = run.disk("vda", size)
            expected = expected[:size].ljust(size, b"\0")
            for change in changes:
                content = bytes(change.length) if change.as_zero else change.filling * change.length
                expected[change.offset : change.offset + change.length] = content
                if change.as_zero:
                    disk.zero(change.offset, change.length)
                else:
                    disk.write(change.offset, content)
            disk.commit()
            base = commit(run)
            assert read_back(vault, base) == expected


def test_an_unchanged_disk_stores_nothing_anew() -> None:
    store = MemoryStore()
    vault = Vault.create(store, chunk_size=CHUNK)
    content = b"a" * CHUNK + b"b" * CHUNK + bytes(CHUNK)
    points = []
    for _ in range(2):
        run = vault.begin("here", "desk")
        disk = run.disk("vda", len(content))
        copy(MemorySource(content), disk)
        disk.commit()
        points.append(commit(run))
    assert points[0].disks[0].leaves == points[1].disks[0].leaves
    assert (run.tally.new_chunks, run.tally.new_bytes, run.tally.shared_chunks) == (0, 0, 2)
    assert run.tally.read_bytes == len(content)
    assert len([name for name in store.objects if name.startswith("chunks/")]) == 2


def test_a_small_change_is_merged_into_the_bases_chunk() -> None:
    vault = Vault.create(MemoryStore(), chunk_size=CHUNK)
    content = bytearray(b"a" * CHUNK + b"b" * CHUNK)
    run = vault.begin("here", "desk")
    disk = run.disk("vda", len(content))
    disk.write(0, bytes(content))
    disk.commit()
    base = commit(run)

    content[CHUNK + 7 : CHUNK + 17] = b"x" * 10
    source = MemorySource(bytes(content), [Extent(CHUNK + 7, 10)])
    run = vault.begin("here", "desk", base)
    disk = run.disk("vda", len(content))
    copy(source, disk)
    disk.commit()
    assert read_back(vault, commit(run)) == content
    assert source.reads == [(CHUNK + 7, 10)]
    assert (run.tally.new_chunks, run.tally.read_bytes) == (1, 10)


def test_a_linked_clones_first_copy_inherits_from_its_template() -> None:
    vault = Vault.create(MemoryStore(), chunk_size=CHUNK)
    run = vault.begin("here", "template")
    disk = run.disk("golden", CHUNK)
    disk.write(0, b"g" * CHUNK)
    disk.commit()
    template = commit(run)
    run = vault.begin("here", "desk", template)
    run.disk("vda", CHUNK, base_disk="golden").commit()
    assert read_back(vault, commit(run)) == b"g" * CHUNK


def test_offsets_that_fall_or_leave_the_disk_are_refused() -> None:
    run = Vault.create(MemoryStore(), chunk_size=CHUNK).begin("here", "desk", threads=0)
    disk = run.disk("vda", CHUNK)
    disk.write(10, b"a")
    with pytest.raises(ValueError, match="offsets rise"):
        disk.write(10, b"a")
    with pytest.raises(SinkRefused):
        disk.write(CHUNK - 1, b"aa")
    run.abandon()


def test_a_disk_that_is_not_committed_is_in_no_point() -> None:
    vault = Vault.create(MemoryStore(), chunk_size=CHUNK)
    run = vault.begin("here", "desk")
    run.disk("vda", CHUNK)
    with pytest.raises(ValueError, match="not committed"):
        commit(run)
    run.abandon()
    run.abandon()
    assert not vault.point_ids()
    assert not vault.runs()


def test_a_full_vault_ends_the_copy_and_leaves_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    vault = Vault.create(store, chunk_size=CHUNK)
    run = vault.begin("here", "desk")
    disk = run.disk("vda", 64 * CHUNK)

    def refuse(name: str, content: bytes) -> None:
        raise OutOfSpace("full")

    monkeypatch.setattr(store, "put", refuse)
    with pytest.raises(OutOfSpace):  # noqa: PT012 - it may come with a later write
        for index in range(64):
            disk.write(index * CHUNK, bytes([index + 1]) * CHUNK)
        disk.commit()
    run.abandon()
    assert not vault.point_ids()


def test_a_slow_store_holds_the_writer_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a fast source would fill the memory."""
    store = MemoryStore()
    vault = Vault.create(store, chunk_size=CHUNK)
    run = vault.begin("here", "desk", threads=2)
    disk = run.disk("vda", 64 * CHUNK)
    may_go, put = threading.Event(), store.put

    def wait(name: str, content: bytes) -> None:
        may_go.wait()
        put(name, content)

    monkeypatch.setattr(store, "put", wait)
    written = 0

    def write() -> None:
        nonlocal written
        for index in range(64):
            disk.write(index * CHUNK, bytes([index + 1]) * CHUNK)
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(0.2)
    assert written <= run.window + 2
    may_go.set()
    writer.join()
    disk.commit()
    commit(run)
