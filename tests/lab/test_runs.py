"""Marks of grains as runs, against one mark a grain."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lab.runs import Runs

SIZE = 24
PUTS = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE), st.integers(1, 3)))


@given(PUTS, st.integers(0, SIZE), st.integers(0, SIZE))
def test_what_was_put_last_is_what_is_there(puts: list[tuple[int, int, int]], start: int, stop: int) -> None:
    runs, model = Runs(), [0] * SIZE
    for first, length, mark in puts:
        end = min(SIZE, first + length)
        runs.put(first, end, mark)
        model[first:end] = [mark] * (end - first)
    found = [mark for first, end, mark in runs.cut(0, SIZE) for _ in range(first, end)]
    assert found == model
    assert [mark for first, end, mark in runs.cut(start, stop) for _ in range(first, end)] == model[start:stop]
    assert runs.has(start, stop, 1) == all(mark == 1 for mark in model[start:stop])
    assert Runs(runs.flat()) == runs
    marked = list(runs)
    assert all(one[1] < two[0] or one[2] != two[2] for one, two in pairwise(marked)), (
        "neighbours of one mark are one run"
    )
