"""The life of a desktop, walked at random: nobody ever gets what another one left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.domain import lifecycle
from broker.domain.lifecycle import COMING, LIVE, TRANSITIONS, Event, IllegalMove, Standing, State, move, sources, step

ROOT = Path(lifecycle.__file__).resolve().parents[2]


def test_what_is_not_in_the_table_raises() -> None:
    for state in State:
        for event in Event:
            if (state, event) in TRANSITIONS:
                assert move(state, event) == TRANSITIONS[state, event]
            else:
                with pytest.raises(IllegalMove, match=f"that is {state} cannot be {event}"):
                    move(state, event)


def test_sources_are_the_states_in_which_an_event_may_happen() -> None:
    assert sources(Event.CLAIMED) == {State.READY}
    assert all(state in sources(event) for state, event in TRANSITIONS)


def test_every_state_is_reached_and_every_live_one_has_a_way_out() -> None:
    reached = {State.PLANNED, *TRANSITIONS.values()}
    assert reached == set(State)
    for state in LIVE:
        assert State.GONE in reachable(state), f"{state} never ends"


def test_a_gone_desktop_stays_gone() -> None:
    assert not [event for state, event in TRANSITIONS if state == State.GONE]


def test_only_a_claim_gives_a_desktop_to_a_user_and_only_a_ready_one() -> None:
    into = {pair for pair, after in TRANSITIONS.items() if after == State.ASSIGNED}
    assert into == {(State.READY, Event.CLAIMED), (State.MISSING, Event.FOUND_OWNED)}


def test_nothing_gets_ready_without_being_prepared() -> None:
    assert {pair for pair, after in TRANSITIONS.items() if after == State.READY} == {(State.PREPARING, Event.PREPARED)}
    assert State.READY not in COMING


def test_from_one_users_desktop_to_the_next_there_is_no_way_round_a_fresh_disk() -> None:
    """Take building and recycling out of the table: from a released desktop no ready one can be reached."""
    after_release = {TRANSITIONS[state, Event.RELEASED] for state in sources(Event.RELEASED)}
    for state in after_release:
        assert State.READY not in reachable(state, without=lifecycle.CLEANS)


def test_the_paper_is_drawn_from_the_table() -> None:
    paper = (ROOT / "docs" / "lifecycle.md").read_text(encoding="utf-8")
    assert paper == lifecycle.document(), "Run `.venv/bin/python -m broker.domain.lifecycle > docs/lifecycle.md`."


def test_the_diagram_shows_every_move_that_changes_something() -> None:
    lines = lifecycle.diagram().splitlines()
    for (state, event), after in TRANSITIONS.items():
        assert (f"    {state} --> {after}: {event}" in lines) == (state != after)


def reachable(start: State, without: frozenset[Event] = frozenset()) -> set[State]:
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for (state, event), after in TRANSITIONS.items():
            if state == here and event not in without and after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


class ADesktopsLife(RuleBasedStateMachine):
    """A desktop, its disk with whatever users wrote to it, and orders that arrive late."""

    def __init__(self) -> None:
        super().__init__()
        self.standing = Standing()
        self.owner: str | None = None
        self.on_disk: set[str] = set()
        self.late_orders: set[int] = set()
        """Epochs of orders that were asked and not yet carried out."""

    def happen(self, event: Event) -> None:
        self.standing = step(self.standing, event)

    def can(self, event: Event) -> bool:
        return (self.standing.state, event) in TRANSITIONS

    @rule(
        event=st.sampled_from(sorted(set(Event) - {Event.CLAIMED, Event.RELEASED, Event.FOUND_FREE, Event.FOUND_OWNED}))
    )
    def something_happens(self, event: Event) -> None:
        if not self.can(event):
            with pytest.raises(IllegalMove):
                self.happen(event)
            return
        self.happen(event)
        if event in lifecycle.CLEANS:
            self.on_disk = set()

    @rule(user=st.sampled_from(["alice", "bob", "charlie"]))
    @precondition(lambda self: self.can(Event.CLAIMED))
    def somebody_claims_it_and_writes(self, user: str) -> None:
        assert not self.on_disk, f"{user} was given what {self.on_disk} left behind"
        self.happen(Event.CLAIMED)
        self.owner = user
        self.on_disk.add(user)

    @rule()
    @precondition(lambda self: self.owner is not None and self.can(Event.RELEASED))
    def its_owner_releases_it(self) -> None:
        self.happen(Event.RELEASED)
        self.owner = None

    @rule()
    @precondition(lambda self: self.standing.state == State.MISSING)
    def its_machine_comes_back(self) -> None:
        self.happen(Event.FOUND_OWNED if self.owner else Event.FOUND_FREE)

    @rule()
    @precondition(lambda self: self.owner is not None)
    def its_owner_asks_for_something(self) -> None:
        self.late_orders.add(self.standing.epoch)

    @invariant()
    def a_ready_desktop_is_clean(self) -> None:
        if self.standing.state == State.READY:
            assert self.standing.clean_epoch == self.standing.epoch
            assert not self.on_disk

    @invariant()
    def an_assigned_desktop_has_an_owner_and_his_files_alone(self) -> None:
        if self.standing.state == State.ASSIGNED:
            assert self.owner is not None
            assert self.on_disk <= {self.owner}

    @invariant()
    def a_late_order_never_carries_the_epoch_of_the_next_user(self) -> None:
        if self.owner is None:
            assert self.standing.epoch not in self.late_orders


TestADesktopsLife = ADesktopsLife.TestCase
