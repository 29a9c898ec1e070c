"""Tasks are asked after together, and what goes wrong with the list spoils no order."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest

from connectors.base import CloneMachine, MachineMade, Outcome, Receipt, Stage
from connectors.errors import NotFound, PlatformFault
from connectors.nutanix.client import Client
from connectors.nutanix.connector import NutanixConnector
from connectors.nutanix.tasks import FRESH_S, Tasks
from lab.http import Request, Response
from lab.nouns import TaskState
from lab.nutanix.views import TASK_PREFIX
from tests.connectors.contract import clone, finish, poll, soon, submit
from tests.connectors.nutanix.worlds import PrismWorld

LIST, BY_ID = "GET prism/config/tasks", "GET prism/config/tasks/{}"


def asked(world: PrismWorld, label: str) -> list[str]:
    """The paths of a label's requests, decoded."""
    return [unquote(seen.raw_path) for seen in world.server.requests if seen.label == label]


def begun(world: PrismWorld, connector: NutanixConnector, count: int) -> tuple[list[CloneMachine], dict[str, Outcome]]:
    """Clones under way."""
    orders = [clone(world, power_on=True) for _ in range(count)]
    return orders, submit(connector, orders)


def receipts(orders: list[CloneMachine], outcomes: dict[str, Outcome]) -> list[Receipt]:
    return [Receipt(order, outcomes[order.key].receipt or {}) for order in orders]


def all_made(
    world: PrismWorld, connector: NutanixConnector, orders: list[CloneMachine], outcomes: dict[str, Outcome]
) -> None:
    until = time.monotonic() + 20
    while any(outcome.stage is Stage.RUNNING for outcome in outcomes.values()):
        assert time.monotonic() < until
        time.sleep(0.1)
        left = [order for order in orders if outcomes[order.key].stage is Stage.RUNNING]
        outcomes |= poll(connector, receipts(left, outcomes))
    assert {outcome.stage for outcome in outcomes.values()} == {Stage.DONE}, outcomes
    assert len(world.machines()) == len(orders)


def tasks_of_the_lab(world: PrismWorld, tmp_path: Path, count: int) -> tuple[Tasks, list[str]]:
    with world.lab:
        made = [world.lab.start_task("Anything", "", 1_000, lambda: None) for _ in range(count)]
    return Tasks(Client(world.settings, tmp_path)), [TASK_PREFIX + task.id for task in made]


# --- together --------------------------------------------------------------------------------------------------------


def test_one_call_asks_after_all_tasks_of_a_batch(world: PrismWorld) -> None:
    connector = world.connector()
    orders, outcomes = begun(world, connector, 6)
    outcomes = poll(connector, receipts(orders, outcomes))
    (path,) = asked(world, LIST)
    ids = [str((outcomes[order.key].receipt or {}).get("task")) for order in orders]
    assert all(f"extId eq '{id}'" in path for id in ids)
    assert not asked(world, BY_ID)
    all_made(world, connector, orders, outcomes)
    assert not asked(world, BY_ID)
    assert len(asked(world, LIST)) < 3 * len(orders), "fewer than one a task"


def test_a_filter_names_fifty_tasks_and_no_more(world: PrismWorld, tmp_path: Path) -> None:
    tasks, ids = tasks_of_the_lab(world, tmp_path, 120)
    tasks.watch(ids)
    for id in ids:
        assert tasks.read(id, soon(), "asking").id == id
    assert [path.count("extId eq") for path in asked(world, LIST)] == [50, 50, 50]
    assert not asked(world, BY_ID)


def test_a_task_that_ran_is_believed_to_run_for_a_while_and_one_that_ended_for_ever(
    world: PrismWorld, tmp_path: Path
) -> None:
    tasks, ids = tasks_of_the_lab(world, tmp_path, 2)
    tasks.watch(ids)
    for _ in range(3):
        assert not tasks.read(ids[0], soon(), "asking").is_over
    assert len(asked(world, LIST)) == 1
    with world.lab:
        world.lab._end(world.lab.tasks[ids[0].removeprefix(TASK_PREFIX)], TaskState.DONE)
    time.sleep(FRESH_S)
    assert tasks.read(ids[0], soon(), "asking").is_over
    calls = len(world.server.requests)
    time.sleep(FRESH_S)
    assert tasks.read(ids[0], soon(), "asking").is_over
    assert len(world.server.requests) == calls


