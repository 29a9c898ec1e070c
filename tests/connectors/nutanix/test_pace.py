"""How often may be asked: one pace for all who ask the same endpoint, and what the server tells of its limits."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
import requests

from connectors.base import CloneMachine, Outcome, Receipt, Stage
from connectors.errors import Busy
from connectors.nutanix import pace
from connectors.nutanix.client import Client
from connectors.nutanix.pace import Pace, retry_after_s
from connectors.nutanix.settings import NutanixSettings
from lab.nutanix.server import RATES
from tests.connectors.contract import clone, finish, listing, made, poll, soon, submit
from tests.connectors.nutanix.worlds import PrismWorld

HASTE = '{"data": {"error": [{"code": "PLAT-10006", "errorGroup": "RATE_LIMIT_EXCEEDED", "message": "Too many."}]}}'
"""What Prism says when a rate is used up, as prism-go-client knows it."""
LIMITS = {"X-Ratelimit-Limit": "30", "X-Ratelimit-Reset": "1"}


# --- counting --------------------------------------------------------------------------------------------------------


def test_a_route_is_asked_as_often_as_it_may_be_and_no_more() -> None:
    pace = Pace()
    taken = [pace.take("GET vmm/ahv/config/vms") for _ in range(4)]
    assert taken[:2] == [0.0, 0.0]
    assert taken[2] > 0.9
    assert pace.take("GET vmm/ahv/config/vms/{}") == 0.0


def test_what_the_server_tells_of_its_limits_counts() -> None:
    pace = Pace()
    pace.learn("GET x", {"X-Api-Ratelimit-Limit": "6", "X-Api-Ratelimit-Refresh-Period-Seconds": "2"})
    assert [pace.take("GET x") > 0 for _ in range(4)] == [False] * 3 + [True]
    pace.learn("GET x", {"X-Api-Ratelimit-Limit": "nonsense"})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "3"}, 3.0), ({"X-Ratelimit-Reset": "1"}, 1.0), ({}, None), ({"Retry-After": "Thu, 01 Jan"}, None),
     ({"Retry-After": "999999"}, 300.0), ({"X-Ratelimit-Reset": "1790000000"}, None)],
)  # fmt: skip
def test_how_long_to_stay_away_is_read_from_either_header(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_what_others_take_of_the_whole_rate_is_not_taken_again() -> None:
    pace = Pace()
    assert pace.take("GET a") == 0
    pace.learn("GET a", LIMITS | {"X-Ratelimit-Remaining": "4"})  # 25 of the 26 that are gone are not ours
    assert [pace.take(f"GET {number}") > 0 for number in range(6)] == [False] * 4 + [True] * 2


def test_our_own_calls_are_not_taken_for_those_of_others() -> None:
    pace = Pace()
    for number in range(20):
        assert pace.take(f"GET {number}") == 0
        pace.learn(f"GET {number}", LIMITS | {"X-Ratelimit-Remaining": str(29 - number)})
    assert [pace.take(f"POST {number}") > 0 for number in range(11)] == [False] * 10 + [True]


def test_a_rate_that_comes_back_late_is_waited_for() -> None:
    pace = Pace()
    pace.learn("GET a", {"X-Ratelimit-Limit": "30", "X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "20"})
    assert pace.take("GET b") > 19


def test_a_refusal_keeps_everybody_from_that_route_alone() -> None:
    pace = Pace()
    assert pace.refused("GET a", {"Retry-After": "3"}) == 0
    assert 2.5 < pace.take("GET a") <= 3
    assert pace.take("GET b") == 0


def test_how_long_a_route_was_only_refused_is_known_and_ends_with_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace()
    seen = []
    for seconds in (0, 4, 4, 60, 5):
        now[0] += seconds
        seen.append(pace.refused("GET a", {"Retry-After": "1"}))
    assert seen == [0, 4, 8, 0, 5], "a minute in which nobody asked tells nothing"
    pace.answered("GET a")
    now[0] += 1
    assert pace.refused("GET a", {}) == 0


# --- sharing ---------------------------------------------------------------------------------------------------------


def settings(**changes: object) -> NutanixSettings:
    known = {"address": "prism", "user": "deskyard", "password": "geheim"} | changes
    return NutanixSettings(**known)  # type: ignore[arg-type]


def test_those_who_ask_one_endpoint_as_one_account_share_their_pace(tmp_path: Path) -> None:
    first, second = Client(settings(), tmp_path), Client(settings(address="Prism", password="new"), tmp_path)
    assert first._pace is second._pace
    key = {"sign_in": "api_key", "user": "", "password": ""}
    others = [
        Client(one, tmp_path)
        for one in (
            settings(port=9441), settings(address="other"), settings(user="dana"), settings(**key, api_key="a"),
            settings(**key, api_key="b"),
        )
    ]  # fmt: skip
    assert len({id(client._pace) for client in [first, *others]}) == 6


def test_a_pace_goes_with_the_last_who_keeps_it_and_holds_no_secret(tmp_path: Path) -> None:
    address = "prism-that-goes"
    clients = [Client(settings(address=address, sign_in="api_key", api_key="schluessel"), tmp_path) for _ in range(2)]
    assert [name for name in pace._shared if name[0] == address]
    assert "schluessel" not in repr(list(pace._shared))
    del clients
    gc.collect()
    assert not [name for name in pace._shared if name[0] == address]


def test_two_connector_objects_together_keep_to_the_rates(world: PrismWorld) -> None:
    world.server.rates = dict(RATES)
    pump, inventory = world.connector(), world.connector()
    orders = [clone(world) for _ in range(4)]
    outcomes = submit(pump, orders)
    for _ in range(2):
        listing(inventory)
        outcomes |= poll(pump, running(orders, outcomes))
    for order in orders:
        assert finish(world, pump, order, outcomes[order.key]).stage is Stage.DONE
    assert not [seen for seen in world.server.requests if seen.status == 429]


def running(orders: list[CloneMachine], outcomes: dict[str, Outcome]) -> list[Receipt]:
    return [
        Receipt(order, outcomes[order.key].receipt or {})
        for order in orders
        if outcomes[order.key].stage is Stage.RUNNING
    ]


def test_a_stranger_at_the_same_prism_is_made_room_for(world: PrismWorld) -> None:
    world.server.rates = {**RATES, "GET *": 30, "GET vmm/ahv/config/vms/{}": 30}
    connector = world.connector()
    listing(connector)
    time.sleep(1.1)
    with requests.Session() as stranger:
        stranger.verify, stranger.trust_env = world.trusted(), False
        stranger.headers["X-ntnx-api-key"] = world.server.account.api_key
        for _ in range(22):
            where = f"https://{world.server.address}:{world.server.port}/api/networking/v4.2/config/subnets"
            assert stranger.get(where).status_code == 200
    outcomes = submit(connector, [clone(world) for _ in range(12)])
    assert {outcome.stage for outcome in outcomes.values()} == {Stage.RUNNING}
    assert not [seen for seen in world.server.requests if seen.status == 429]


# --- being refused ---------------------------------------------------------------------------------------------------


def test_a_refusal_for_haste_is_waited_out_and_asked_again(world: PrismWorld) -> None:
    connector, order = world.connector(), clone(world)
    world.faults.add("status", world.changing, status=429, body=HASTE, headers={"Retry-After": "0.2"})
    outcome = submit(connector, [order])[order.key]
    assert (outcome.receipt or {}).get("task"), "the same call has begun it"


def test_an_order_that_is_refused_for_haste_waits_for_its_turn(world: PrismWorld) -> None:
    connector, order = world.connector(), clone(world)
    world.faults.add("status", world.changing, status=429, body=HASTE, headers={"Retry-After": "3"})
    outcome = submit(connector, [order])[order.key]
    assert outcome.stage is Stage.RUNNING
    assert 2 < outcome.poll_after_s <= 3
    asked = len(world.server.requests)
    outcome = poll(world.connector(), [Receipt(order, outcome.receipt or {})])[order.key]
    assert outcome.stage is Stage.RUNNING
    assert not [seen for seen in list(world.server.requests)[asked:] if seen.status == 429], "it is left alone"
    time.sleep(outcome.poll_after_s)
    assert finish(world, connector, order, outcome).stage is Stage.DONE


def test_who_hears_of_haste_for_long_and_of_nothing_else_meets_a_busy_prism(
    world: PrismWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LONG_S", 0.5)
    connector, order = world.connector(), clone(world)
    world.faults.add("status", world.changing, count=-1, status=429, headers=LIMITS | {"Retry-After": "0.2"})
    outcome = finish(world, connector, order)
    assert isinstance(outcome.error, Busy)
    assert outcome.error.retry_after_s == 0.2
    world.faults.clear()
    made(world, connector, CloneMachine(key=order.key, name=order.name, template=order.template, attempt=2))
    assert len(world.machines()) == 1


def test_haste_is_told_by_the_words_whatever_the_status_is(world: PrismWorld) -> None:
    connector, order = world.connector(), clone(world)
    world.faults.add("status", world.changing, status=500, body=HASTE, headers={"Retry-After": "0.1"})
    assert submit(connector, [order])[order.key].stage is Stage.RUNNING


def test_who_looks_and_finds_no_turn_has_not_lost_the_endpoint(world: PrismWorld) -> None:
    connector = world.connector()
    haste = LIMITS | {"Retry-After": "60"}
    world.faults.add("status", "^GET clustermgmt/stats/", count=-1, status=429, headers=haste)
    with pytest.raises(Busy) as reading:
        connector.inventory(None, soon(3))
    world.faults.add("status", "^GET networking/config/subnets$", count=-1, status=429, headers=haste)
    with pytest.raises(Busy) as checking:
        connector.check(soon())
    for caught in (reading, checking):
        assert 50 < (caught.value.retry_after_s or 0) <= 60
