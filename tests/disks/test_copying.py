"""The pump between a source and a sink."""

from __future__ import annotations

import threading
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disks.ahead import ahead
from disks.base import Extent
from disks.copying import BLOCK, GRAIN, WINDOW, Progress, copy
from disks.errors import Cancelled, OutOfSpace, SourceLost
from disks.throttle import Throttle
from tests.disks.memory import MemorySink, MemorySource


@given(
    pieces=st.lists(
        st.tuples(st.sampled_from([1, 4096, GRAIN - 1, GRAIN, 2 * GRAIN]), st.sampled_from(b"\0ab")), max_size=12
    )
)
def test_every_byte_arrives_and_whole_grains_of_zeros_do_not_travel(pieces: list[tuple[int, int]]) -> None:
    content = b"".join(bytes([letter]) * length for length, letter in pieces)
    sink = MemorySink(b"\xff" * len(content))
    copy(MemorySource(content), sink)
    assert sink.content == content
    grains = [content[at : at + GRAIN] for at in range(0, len(content), GRAIN)]
    assert sink.zeroed == sum(len(grain) for grain in grains if not any(grain))


def test_only_what_the_source_names_is_read_and_written() -> None:
    content = b"a" * (3 * BLOCK)
    source = MemorySource(
        content, [Extent(10, 5), Extent(BLOCK, BLOCK, is_zero=True), Extent(2 * BLOCK + 1, BLOCK - 1)]
    )
    sink = MemorySink(b"o" * len(content))
    copy(source, sink)
    expected = bytearray(b"o" * len(content))
    expected[10:15] = b"a" * 5
    expected[BLOCK : 2 * BLOCK] = bytes(BLOCK)
    expected[2 * BLOCK + 1 :] = b"a" * (BLOCK - 1)
    assert sink.content == expected
    assert sorted(source.reads) == [(10, 5), (2 * BLOCK + 1, BLOCK - 1)]


def test_blocks_end_where_the_vaults_chunks_do() -> None:
    source = MemorySource(b"a" * (2 * BLOCK), [Extent(BLOCK - 3, BLOCK)])
    copy(source, MemorySink(bytes(2 * BLOCK)))
    assert sorted(source.reads) == [(BLOCK - 3, 3), (BLOCK, BLOCK - 3)]


def test_progress_rises_to_the_whole() -> None:
    seen: list[Progress] = []
    source = MemorySource(b"a" * (4 * BLOCK), [Extent(0, BLOCK), Extent(BLOCK, BLOCK, is_zero=True)])
    end = copy(source, MemorySink(bytes(4 * BLOCK)), progress=seen.append)
    assert end == seen[-1] == Progress(4 * BLOCK, 4 * BLOCK, BLOCK)
    assert [at.done for at in seen] == sorted(at.done for at in seen)


def test_a_cancelled_copy_stops_between_two_blocks() -> None:
    sink = MemorySink(bytes(20 * BLOCK))
    with pytest.raises(Cancelled):
        copy(MemorySource(b"a" * (20 * BLOCK)), sink, is_cancelled=lambda: sink.written >= 2 * BLOCK)
    assert sink.written == 2 * BLOCK


def test_a_wish_to_stop_that_is_taken_back_never_leaves_a_gap() -> None:
    """Whoever asks may be answered "yes" once and "no" afterwards."""
    answers = iter([False] * 5 + [True])
    sink = MemorySink(bytes(20 * BLOCK))
    with pytest.raises(Cancelled):
        copy(MemorySource(b"a" * (20 * BLOCK)), sink, is_cancelled=lambda: next(answers, False))
    assert sink.content[: sink.at] == b"a" * sink.at


def test_a_throttled_copy_is_cancelled_while_it_waits() -> None:
    began = time.monotonic()
    with pytest.raises(Cancelled):
        copy(
            MemorySource(b"a" * (4 * BLOCK)),
            MemorySink(bytes(4 * BLOCK)),
            throttle=Throttle(1),
            is_cancelled=lambda: time.monotonic() - began > 0.1,
        )
    assert time.monotonic() - began < 10


def test_a_lost_source_and_a_full_sink_end_the_copy() -> None:
    class Lost(MemorySource):
        def read(self, offset: int, length: int) -> bytes:
            raise SourceLost("gone")

    class Full(MemorySink):
        def write(self, offset: int, data: bytes) -> None:
            raise OutOfSpace("full")

    with pytest.raises(SourceLost):
        copy(Lost(b"a" * BLOCK), MemorySink(bytes(BLOCK)))
    with pytest.raises(OutOfSpace):
        copy(MemorySource(b"a" * (9 * BLOCK)), Full(bytes(9 * BLOCK)))


def test_a_slow_sink_holds_the_readers_back() -> None:
    """Else a fast source would fill the memory."""
    may_go = threading.Event()

    class Slow(MemorySink):
        def write(self, offset: int, data: bytes) -> None:
            may_go.wait()
            super().write(offset, data)

    source = MemorySource(b"a" * (32 * BLOCK))
    copying = threading.Thread(target=copy, args=(source, Slow(bytes(32 * BLOCK))))
    copying.start()
    copying.join(0.2)
    assert len(source.reads) <= WINDOW + 1
    may_go.set()
    copying.join()
    assert len(source.reads) == 32


def test_results_come_in_order_whatever_ends_first() -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number % 2 else 0)
        return number * 10

    assert list(ahead(work, range(7), threads=3, window=4)) == [(number, number * 10) for number in range(7)]
