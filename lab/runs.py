"""Numbered grains with a mark each, as runs: memory goes by how scattered they are, not by how many there are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence


class Runs:
    """Grain -> mark, a number above 0. Grains without one have none."""

    __slots__ = ("_marks", "_starts", "_stops")

    def __init__(self, flat: Sequence[int] = ()) -> None:
        """`flat` as `flat()` gave it."""
        self._starts, self._stops, self._marks = list(flat[0::3]), list(flat[1::3]), list(flat[2::3])

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """First grain, the one after the last, mark; in their order."""
        return zip(self._starts, self._stops, self._marks, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Runs) and self.flat() == other.flat()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def flat(self) -> list[int]:
        return [number for run in self for number in run]

    def copy(self) -> Runs:
        return Runs(self.flat())

    def cut(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """All of start to stop in pieces of one mark; 0 where there is none."""
        at, reached = bisect_right(self._stops, start), start
        while reached < stop:
            if at == len(self._starts) or self._starts[at] >= stop:
                yield reached, stop, 0
                return
            if self._starts[at] > reached:
                yield reached, self._starts[at], 0
            end = min(stop, self._stops[at])
            yield max(reached, self._starts[at]), end, self._marks[at]
            at, reached = at + 1, end

    def has(self, start: int, stop: int, mark: int) -> bool:
        """Whether all of them bear it."""
        return all(found == mark for _, _, found in self.cut(start, stop))

    def put(self, start: int, stop: int, mark: int) -> None:
        """From now on these bear this mark."""
        first, after = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        new: list[tuple[int, int, int]] = []
        for begin, end, old in self._between(first, after):
            if begin < start:
                new.append((begin, min(end, start), old))
        new.append((start, stop, mark))
        for begin, end, old in self._between(first, after):
            if end > stop:
                new.append((max(begin, stop), end, old))
        joined = _joined(new)
        self._starts[first:after] = [begin for begin, _, _ in joined]
        self._stops[first:after] = [end for _, end, _ in joined]
        self._marks[first:after] = [found for _, _, found in joined]

    def _between(self, first: int, after: int) -> Iterator[tuple[int, int, int]]:
        return zip(self._starts[first:after], self._stops[first:after], self._marks[first:after], strict=True)


def _joined(runs: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Neighbours of one mark as one."""
    found: list[tuple[int, int, int]] = []
    for start, stop, mark in runs:
        if found and found[-1][1] == start and found[-1][2] == mark:
            found[-1] = (found[-1][0], stop, mark)
        else:
            found.append((start, stop, mark))
    return found
