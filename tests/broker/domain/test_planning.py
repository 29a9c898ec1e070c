"""What a pool needs next. The last part runs plans in a toy world until nothing changes any more."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.domain.lifecycle import LIVE, State
from broker.domain.planning import (
    KEPT_FAILED,
    Action,
    Build,
    DesktopFacts,
    Fail,
    Hold,
    MemberFacts,
    PoolFacts,
    Recycle,
    Retire,
    plan,
    wanted,
)
from tests.support.effort import examples

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=2)
KVM = MemberFacts(id="kvm")
_numbers = itertools.count()


def pool(minimum: int = 0, spare: int = 2, maximum: int = 10, **facts: Any) -> PoolFacts:
    return PoolFacts(minimum=minimum, spare=spare, maximum=maximum, **facts)


def desktop(state: State = State.READY, **facts: Any) -> DesktopFacts:
    values: dict[str, Any] = {
        "id": f"d{next(_numbers)}",
        "state": state,
        "state_since": LONG_AGO,
        "member_id": "kvm",
        "is_assigned": state == State.ASSIGNED,
        "power": "on",
    }
    if state == State.PREPARING:
        values["state_since"] = NOW
    return DesktopFacts(**values | facts)


def desktops(count: int, state: State = State.READY, **facts: Any) -> list[DesktopFacts]:
    return [desktop(state, **facts) for _ in range(count)]


def planned(facts: PoolFacts, found: list[DesktopFacts], *members: MemberFacts) -> list[Action]:
    return plan(facts, members or [KVM], found, NOW)


def built(actions: list[Action]) -> int:
    return sum(action.count for action in actions if isinstance(action, Build))


def retired(actions: list[Action]) -> list[str]:
    return [action.desktop for action in actions if isinstance(action, Retire)]


# --- how many --------------------------------------------------------------------------------------------------------


def test_an_empty_pool_builds_its_spare() -> None:
    assert planned(pool(spare=2), []) == [Build(2)]


def test_an_empty_pool_builds_its_minimum() -> None:
    assert planned(pool(minimum=5), []) == [Build(5)]


def test_waiting_people_are_built_for() -> None:
    assert planned(pool(spare=1, waiting=3), []) == [Build(4)]


def test_assigned_desktops_do_not_count_as_spare() -> None:
    assert planned(pool(spare=2), desktops(3, State.ASSIGNED)) == [Build(2)]


@pytest.mark.parametrize("state", [State.PLANNED, State.BUILDING, State.PREPARING, State.RECYCLING])
def test_desktops_on_their_way_count(state: State) -> None:
    assert planned(pool(spare=2), desktops(2, state)) == []


def test_the_maximum_holds_whatever_is_wanted() -> None:
    assert planned(pool(spare=5, waiting=20, maximum=6), desktops(4, State.ASSIGNED)) == [Build(2)]
    assert wanted(pool(minimum=1, spare=5, maximum=6, waiting=3), assigned=4) == 6


def test_missing_and_dying_desktops_count_against_the_maximum() -> None:
    found = [*desktops(5, State.MISSING), *desktops(4, State.RETIRING)]
    assert planned(pool(spare=5, maximum=10), found) == [Build(1)]


def test_gone_desktops_count_nowhere() -> None:
    assert planned(pool(spare=2, maximum=2), desktops(9, State.GONE)) == [Build(2)]


def test_a_disabled_pool_builds_nothing() -> None:
    assert planned(pool(spare=5, is_enabled=False, waiting=3), [desktop(State.FAILED)]) == []


def test_desktops_in_maintenance_are_not_spare() -> None:
    assert planned(pool(spare=1), [desktop(in_maintenance=True)]) == [Build(1)]


# --- missing ---------------------------------------------------------------------------------------------------------


def test_a_missing_free_desktop_is_replaced() -> None:
    assert planned(pool(spare=1), [desktop(State.MISSING)]) == [Build(1)]


def test_a_missing_desktop_of_a_user_is_never_rebuilt_or_deleted() -> None:
    assert planned(pool(spare=0), [desktop(State.MISSING, is_assigned=True)]) == []


# --- surplus ---------------------------------------------------------------------------------------------------------


def test_surplus_goes_newest_first() -> None:
    old = desktops(2)
    new = desktop(state_since=NOW)
    assert retired(planned(pool(spare=2), [new, *old])) == [new.id]


def test_the_minimum_stays_even_if_nobody_wants_it() -> None:
    assert planned(pool(minimum=3, spare=0), desktops(3)) == []


def test_nothing_is_retired_before_what_is_ready_suffices() -> None:
    assert planned(pool(spare=3), [*desktops(3), *desktops(4, State.PREPARING)]) == []


def test_assigned_missing_and_maintained_desktops_are_never_retired() -> None:
    found = [
        *desktops(3, State.ASSIGNED),
        *desktops(3, State.MISSING),
        *desktops(3, in_maintenance=True),
        desktop(State.FAILED, in_maintenance=True),
    ]
    assert retired(planned(pool(spare=0), found)) == []


# --- away, draining, outdated ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["new", "down", "refused", "doubt"])
def test_nothing_is_built_or_deleted_on_a_hypervisor_that_is_not_up(status: str) -> None:
    away = MemberFacts(id="kvm", status=status, status_since=LONG_AGO)
    assert planned(pool(spare=0), desktops(4), away) == []
    assert planned(pool(spare=3), [], away) == []
    assert planned(pool(spare=0), desktops(9, State.FAILED), away) == []
    assert planned(pool(spare=0), [desktop(State.PREPARING, state_since=LONG_AGO)], away) == []


def test_a_hypervisor_that_is_long_down_is_not_counted_on() -> None:
    other = MemberFacts(id="other")
    down = MemberFacts(id="kvm", status="down", status_since=NOW - timedelta(seconds=61))
    assert planned(pool(spare=2), desktops(2), down, other) == [Build(2)]


def test_a_hypervisor_that_is_down_for_a_moment_causes_no_wave_of_builds() -> None:
    other = MemberFacts(id="other")
    down = MemberFacts(id="kvm", status="down", status_since=NOW - timedelta(seconds=30))
    assert planned(pool(spare=2), desktops(2), down, other) == []


def test_desktops_of_a_removed_member_on_a_lost_hypervisor_stay() -> None:
    assert planned(pool(spare=0), desktops(2, member_id=None, is_reachable=False)) == []


def test_draining_desktops_go_only_once_their_replacement_is_ready() -> None:
    drained = MemberFacts(id="old", is_draining=True)
    found = desktops(2, member_id="old")
    first = planned(pool(spare=2), found, drained, KVM)
    assert first == [Build(1)]
    waiting = planned(pool(spare=2), [*found, desktop(State.PREPARING)], drained, KVM)
    assert waiting == []
    replaced = planned(pool(spare=2), [*found, desktop()], drained, KVM)
    assert retired(replaced) == [found[0].id]


def test_a_quarter_of_the_outdated_ones_is_replaced_at_a_time() -> None:
    assert planned(pool(spare=8, maximum=20), desktops(8, copy_current=False)) == [Build(2)]


def test_outdated_ones_go_before_new_ones() -> None:
    old = desktop(copy_current=False)
    assert retired(planned(pool(spare=1), [old, desktop(state_since=NOW)])) == [old.id]


def test_without_room_for_a_replacement_one_outdated_desktop_goes_first() -> None:
    found = desktops(2, copy_current=False)
    assert len(retired(planned(pool(spare=2, maximum=2), found))) == 1
    going = [found[0], desktop(State.RETIRING)]
    assert planned(pool(spare=2, maximum=2), going) == []


def test_a_members_maximum_does_not_keep_it_from_being_updated() -> None:
    tight = MemberFacts(id="kvm", maximum=2)
    assert len(retired(planned(pool(spare=2, maximum=9), desktops(2, copy_current=False), tight))) == 1


@pytest.mark.parametrize("trouble", [{"failures": 1}, {"hold_until": NOW + timedelta(minutes=1)}, {"status": "down"}])
def test_what_works_is_not_given_up_while_building_fails(trouble: dict[str, Any]) -> None:
    found = desktops(2, copy_current=False, member_id="fine")
    members = [MemberFacts(id="fine", is_draining=True), MemberFacts(id="kvm", **trouble)]
    assert retired(planned(pool(spare=2, maximum=2), found, *members)) == []


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_guest_that_never_answers_fails_in_words() -> None:
    silent = desktop(State.PREPARING, state_since=NOW - timedelta(seconds=900), power="off")
    action = planned(pool(spare=1), [silent])[0]
    assert isinstance(action, Fail)
    assert action.desktop == silent.id
    assert "900 s" in action.reason
    assert "switched off" in action.reason


def test_time_in_which_the_hypervisor_was_away_is_not_held_against_a_guest() -> None:
    silent = desktop(State.PREPARING, state_since=NOW - timedelta(seconds=2000))
    back = MemberFacts(id="kvm", status="up", status_since=NOW - timedelta(seconds=10))
    assert planned(pool(spare=1), [silent], back) == []


def test_a_failed_desktop_with_a_machine_is_tried_again_instead_of_building_another() -> None:
    failed = desktop(State.FAILED, attempts=1)
    actions = planned(pool(spare=1), [failed])
    assert [type(action) for action in actions] == [Recycle]


def test_a_failed_desktop_is_tried_again_later_each_time_and_not_for_ever() -> None:
    fresh = desktop(State.FAILED, attempts=1, state_since=NOW - timedelta(seconds=10))
    assert planned(pool(spare=1), [fresh]) == [Build(1)]
    spent = desktop(State.FAILED, attempts=3)
    assert planned(pool(spare=1), [spent]) == [Build(1)]


def test_a_failed_desktop_without_a_machine_is_not_recycled() -> None:
    assert planned(pool(spare=1), [desktop(State.FAILED, has_machine=False)]) == [Build(1)]


def test_a_failing_member_is_built_on_one_at_a_time() -> None:
    failing = MemberFacts(id="kvm", failures=2)
    assert planned(pool(spare=5), [], failing) == [Build(1)]
    assert planned(pool(spare=5), [desktop(State.BUILDING)], failing) == []


def test_a_member_on_hold_is_not_built_on() -> None:
    held = MemberFacts(id="kvm", failures=2, hold_until=NOW + timedelta(seconds=1))
    assert planned(pool(spare=5), [], held) == []


def test_the_newest_failures_are_kept_to_be_looked_at() -> None:
    failed = [
        desktop(State.FAILED, attempts=3, has_machine=False, state_since=NOW - timedelta(minutes=n)) for n in range(5)
    ]
    actions = planned(pool(spare=0), failed)
    assert retired(actions) == [failed[KEPT_FAILED].id, failed[KEPT_FAILED + 1].id]


def test_kept_failures_go_after_a_day() -> None:
    failed = desktop(State.FAILED, attempts=3, state_since=NOW - timedelta(hours=24))
    assert retired(planned(pool(spare=0), [failed])) == [failed.id]


def test_a_failure_that_holds_a_users_files_is_kept_for_an_hour_at_most() -> None:
    fresh = desktop(State.FAILED, has_user_data=True, attempts=3, state_since=NOW - timedelta(minutes=59))
    old = desktop(State.FAILED, has_user_data=True, attempts=1, state_since=NOW - timedelta(minutes=60))
    build = desktop(State.FAILED, state_since=NOW - timedelta(minutes=60))
    assert retired(planned(pool(spare=0), [fresh, old, build])) == [old.id]


def test_a_failure_that_an_administrator_looks_at_keeps_its_files() -> None:
    looked_at = desktop(State.FAILED, has_user_data=True, in_maintenance=True)
    assert planned(pool(spare=0), [looked_at]) == []


def test_a_failure_that_holds_a_users_files_is_tried_again_first_where_it_is_needed() -> None:
    dirty = desktop(State.FAILED, has_user_data=True, attempts=1, state_since=NOW - timedelta(minutes=61))
    assert planned(pool(spare=1), [dirty]) == [Recycle(dirty.id, "Try 2 of 3 after a failure.")]


def test_kept_failures_give_way_where_the_maximum_leaves_no_room() -> None:
    failed = desktops(2, State.FAILED, attempts=3)
    assert len(retired(planned(pool(spare=2, maximum=2), failed))) == 2
    dying = [failed[0], desktop(State.RETIRING)]
    assert len(retired(planned(pool(spare=1, maximum=2), dying))) == 0


def test_kept_failures_give_way_where_the_hosts_have_no_room() -> None:
    failed = desktop(State.FAILED, attempts=3)
    assert retired(planned(pool(spare=1, is_cramped=True), [failed])) == [failed.id]


# --- silence ---------------------------------------------------------------------------------------------------------


def test_a_ready_desktop_that_fell_silent_gets_a_fresh_disk() -> None:
    silent = desktop(silent_since=NOW - timedelta(seconds=900))
    actions = planned(pool(spare=2), [silent, desktop()])
    assert [action.desktop for action in actions if isinstance(action, Recycle)] == [silent.id]
    assert len(actions) == 1


def test_a_moments_silence_is_nothing() -> None:
    assert planned(pool(spare=1), [desktop(silent_since=NOW - timedelta(seconds=899))]) == []


def test_silence_while_the_hypervisor_was_away_is_not_held_against_a_guest() -> None:
    back = MemberFacts(id="kvm", status_since=NOW - timedelta(seconds=60))
    assert planned(pool(spare=1), [desktop(silent_since=LONG_AGO)], back) == []


def test_silence_of_many_is_not_answered_by_recycling_all_of_them() -> None:
    actions = planned(pool(spare=8), desktops(8, silent_since=LONG_AGO))
    assert [type(action) for action in actions] == [Recycle, Recycle]
    assert planned(pool(spare=8), [*desktops(6, silent_since=LONG_AGO), *desktops(2, State.RECYCLING)]) == []


def test_a_silent_desktop_beyond_what_is_wanted_is_deleted_not_revived() -> None:
    actions = planned(pool(spare=0), [desktop(silent_since=LONG_AGO)])
    assert [type(action) for action in actions] == [Retire]


@pytest.mark.parametrize("facts", [{"in_maintenance": True}, {"copy_current": False}, {"is_reachable": False}])
def test_a_silent_desktop_that_is_out_of_reach_or_leaving_is_not_revived(facts: dict[str, Any]) -> None:
    actions = planned(pool(spare=1, maximum=1), [desktop(silent_since=LONG_AGO, **facts)])
    assert not [action for action in actions if isinstance(action, Recycle)]


# --- budget ----------------------------------------------------------------------------------------------------------


def test_the_delete_budget_holds_and_asks() -> None:
    actions = planned(pool(spare=0, maximum=50, delete_budget_per_hour=5, deletes_last_hour=2), desktops(9))
    assert len(retired(actions)) == 3
    assert isinstance(actions[-1], Hold)
    assert "9 desktops should be deleted" in actions[-1].reason


def test_a_pool_on_hold_deletes_nothing_and_asks_once() -> None:
    assert planned(pool(spare=0, hold_reason="Check why."), desktops(9)) == []


def test_a_pool_on_hold_still_builds() -> None:
    assert planned(pool(spare=2, hold_reason="Check why."), []) == [Build(2)]


# --- members' minimums -----------------------------------------------------------------------------------------------

HERE, THERE = MemberFacts(id="kvm", minimum=3), MemberFacts(id="esx")


def test_what_a_member_lacks_is_built_there_and_the_rest_anywhere() -> None:
    assert planned(pool(spare=5), [], HERE, THERE) == [Build(3, "kvm"), Build(2)]
    assert planned(pool(spare=1), [], HERE, THERE) == [Build(3, "kvm")]
    assert planned(pool(spare=1), desktops(2, member_id="esx"), HERE, THERE)[:1] == [Build(3, "kvm")]


def test_desktops_in_use_count_for_a_members_minimum() -> None:
    found = [*desktops(2, State.ASSIGNED), *desktops(1, State.BUILDING)]
    assert planned(pool(spare=0), found, HERE, THERE) == []


@pytest.mark.parametrize(
    "facts", [{"status": "down", "status_since": LONG_AGO}, {"is_draining": True}, {"is_enabled": False}]
)
def test_a_member_that_is_closed_lacks_nothing_and_nobody_stands_in_for_its_minimum(facts: dict[str, Any]) -> None:
    assert planned(pool(spare=1), [], replace(HERE, **facts), THERE) == [Build(1)]


def test_a_member_without_room_keeps_nobody_from_building_elsewhere() -> None:
    assert planned(pool(spare=2), [], replace(HERE, is_cramped=True), THERE) == [Build(2)]


def test_a_surplus_is_taken_where_no_minimum_is_hurt() -> None:
    other = desktop(member_id="esx", state_since=LONG_AGO)
    actions = planned(pool(spare=1), [*desktops(3, state_since=NOW), other], HERE, THERE)
    assert retired(actions) == [other.id]


def test_a_full_pool_makes_room_for_a_members_minimum() -> None:
    newest = desktop(member_id="esx", state_since=NOW)
    found = [*desktops(7, member_id="esx"), newest, *desktops(2)]
    actions = planned(pool(minimum=0, spare=10, maximum=10), found, HERE, THERE)
    assert actions == [Retire(newest.id, "It makes room for the minimum of another hypervisor.")]


def test_the_pools_maximum_goes_before_a_members_minimum() -> None:
    assert planned(pool(spare=0, maximum=2), [], HERE, THERE) == [Build(2, "kvm")]


# --- a toy world -----------------------------------------------------------------------------------------------------


@dataclass
class World:
    """Carries plans out. Builds take a step each for sending, cloning and preparing; templates may be broken."""

    pool: PoolFacts
    members: list[MemberFacts]
    desktops: dict[str, DesktopFacts]
    broken: frozenset[str] = frozenset()
    now: datetime = NOW
    built: int = 0
    failures: int = 0
    history: list[list[Action]] = field(default_factory=list)

    def plan(self) -> list[Action]:
        return plan(self.pool, self.members, list(self.desktops.values()), self.now)

    def set(self, key: str, **facts: Any) -> None:
        self.desktops[key] = replace(self.desktops[key], **{"state_since": self.now} | facts)

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Build(count, member):
                    self.build(count, member)
                case Retire(key, _):
                    self.assert_may_go(self.desktops[key])
                    self.set(key, state=State.RETIRING)
                case Recycle(key, _):
                    assert self.desktops[key].state in {State.FAILED, State.READY}
                    assert not self.desktops[key].is_assigned
                    self.set(key, state=State.RECYCLING, silent_since=None)
                case Fail(key, _):
                    self.set(key, state=State.FAILED, attempts=self.desktops[key].attempts + 1)
                case Hold(reason):
                    self.pool = replace(self.pool, hold_reason=reason)

    def build(self, count: int, member: str = "") -> None:
        for _ in range(count):
            open_ = [
                m
                for m in self.members
                if member in ("", m.id)
                and m.status == "up"
                and m.is_enabled
                and not m.is_draining
                and (
                    m.maximum is None
                    or m.maximum > sum(d.member_id == m.id and d.state in LIVE for d in self.desktops.values())
                )
            ]
            assert open_, "a build was planned where none is open"
            self.built += 1
            key = f"new{self.built}"
            self.desktops[key] = DesktopFacts(
                id=key, state=State.PLANNED, state_since=self.now, member_id=open_[self.built % len(open_)].id
            )
        assert sum(d.state in LIVE for d in self.desktops.values()) <= max(self.pool.maximum, self.ceiling)

    ceiling: int = 0
    """Live desktops at the start: a lowered maximum is reached by deleting, never exceeded further by building."""

    def assert_may_go(self, facts: DesktopFacts) -> None:
        assert facts.state in {State.READY, State.FAILED} or (facts.state == State.PLANNED and not facts.has_machine)
        assert not facts.is_assigned
        assert not facts.in_maintenance
        member = next((m for m in self.members if m.id == facts.member_id), None)
        assert member is None or member.status == "up"

    def pass_time(self) -> bool:
        """One minute: everything on its way goes one step on. False if nothing was on its way."""
        self.now += timedelta(minutes=1)
        moved = False
        for facts in list(self.desktops.values()):
            member = next((m for m in self.members if m.id == facts.member_id), None)
            if member is not None and member.status != "up":
                continue
            fate = {
                State.PLANNED: State.BUILDING,
                State.BUILDING: State.FAILED if facts.member_id in self.broken else State.PREPARING,
                State.RECYCLING: State.FAILED if facts.member_id in self.broken else State.PREPARING,
                State.PREPARING: State.READY,
                State.RETIRING: State.GONE,
            }.get(facts.state)
            if fate:
                moved = True
                attempts = facts.attempts + 1 if fate == State.FAILED else 0 if fate == State.READY else facts.attempts
                self.set(facts.id, state=fate, attempts=attempts)
                self.count_failures(facts, fate)
        return moved

    def count_failures(self, facts: DesktopFacts, fate: State) -> None:
        """As the reconciler does: failures in a row hold the member, a success clears them."""
        for index, member in enumerate(self.members):
            if member.id == facts.member_id and fate == State.FAILED:
                self.failures += 1
                hold = self.now + timedelta(minutes=2 ** min(member.failures, 6))
                self.members[index] = replace(member, failures=member.failures + 1, hold_until=hold)
            elif member.id == facts.member_id and fate == State.READY:
                self.members[index] = replace(member, failures=0, hold_until=None)

    def settle(self, steps: int = 400) -> None:
        """Run until a plan is empty and nothing moves."""
        for _ in range(steps):
            actions = self.plan()
            self.history.append(actions)
            self.carry_out(actions)
            if not self.pass_time() and not actions:
                return
        raise AssertionError(f"never settled: {self.history[-3:]}")

    def count(self, *states: State) -> int:
        return sum(d.state in states for d in self.desktops.values())


members_ = st.lists(
    st.builds(
        MemberFacts,
        id=st.sampled_from(["a", "b", "c"]),
        status=st.sampled_from(["up", "up", "up", "down", "doubt", "refused"]),
        status_since=st.just(LONG_AGO),
        is_draining=st.sampled_from([False, False, True]),
        is_enabled=st.sampled_from([True, True, False]),
        minimum=st.sampled_from([0, 0, 1, 3]),
        is_cramped=st.booleans(),
        maximum=st.none() | st.integers(0, 8),
    ),
    max_size=3,
    unique_by=lambda m: m.id,
)
desktops_ = st.lists(
    st.builds(
        desktop,
        state=st.sampled_from(State),
        member_id=st.sampled_from(["a", "b", "c", None]),
        copy_current=st.booleans(),
        in_maintenance=st.sampled_from([False, False, False, True]),
        attempts=st.integers(0, 4),
        has_machine=st.booleans(),
        has_user_data=st.booleans(),
        silent_since=st.none() | st.just(LONG_AGO),
        state_since=st.integers(0, 2000).map(lambda minutes: NOW - timedelta(minutes=minutes)),
        power=st.sampled_from(["on", "off"]),
    ),
    max_size=14,
)
pools_ = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 12), st.integers(0, 4), st.booleans()).map(
    lambda t: pool(
        minimum=min(t[0], t[2]), spare=t[1], maximum=t[2], waiting=t[3], is_enabled=t[4], delete_budget_per_hour=1000
    )
)


def world(facts: PoolFacts, members: list[MemberFacts], found: list[DesktopFacts], **more: Any) -> World:
    made = World(facts, list(members), {d.id: d for d in found}, **more)
    made.ceiling = made.count(*LIVE)
    return made


def test_planned_desktops_that_nobody_needs_any_more_go_before_they_are_built() -> None:
    facts = pool(spare=3, maximum=10, delete_budget_per_hour=0)
    coming = [*desktops(2, State.RECYCLING), *planned_at(3, 2, 1)]
    (kept,) = [d.id for d in coming if d.state_since == NOW - timedelta(minutes=3)]
    going = [action for action in plan(facts, [KVM], coming, NOW) if isinstance(action, Retire)]
    assert len(going) == 2
    assert kept not in {action.desktop for action in going}, "the newest go first"
    assert plan(replace(facts, spare=5), [KVM], coming, NOW) == []


def test_a_planned_desktop_of_a_members_minimum_stays() -> None:
    member = replace(KVM, minimum=2)
    assert plan(pool(spare=0, maximum=10), [member], planned_at(2, 1), NOW) == []


def planned_at(*minutes_ago: int) -> list[DesktopFacts]:
    return [
        desktop(state=State.PLANNED, has_machine=False, state_since=NOW - timedelta(minutes=ago)) for ago in minutes_ago
    ]


@given(pools_, members_, desktops_)
@settings(max_examples=examples(400))
def test_plans_come_to_rest_and_keep_the_rules_on_the_way(
    facts: PoolFacts, members: list[MemberFacts], found: list[DesktopFacts]
) -> None:
    toy = world(facts, members, found)
    untouchable = [d for d in found if d.is_assigned or d.in_maintenance or d.state == State.MISSING]
    moving = {State.PREPARING, State.PLANNED, State.BUILDING, State.RECYCLING, State.RETIRING}
    toy.settle()
    for before in untouchable:
        if before.state not in moving:
            assert toy.desktops[before.id] == before
    # Nobody's files lie about for long once everything is at rest, wherever deleting is possible at all.
    toy.now += timedelta(hours=2)
    toy.settle()
    away = {m.id for m in members if m.status != "up"}
    failed = [d for d in toy.desktops.values() if d.state == State.FAILED and d.member_id not in away]
    assert not [d for d in failed if d.has_user_data and not d.in_maintenance]


@given(pools_, st.integers(0, 8), st.integers(0, 8))
def test_a_sound_pool_ends_with_what_is_wanted_on_the_current_copy(facts: PoolFacts, old: int, assigned: int) -> None:
    facts = replace(facts, is_enabled=True)
    found = [*desktops(old, copy_current=False), *desktops(assigned, State.ASSIGNED)]
    toy = world(facts, [KVM], found)
    toy.settle()
    free = max(0, wanted(facts, assigned) - assigned)
    assert toy.count(State.READY) == free
    assert toy.count(State.ASSIGNED) == assigned
    assert not [d for d in toy.desktops.values() if d.state == State.READY and not d.copy_current]


@given(
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.integers(0, 6),
    st.integers(0, 4),
    st.lists(st.sampled_from(["a", "b"]), max_size=12),
    st.integers(0, 4),
)
def test_every_member_ends_with_its_minimum_and_the_pool_with_no_more_than_that_and_its_spare(
    minimums: tuple[int, int], spare: int, more: int, standing: list[str], assigned: int
) -> None:
    members = [MemberFacts(id=id, minimum=minimum) for id, minimum in zip(("a", "b"), minimums, strict=True)]
    facts = pool(spare=spare, maximum=max(sum(minimums) + assigned + more, 1), delete_budget_per_hour=1000)
    found = [desktop(member_id=member) for member in standing]
    toy = world(facts, members, [*found, *desktops(assigned, State.ASSIGNED, member_id="b")])
    toy.settle()
    live = [d for d in toy.desktops.values() if d.state in {State.READY, State.ASSIGNED}]
    held = {member.id: sum(d.member_id == member.id for d in live) for member in members}
    assert all(held[member.id] >= member.minimum for member in members)
    floors = minimums[0] + max(0, minimums[1] - assigned)
    assert toy.count(State.READY) == max(floors, wanted(facts, assigned) - assigned)


@given(st.integers(1, 6), st.integers(0, 6))
def test_an_update_never_goes_below_the_spare_while_there_is_room(spare: int, room: int) -> None:
    facts = pool(spare=spare, maximum=spare + 1 + room)
    toy = world(facts, [KVM], desktops(spare, copy_current=False))
    while toy.plan() or toy.count(*LIVE) != toy.count(State.READY):
        toy.carry_out(toy.plan())
        assert toy.count(State.READY) >= spare
        toy.pass_time()
    assert toy.built == spare


def test_a_broken_template_is_tried_ever_more_rarely() -> None:
    toy = world(pool(spare=4, maximum=10), [KVM], [], broken=frozenset({"kvm"}))
    per_hour = []
    for _ in range(12):
        before = toy.failures
        for _ in range(60):
            toy.carry_out(toy.plan())
            toy.pass_time()
        per_hour.append(toy.failures - before)
    assert per_hour[0] <= 12
    assert per_hour[-1] <= 2
    assert toy.count(State.FAILED) <= KEPT_FAILED + 1
    assert toy.count(*LIVE) <= 10


def test_a_repaired_template_fills_the_pool_again() -> None:
    toy = world(pool(spare=4, maximum=5), [KVM], [], broken=frozenset({"kvm"}))
    for _ in range(100):
        toy.carry_out(toy.plan())
        toy.pass_time()
    toy.broken = frozenset()
    toy.now += timedelta(minutes=64)
    toy.settle()
    assert toy.count(State.READY) == 4


def test_two_hosts_one_dies_and_comes_back_nothing_is_lost_or_doubled() -> None:
    toy = world(pool(spare=4, maximum=20), [MemberFacts(id="a"), MemberFacts(id="b")], [])
    toy.settle()
    toy.desktops.update(
        {k: replace(d, state=State.ASSIGNED, is_assigned=True) for k, d in list(toy.desktops.items())[:2]}
    )
    toy.members[0] = replace(toy.members[0], status="down", status_since=toy.now)
    toy.pass_time()
    toy.settle()
    up = [d for d in toy.desktops.values() if d.state == State.READY and d.member_id == "b"]
    assert len(up) >= 4
    toy.members[0] = replace(toy.members[0], status="up", status_since=toy.now)
    toy.settle()
    assert toy.count(State.READY) == 4
    assert toy.count(State.ASSIGNED) == 2
