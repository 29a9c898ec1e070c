"""Which desktops a power action reaches, and why not the others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.lifecycle import State
from broker.domain.power import JUST_GIVEN, DesktopFacts, Selection, select, select_by_schedule
from broker.domain.schedules import Action, Reach, wanted_on

NOW = datetime(2026, 11, 26, 20, tzinfo=UTC)


def desktop(name: str = "office-001", **fields: Any) -> DesktopFacts:
    values: dict[str, Any] = {"id": uuid4(), "name": name, "state": State.READY, "power": "on"}
    return DesktopFacts(**(values | fields))


def why(found: Selection) -> list[str]:
    return [reason for _, reason in found.skipped]


@pytest.mark.parametrize(
    ("action", "fields", "reason"),
    [
        ("on", {"power": "on"}, "on already"),
        ("off", {"power": "off"}, "off already"),
        ("shutdown", {"power": "off"}, "off already"),
        ("reboot", {"power": "off"}, "switched off"),
        ("off", {"has_machine": False, "state": State.BUILDING}, "without a machine yet"),
        ("off", {"state": State.RETIRING}, "being deleted"),
        ("off", {"state": State.MISSING}, "missing"),
        ("off", {"is_busy": True}, "busy with another change"),
    ],
)
def test_a_person_is_told_why_a_desktop_is_left_out(action: str, fields: dict[str, Any], reason: str) -> None:
    assert why(select(action, [desktop(**fields)])) == [reason]


def test_a_persons_order_reaches_what_is_in_use_and_counts_it() -> None:
    found = select("off", [desktop(is_in_use=True), desktop(is_in_maintenance=True), desktop(power="unknown")])
    assert (len(found.chosen), found.in_use, found.skipped) == (3, 1, [])


def test_reasons_are_counted_the_commonest_first() -> None:
    found = select("off", [desktop(power="off"), desktop(state=State.MISSING), desktop(power="off")])
    assert found.reasons == "2 off already, 1 missing"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"is_in_use": True}, "in use"),
        ({"is_in_maintenance": True}, "in maintenance"),
        ({"is_busy": True}, "busy with another change"),
        ({"state": State.ASSIGNED, "assigned_since": NOW - JUST_GIVEN / 2}, "just given to somebody"),
    ],
)
def test_off_spares_whom_it_would_hurt(fields: dict[str, Any], reason: str) -> None:
    assert why(select_by_schedule(Action.OFF, Reach.ALL, None, [desktop(**fields)], NOW)) == [reason]


def test_off_shuts_down_what_is_free_and_what_its_user_left() -> None:
    left = desktop(state=State.ASSIGNED, assigned_since=NOW - timedelta(days=3))
    assert len(select_by_schedule(Action.OFF, Reach.ALL, None, [desktop(), left], NOW).chosen) == 2


@pytest.mark.parametrize("state", [State.PREPARING, State.FAILED, State.RECYCLING, State.BUILDING])
def test_a_schedule_leaves_alone_what_is_on_its_way(state: State) -> None:
    for action in Action:
        found = select_by_schedule(action, Reach.ALL, None, [desktop(state=state)], NOW)
        assert (found.chosen, found.skipped) == ([], [])


def test_on_counts_those_that_are_on_and_begins_with_what_is_somebodys() -> None:
    rows = [
        desktop("a", power="off"),
        desktop("b", power="on"),
        desktop("c", power="off"),
        desktop("d", power="off", state=State.ASSIGNED, assigned_since=NOW - timedelta(days=3)),
    ]
    found = select_by_schedule(Action.ON, Reach.NUMBER, 3, rows, NOW)
    assert [d.name for d in found.chosen] == ["d", "a"]
    assert found.reasons == "1 not needed, 1 on already"


DESKTOPS = st.lists(
    st.builds(
        DesktopFacts,
        id=st.uuids(),
        name=st.text("abc", max_size=3),
        state=st.sampled_from(State),
        power=st.sampled_from(["on", "off", "suspended", "unknown"]),
        has_machine=st.booleans(),
        is_busy=st.booleans(),
        is_in_use=st.booleans(),
        is_in_maintenance=st.booleans(),
        assigned_since=st.none() | st.just(NOW) | st.just(NOW - timedelta(days=1)),
    ),
    max_size=12,
)


@given(DESKTOPS)
def test_off_never_reaches_anybody_at_work(desktops: list[DesktopFacts]) -> None:
    for chosen in select_by_schedule(Action.OFF, Reach.ALL, None, desktops, NOW).chosen:
        assert (chosen.is_in_use, chosen.is_in_maintenance, chosen.is_busy) == (False, False, False)
        assert chosen.power != "off"
        assert chosen.state in (State.READY, State.ASSIGNED)
        assert chosen.assigned_since != NOW


@given(DESKTOPS, st.sampled_from(Reach), st.integers(1, 100))
def test_on_never_makes_more_than_it_wants(desktops: list[DesktopFacts], reach: Reach, amount: int) -> None:
    found = select_by_schedule(Action.ON, reach, amount, desktops, NOW)
    mine = [d for d in desktops if d.state in (State.READY, State.ASSIGNED)]
    already = sum(d.power == "on" for d in mine)
    assert len(found.chosen) <= max(0, wanted_on(len(mine), reach, amount) - already)
    assert all(d.power != "on" for d in found.chosen)


@given(DESKTOPS, st.sampled_from(["on", "off", "shutdown", "reboot", "reset", "suspend", "resume"]))
def test_every_desktop_is_either_chosen_or_has_a_reason(desktops: list[DesktopFacts], action: str) -> None:
    found = select(action, desktops)
    assert len(found.chosen) + len(found.skipped) == len(desktops)
    assert all(reason for _, reason in found.skipped)