def test_a_task_nobody_asks_after_any_more_is_dropped(
    world: PrismWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, ids = tasks_of_the_lab(world, tmp_path, 3)
    tasks.watch(ids)
    monkeypatch.setattr("connectors.nutanix.tasks.FORGOTTEN_S", 0.2)
    time.sleep(0.3)
    tasks.watch(ids[1:])
    tasks.read(ids[1], soon(), "asking")
    (path,) = asked(world, LIST)
    assert ids[0] not in path


# --- what a list does not tell ---------------------------------------------------------------------------------------


def test_a_task_that_the_list_does_not_show_is_asked_for_by_its_id(world: PrismWorld, tmp_path: Path) -> None:
    tasks, ids = tasks_of_the_lab(world, tmp_path, 3)
    shorten(world, but=ids[1])
    tasks.watch(ids)
    assert [tasks.read(id, soon(), "asking").id for id in ids] == ids
    assert [path.rsplit("/", 1)[1] for path in asked(world, BY_ID)] == [ids[1]]


def test_a_task_that_prism_has_forgotten_is_not_found(world: PrismWorld, tmp_path: Path) -> None:
    tasks, ids = tasks_of_the_lab(world, tmp_path, 2)
    del world.lab.tasks[ids[0].removeprefix(TASK_PREFIX)]
    tasks.watch(ids)
    with pytest.raises(NotFound):
        tasks.read(ids[0], soon(), "asking")
    assert not tasks.read(ids[1], soon(), "asking").is_over


def test_why_a_task_failed_is_known_though_the_list_does_not_tell(world: PrismWorld) -> None:
    shorten(world, without=("errorMessages", "legacyErrorMessage"))
    connector = world.connector()
    world.faults.add("task_fails", "^CloneVm$", count=2)
    orders, outcomes = begun(world, connector, 2)
    for order in orders:
        outcome = finish(world, connector, order, outcomes[order.key])
        assert isinstance(outcome.error, PlatformFault)
        assert "broke off" in outcome.error.platform_words


def test_what_a_task_made_is_known_though_the_list_does_not_tell(world: PrismWorld) -> None:
    shorten(world, without=("entitiesAffected",))
    connector = world.connector()
    orders, outcomes = begun(world, connector, 2)
    all_made(world, connector, orders, outcomes)
    assert not asked(world, "GET vmm/ahv/config/vms"), "nobody was sought by name"


def shorten(world: PrismWorld, *, but: str = "", without: Sequence[str] = ()) -> None:
    """Lists of tasks leave out one task, or some fields of all."""
    handle = world.server.handle

    def shortened(request: Request) -> Response:
        response = handle(request)
        if world.server.label(request) == LIST and response.status == 200:
            body = json.loads(response.body)
            body["data"] = [
                {name: value for name, value in task.items() if name not in without}
                for task in body.get("data", ())
                if task["extId"] != but
            ]
            body["metadata"]["totalAvailableResults"] = len(body["data"])
            response.body = json.dumps(body).encode()
        return response

    world.server.handle = shortened  # type: ignore[method-assign]


# --- a list that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 500, 501])
def test_where_the_filter_is_refused_each_task_is_asked_for_by_its_id(world: PrismWorld, status: int) -> None:
    connector = world.connector()
    world.faults.add("status", f"^{LIST}$", count=-1, status=status)
    orders, outcomes = begun(world, connector, 3)
    all_made(world, connector, orders, outcomes)
    assert len(asked(world, LIST)) == 1, "it is not tried again"
    assert len(asked(world, BY_ID)) >= 9


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_list_keeps_orders_waiting_and_is_asked_again(world: PrismWorld, status: int) -> None:
    connector = world.connector()
    world.faults.add("status", f"^{LIST}$", count=3, status=status, headers={"Retry-After": "0.2"})
    orders, outcomes = begun(world, connector, 3)
    outcomes = poll(connector, receipts(orders, outcomes))
    assert {outcome.stage for outcome in outcomes.values()} == {Stage.RUNNING}
    all_made(world, connector, orders, outcomes)
    assert not asked(world, BY_ID)


def test_orders_go_on_without_their_list_of_names(world: PrismWorld) -> None:
    """A clone whose machine cannot be read at once keeps its id: lists of machines are the scarcest call."""
    connector, order = world.connector(), clone(world)
    outcome = submit(connector, [order])[order.key]
    busy = world.faults.add("status", r"^GET vmm/ahv/config/vms/\{\}$", count=2, status=503)
    outcome = finish(world, connector, order, outcome)
    assert busy.struck == 2
    assert isinstance(outcome.result, MachineMade)
    assert not asked(world, "GET vmm/ahv/config/vms")
