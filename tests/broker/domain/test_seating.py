"""Who gets which seat, how many session hosts that needs, and which of them empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.domain.lifecycle import State
from broker.domain.planning import Build, DesktopFacts, Empty, Fill, MemberFacts, PoolFacts, Recycle, Retire, plan
from broker.domain.seating import HostFacts, choose, full_words, hosts_for
from tests.support.effort import examples

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
KVM = MemberFacts(id="kvm")


def host(name: str, taken: int = 0, **fields: Any) -> HostFacts:
    return HostFacts(id=name, taken=frozenset(range(1, taken + 1)), **({"created_at": NOW} | fields))


# --- who sits where --------------------------------------------------------------------------------------------------


def test_the_next_user_sits_where_the_smallest_part_of_the_seats_is_taken() -> None:
    seat = choose([host("a", 3), host("b", 1), host("c", 2)], 8)
    assert seat is not None
    assert (seat.host, seat.number) == ("b", 2)
    assert seat.reason == "1 of 8 seats were taken, fewer than on any other session host with a free one."


def test_of_equally_taken_ones_the_host_below_that_is_least_used_decides() -> None:
    seat = choose([host("a", 2, load_percent=80), host("b", 2, load_percent=30), host("c", 2)], 8)
    assert seat is not None
    assert seat.host == "b"
    assert seat.reason == "2 of 8 seats were taken, as on others; its host is the least used, with 30 %."


def test_of_all_equal_ones_the_oldest_is_taken() -> None:
    older = NOW - timedelta(days=1)
    seat = choose([host("a", 2, load_percent=30), host("b", 2, load_percent=30, created_at=older)], 8)
    assert seat is not None
    assert (seat.host, seat.reason) == ("b", "2 of 8 seats were taken, as on others; it is the oldest of them.")


def test_one_whose_guest_answers_goes_before_one_that_has_to_be_started() -> None:
    seat = choose([host("a", 0, is_answering=False), host("b", 5)], 8)
    assert seat is not None
    assert seat.host == "b"


def test_one_on_the_pools_version_goes_before_one_that_is_behind() -> None:
    seat = choose([host("a", 0, is_current=False), host("b", 5)], 8)
    assert seat is not None
    assert seat.host == "b"
    assert seat.reason == "5 of 8 seats were taken; it alone answers and has the pool's template version."


def test_a_seat_that_was_given_back_is_given_to_the_next() -> None:
    seat = choose([host("a", created_at=NOW, taken=0), replace(host("b"), taken=frozenset({1, 3}))], 8)
    assert seat is not None
    assert (seat.host, seat.number) == ("a", 1)
    seat = choose([replace(host("b"), taken=frozenset({1, 3}))], 8)
    assert seat is not None
    assert seat.number == 2


@pytest.mark.parametrize("hosts", [[], [host("a", 8)], [host("a", 8), host("b", 9)]])
def test_where_all_are_taken_there_is_none(hosts: list[HostFacts]) -> None:
    assert choose(hosts, 8) is None


def test_a_pool_that_had_more_seats_before_gives_none_until_enough_have_left() -> None:
    overfull = replace(host("a"), taken=frozenset({1, 2, 7, 8}))
    assert choose([overfull], 4) is None
    seat = choose([replace(overfull, taken=frozenset({7, 8}))], 4)
    assert seat is not None
    assert seat.number == 1


@given(st.lists(st.sets(st.integers(1, 12), max_size=9), max_size=6), st.integers(1, 9))
def test_a_seat_is_free_its_number_within_the_pools_and_no_other_host_emptier(
    taken: list[set[int]], seats: int
) -> None:
    hosts = [replace(host(str(number)), taken=frozenset(numbers)) for number, numbers in enumerate(taken)]
    seat = choose(hosts, seats)
    if seat is None:
        assert all(len(one.taken) >= seats for one in hosts)
        return
    (chosen,) = [one for one in hosts if one.id == seat.host]
    assert seat.number not in chosen.taken
    assert 1 <= seat.number <= seats
    assert len(chosen.taken) == min(len(one.taken) for one in hosts)


@pytest.mark.parametrize(
    ("hosts", "taken", "words"),
    [
        (3, 24, "All 3 session hosts are full: 24 of 24 seats."),
        (1, 8, "The only session host is full: 8 of 8 seats."),
        (0, 0, "No session host is ready."),
        (2, 9, "9 of 16 seats are taken."),
    ],
)
def test_whoever_waits_is_told_how_full_it_is(hosts: int, taken: int, words: str) -> None:
    assert full_words(hosts, taken, 8) == words


# --- how many hosts --------------------------------------------------------------------------------------------------


def pool(**fields: Any) -> PoolFacts:
    return PoolFacts(**({"minimum": 0, "spare": 0, "maximum": 10, "seats": 4, "delete_budget_per_hour": 1000} | fields))


def used(number: int, taken: int, **fields: Any) -> DesktopFacts:
    values: dict[str, Any] = {
        "id": f"host-{number}", "state": State.ASSIGNED, "state_since": NOW, "member_id": "kvm",
        "seats_taken": taken, "is_assigned": taken > 0,
    }  # fmt: skip
    return DesktopFacts(**(values | fields))


def ready(number: int) -> DesktopFacts:
    return used(number, 0, state=State.READY)


@pytest.mark.parametrize(
    ("facts", "hosts", "built"),
    [
        (pool(spare=4), [], 1),
        (pool(spare=5), [], 2),
        (pool(spare=4), [used(1, 3)], 1),
        (pool(spare=1), [used(1, 3)], 0),
        (pool(spare=1), [used(1, 4)], 1),
        (pool(waiting=9), [used(1, 4)], 3),
        (pool(spare=4, maximum=1), [used(1, 3)], 0),
        (pool(minimum=3), [used(1, 1)], 2),
        (pool(spare_percent=50), [used(1, 4), used(2, 4)], 1),
        (pool(spare=3), [used(1, 1, in_maintenance=True)], 1),
        (pool(spare=3), [used(1, 1, silent_since=NOW)], 1),
    ],
)
def test_session_hosts_are_built_for_those_who_have_a_seat_who_wait_and_the_spare(
    facts: PoolFacts, hosts: list[DesktopFacts], built: int
) -> None:
    actions = plan(facts, [KVM], hosts, NOW)
    assert sum(action.count for action in actions if isinstance(action, Build)) == built


def test_empty_hosts_go_when_the_seats_of_others_are_enough() -> None:
    actions = plan(pool(spare=2), [KVM], [used(1, 2), ready(2), ready(3)], NOW)
    assert {action.desktop for action in actions if isinstance(action, Retire)} == {"host-2", "host-3"}


def test_where_fewer_hosts_would_do_the_emptiest_takes_nobody_new() -> None:
    hosts = [used(1, 2), used(2, 1), used(3, 1, state_since=NOW - timedelta(1))]
    (action,) = plan(pool(spare=1), [KVM], hosts, NOW)
    assert action == Empty("host-2", "Fewer session hosts are needed: it takes nobody new.")


def test_one_that_is_empty_already_gets_a_fresh_disk_and_is_not_told_to_empty() -> None:
    facts = pool(freshens_when_empty=False)
    words = "Fewer session hosts are needed, and nobody is on it."
    assert plan(facts, [KVM], [used(1, 0)], NOW) == [Recycle("host-1", words)]


def test_the_hosts_of_the_minimum_are_not_emptied() -> None:
    assert plan(pool(minimum=3), [KVM], [used(1, 1), used(2, 1), used(3, 1)], NOW) == []


def test_one_that_was_to_be_emptied_is_needed_again_before_another_is_built() -> None:
    assert plan(pool(waiting=2), [KVM], [used(1, 4), used(2, 1, is_emptying=True)], NOW) == [
        Fill("host-2", "It is needed again.")
    ]


def test_one_whose_last_user_has_left_gets_a_fresh_disk() -> None:
    assert plan(pool(minimum=1), [KVM], [used(1, 0)], NOW) == [Recycle("host-1", "The last of its users has left.")]


def test_one_that_may_stay_as_it_is_gets_one_only_if_it_is_not_needed_or_behind() -> None:
    facts = pool(minimum=1, freshens_when_empty=False)
    assert plan(facts, [KVM], [used(1, 0)], NOW) == []
    (recycled,) = [a for a in plan(facts, [KVM], [used(1, 0), used(2, 2)], NOW) if isinstance(a, Recycle)]
    assert recycled.desktop == "host-1"
    behind = used(1, 0, copy_current=False)
    assert Recycle("host-1", "The pool has a newer template version.") in plan(facts, [KVM], [behind], NOW)


def test_one_in_maintenance_is_left_alone_when_it_is_empty() -> None:
    assert plan(pool(), [KVM], [used(1, 0, in_maintenance=True)], NOW) == []


# --- a working day ---------------------------------------------------------------------------------------------------


@dataclass
class Day:
    """A pool whose people come and go, and whose plan is carried out in between."""

    facts: PoolFacts
    people: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Who sits where."""
    hosts: dict[str, DesktopFacts] = field(default_factory=dict)
    waiting: int = 0
    built: int = 0
    coming: int = 0

    @property
    def seats(self) -> int:
        assert self.facts.seats is not None
        return self.facts.seats

    def come(self) -> None:
        self.waiting += 1
        self.serve()

    def serve(self) -> None:
        while self.waiting and (seat := choose(self.open_hosts(), self.seats)):
            self.waiting -= 1
            self.coming += 1
            self.people[self.coming] = (seat.host, seat.number)
            self.hosts[seat.host] = replace(self.hosts[seat.host], state=State.ASSIGNED)
            self.count()

    def open_hosts(self) -> list[HostFacts]:
        return [
            HostFacts(id=d.id, taken=frozenset(n for at, n in self.people.values() if at == d.id),
                      created_at=d.state_since)
            for d in self.hosts.values()
            if d.state in (State.READY, State.ASSIGNED) and not d.is_emptying
        ]  # fmt: skip

    def go(self, who: int) -> None:
        if self.people:
            self.people.pop(sorted(self.people)[who % len(self.people)])
            self.count()

    def count(self) -> None:
        for id, d in self.hosts.items():
            taken = sum(at == id for at, _ in self.people.values())
            self.hosts[id] = replace(d, seats_taken=taken, is_assigned=taken > 0)

    def reconcile(self) -> Sequence[object]:
        actions = plan(replace(self.facts, waiting=self.waiting), [KVM], list(self.hosts.values()), NOW)
        for action in actions:
            if isinstance(action, Build):
                for _ in range(action.count):
                    self.built += 1
                    self.hosts[f"host-{self.built}"] = ready(self.built)
                continue
            before = self.hosts[action.desktop]  # type: ignore[union-attr]
            if isinstance(action, Empty | Fill):
                self.hosts[before.id] = replace(before, is_emptying=isinstance(action, Empty))
                continue
            assert before.seats_taken == 0, "somebody is on it"
            if isinstance(action, Retire):
                del self.hosts[before.id]
            else:
                assert isinstance(action, Recycle)
                self.hosts[before.id] = replace(before, state=State.READY, is_emptying=False)
        self.serve()
        return actions

    def rest(self) -> None:
        for _ in range(60):
            if not self.reconcile():
                return
        raise AssertionError("the plan does not come to rest")


