"""Copies, deletions, collections and deaths in any order, step by step: no point ever misses a chunk.

Every call of the store is a step of its own, and chance decides whose comes next. Deleting a point or declaring a dead
run ended may come between any two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from disks.errors import Damaged, NotFound, Refused
from disks.vault.vault import Vault
from tests.disks.vault.judging import CHUNK, commit, missed, superfluous
from tests.disks.vault.stores import MemoryStore, StoreInTurns, Turns
from tests.support.effort import examples

CONTENTS = st.lists(st.sampled_from("aab-"), min_size=1, max_size=2).map("".join)
"""A disk, a chunk a letter: equal letters are equal chunks, "-" is inherited or zeros. Few of them, so they meet."""

COPY_BRINKS = ("list broken/", "exists chunks/", "put points/", "delete runs/", "end")
COLLECTION_BRINKS = ("list points/", "move chunks/", "list trash/", "list marks/", "end")
"""Steps before which it matters what the others do."""


def copying(store: MemoryStore, content: str, base_id: str, ends: bool) -> Callable[[Turns], None]:
    def act(turns: Turns) -> None:
        vault = Vault.open(StoreInTurns(store, turns))
        try:
            base = vault.point(base_id) if base_id else None
            run = vault.begin("here", "desk", base, threads=0)
        except NotFound:
            return  # the base was deleted
        try:
            disk = run.disk("vda", len(content) * CHUNK)
            for index, letter in enumerate(content):
                if letter != "-":
                    disk.write(index * CHUNK, letter.encode() * CHUNK)
            disk.commit()
            if ends:
                commit(run)
                return
        except Damaged:
            pass  # the base was deleted, and its chunks with it before they were looked at
        run.abandon()

    return act


def collecting(store: MemoryStore) -> Callable[[Turns], None]:
    def act(turns: Turns) -> None:
        Vault.open(StoreInTurns(store, turns)).collect("here")

    return act


class Bustle(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.vault = Vault.create(self.store, chunk_size=CHUNK)
        self.actors: list[Turns] = []
        self.copies: list[Turns] = []

    @initialize(contents=st.lists(CONTENTS, max_size=2), deleted=st.sampled_from([{0, 1}, {0}, set()]), data=st.data())
    def furnish(self, contents: list[str], deleted: set[int], data: st.DataObject) -> None:
        """Points, of which some were just deleted, and two that are at work on it."""
        for content in contents:
            Turns(copying(self.store, content, "", True)).run()
        points = self.vault.point_ids()
        base = data.draw(st.sampled_from(["", *points]))
        self.start_copy(data.draw(CONTENTS), base, True)
        for index in sorted(deleted & set(range(len(points)))):
            self.vault.delete_point(points[index])
        self.actors.append(Turns(collecting(self.store)))

    def start_copy(self, content: str, base: str, ends: bool) -> None:
        self.copies.append(Turns(copying(self.store, content, base, ends)))
        self.actors.append(self.copies[-1])

    def living(self) -> list[Turns]:
        self.actors = [actor for actor in self.actors if not actor.is_over]
        return self.actors

    @precondition(lambda self: len(self.living()) < 4)
    @rule(content=CONTENTS, data=st.data(), ends=st.sampled_from([True, True, True, False]))
    def copy(self, content: str, data: st.DataObject, ends: bool) -> None:
        base = data.draw(st.sampled_from(["", *self.vault.point_ids()]))
        self.start_copy(content, base, ends)

    @precondition(lambda self: len(self.living()) < 4)
    @rule()
    def collect(self) -> None:
        self.actors.append(Turns(collecting(self.store)))

    @precondition(lambda self: self.living())
    @rule(moves=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=8))
    def go_on_to_brinks(self, moves: list[tuple[int, int]]) -> None:
        for actor, brink in moves:
            if living := self.living():
                turns = living[actor % len(living)]
                turns.step()
                turns.run_to((COPY_BRINKS if turns in self.copies else COLLECTION_BRINKS)[brink])
                self.no_point_misses_a_chunk()
                assert turns.failure is None or isinstance(turns.failure, Damaged | Refused), turns.failure

    @precondition(lambda self: self.living())
    @rule(moves=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), min_size=1, max_size=8))
    def go_on_by_steps(self, moves: list[tuple[int, int]]) -> None:
        for actor, steps in moves:
            for _ in range(steps):
                if living := self.living():
                    living[actor % len(living)].step()
                    self.no_point_misses_a_chunk()

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.actors[data.draw(st.sampled_from(range(len(self.living()))))].kill()

    @precondition(lambda self: not self.living() and self.vault.runs())
    @rule()
    def declare_the_dead_ended(self) -> None:
        for run in self.vault.runs():
            self.vault.end_run(run.id)

    @precondition(lambda self: self.vault.point_ids())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.vault.delete_point(data.draw(st.sampled_from(self.vault.point_ids())))

    @invariant()
    def no_point_misses_a_chunk(self) -> None:
        assert not missed(self.store)

    def teardown(self) -> None:
        for actor in self.living():
            actor.run()
        assert not missed(self.store)
        for run in self.vault.runs():
            self.vault.end_run(run.id)
        self.vault.collect("here")
        assert not missed(self.store)
        assert not superfluous(self.store)
        for point in self.vault.points():
            assert self.vault.verify(point).is_good


TestBustle: Any = Bustle.TestCase
TestBustle.settings = settings(max_examples=examples(100), stateful_step_count=20, deadline=None)
