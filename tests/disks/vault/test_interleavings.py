"""A copy and a collection, in every order of their steps in which each is interrupted once; a point is deleted between.

What needs more turns than that is left to chance in `tests/disks/vault/test_protocol.py`.
"""

from __future__ import annotations

from itertools import count

import pytest

from disks.errors import Damaged, NotFound
from disks.vault.vault import Vault
from tests.disks.vault.judging import CHUNK, commit, missed, superfluous
from tests.disks.vault.stores import MemoryStore, StoreInTurns, Turns

DELETIONS = range(4)
"""Before the first turn, after the first, after the second, never."""


class Encounter:
    """A point of two chunks "a" and "b"; a copy that writes an "a" and perhaps inherits the "b"; a collection."""

    def __init__(self, *, has_base: bool) -> None:
        self.store = MemoryStore()
        self.vault = Vault.create(self.store, chunk_size=CHUNK)
        run = self.vault.begin("here", "desk", threads=0)
        disk = run.disk("vda", 2 * CHUNK)
        disk.write(0, b"a" * CHUNK + b"b" * CHUNK)
        disk.commit()
        self.base = commit(run)
        self.has_base = has_base
        self.copy = Turns(self._copy)
        self.collection = Turns(lambda turns: Vault.open(StoreInTurns(self.store, turns)).collect("here"))

    def _copy(self, turns: Turns) -> None:
        vault = Vault.open(StoreInTurns(self.store, turns))
        run = vault.begin("here", "desk", self.base if self.has_base else None, threads=0)
        disk = run.disk("vda", 2 * CHUNK)
        disk.write(0, b"a" * CHUNK)
        disk.commit()
        commit(run)

    def play(self, first: str, steps: tuple[int, int], deletion: int) -> bool:
        """One goes so many steps, then the other, then the first to its end; whether both were interrupted in fact."""
        order = (self.copy, self.collection) if first == "copy" else (self.collection, self.copy)
        for turn, (actor, length) in enumerate(zip(order, steps, strict=True)):
            if turn == deletion:
                self.vault.delete_point(self.base.id)
            for _ in range(length):
                actor.step()
            assert not missed(self.store)
        were_interrupted = not any(actor.is_over for actor in order)
        if deletion == 2:
            self.vault.delete_point(self.base.id)
        for actor in order:
            actor.run()
            assert not missed(self.store)
        return were_interrupted

    def end(self) -> None:
        assert self.copy.failure is None or isinstance(self.copy.failure, Damaged | NotFound), self.copy.failure
        assert self.collection.failure is None, self.collection.failure
        for run in self.vault.runs():
            self.vault.end_run(run.id)
        self.vault.collect("here")
        assert not missed(self.store)
        assert not superfluous(self.store)
        assert all(self.vault.verify(point).is_good for point in self.vault.points())


@pytest.mark.parametrize(
    ("has_base", "deletion"),
    [*((True, deletion) for deletion in DELETIONS), (False, DELETIONS[0]), (False, DELETIONS[-1])],
)
@pytest.mark.parametrize("first", ["copy", "collection"])
def test_no_order_of_steps_costs_a_point_a_chunk(first: str, has_base: bool, deletion: int) -> None:
    played = 0
    for one in count():
        for other in count():
            encounter = Encounter(has_base=has_base)
            goes_on = encounter.play(first, (one, other), deletion)
            encounter.end()
            played += 1
            if not goes_on:
                break
        if other == 0:
            break
    assert played > 1


def test_a_copy_without_a_base_never_fails_because_of_a_collection() -> None:
    for steps in count():
        encounter = Encounter(has_base=False)
        goes_on = encounter.play("copy", (steps, 100), 0)
        assert encounter.copy.failure is None
        if encounter.copy.is_over and not goes_on and steps > 40:
            break