@given(
    st.builds(
        pool,
        seats=st.integers(1, 5),
        spare=st.integers(0, 6),
        spare_percent=st.none() | st.integers(1, 100),
        maximum=st.integers(1, 6),
        minimum=st.integers(0, 1),
        freshens_when_empty=st.booleans(),
    ),
    st.lists(st.sampled_from(["come", "come", "come", "plan"]) | st.integers(0, 20), max_size=60),
)
@settings(max_examples=examples(600))
def test_through_a_day_no_host_is_overfull_nobody_is_thrown_off_and_all_comes_to_rest(
    facts: PoolFacts, happenings: list[str | int]
) -> None:
    day = Day(facts)
    for happening in happenings:
        if happening == "come":
            day.come()
        elif isinstance(happening, int):
            day.go(happening)
        else:
            day.reconcile()
        assert all(d.seats_taken <= day.seats for d in day.hosts.values())
        assert len(day.hosts) <= facts.maximum
    day.rest()
    free = sum(day.seats - len(one.taken) for one in day.open_hosts())
    spare = facts.spare if facts.spare_percent is None else max(
        facts.spare, -(-len(day.people) * facts.spare_percent // 100)
    )  # fmt: skip
    if len(day.hosts) < facts.maximum:
        assert (day.waiting, free >= spare) == (0, True)
    needed = max(facts.minimum, hosts_for(len(day.people) + spare, day.seats))
    assert len(day.open_hosts()) <= max(needed, 1 if day.people else 0)
