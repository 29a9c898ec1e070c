"""What is in either of two lists of extents."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given

from disks.base import Extent
from disks.extents import Widened, united
from tests.disks.memory import MemorySource

SIZE = 30


@st.composite
def extents(draw: st.DrawFn) -> list[Extent]:
    """Sorted, without overlaps, some of them adjacent."""
    cuts = sorted(draw(st.sets(st.integers(0, SIZE))))
    pairs = pairwise(cuts)
    return [Extent(start, end - start, draw(st.booleans())) for start, end in pairs if draw(st.booleans())]


def painted(parts: list[Extent]) -> dict[int, bool]:
    return {place: part.is_zero for part in parts for place in range(part.offset, part.end)}


@given(extents(), extents())
def test_everything_of_both_comes_once_and_sorted_and_the_firsts_word_holds(
    first: list[Extent], second: list[Extent]
) -> None:
    both = list(united(first, second))
    assert all(part.length > 0 for part in both)
    assert all(one.end <= other.offset for one, other in pairwise(both))
    assert painted(both) == painted(second) | painted(first)


def test_a_widened_source_names_more_than_its_own() -> None:
    source = Widened(MemorySource(b"0123456789", [Extent(2, 2)]), [Extent(0, 1), Extent(3, 3)])
    assert list(source.extents()) == [Extent(0, 1), Extent(2, 2), Extent(4, 2)]
    assert source.read(4, 2) == b"45"
