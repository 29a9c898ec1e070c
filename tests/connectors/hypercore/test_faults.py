"""Every kind of fault of the wire, at a reading and at a changing order; and the one table of errors."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from connectors import errors
from connectors.base import CloneMachine, DeleteMachine, MachineMade, Outcome, Receipt, Stage
from connectors.errors import ConnectorError
from connectors.hypercore import faults
from connectors.hypercore.faults import Refusal
from tests.connectors.contract import clone, do, listing, made, new_key, ref, soon, submit
from tests.connectors.hypercore.worlds import PASSWORD, HyperCoreWorld

HTML = "<html><body>502 Bad Gateway</body></html>"
EVERYWHERE = -1

READING: dict[str, tuple[type[ConnectorError], dict[str, Any]]] = {
    "hang": (errors.Unreachable, {}),
    "drop_before": (errors.Unreachable, {}),
    "drop_after": (errors.Unreachable, {}),
    "truncate": (errors.Unreachable, {}),
    "502 in HTML": (errors.Unreachable, {"status": 502, "body": HTML}),
    "503": (errors.Unreachable, {"status": 503}),
    "200 in HTML": (errors.Unreachable, {"status": 200, "body": HTML}),
    "429": (errors.Busy, {"status": 429, "headers": {"Retry-After": "7"}}),
    "401": (errors.CredentialsRejected, {"status": 401}),
}
"""What every node does to every question about machines -> what a listing raises."""


def fault(world: HyperCoreWorld, name: str, where: str, how: dict[str, Any], count: int = EVERYWHERE) -> None:
    kind = name if name in ("hang", "drop_before", "drop_after", "truncate", "slow") else "status"
    world.faults.add(kind, where, count=count, **how)


def require_no_secret(*errors_: BaseException | None) -> None:
    for error in errors_:
        assert PASSWORD not in repr(error)
        assert PASSWORD not in str(getattr(error, "platform_words", ""))


@pytest.mark.parametrize("name", READING)
def test_a_reading_tells_what_the_broker_does_next(world: HyperCoreWorld, name: str) -> None:
    kind, how = READING[name]
    connector = world.connector()
    fault(world, name, "GET /rest/v1/VirDomain", how)
    with pytest.raises(ConnectorError) as told:
        connector.inventory(None, soon(3))
    assert type(told.value) is kind
    require_no_secret(told.value)
    if kind is errors.Busy:
        assert told.value.retry_after_s == 7
    world.faults.clear()
    assert listing(connector).complete


@pytest.mark.parametrize("status", [403, 404, 405, 500])
def test_a_refused_part_of_a_reading_makes_it_partial(world: HyperCoreWorld, status: int) -> None:
    connector = world.connector()
    fault(world, "status", "GET /rest/v1/VirDomain", {"status": status})
    inventory = connector.inventory(None, soon(5))
    assert not inventory.complete
    assert "machine" in inventory.partial
    assert inventory.hosts


def go_on(world: HyperCoreWorld, order: CloneMachine | DeleteMachine) -> tuple[Outcome, list[ConnectorError]]:
    """As the pump does: what is unknown comes again with a higher attempt, to another process."""
    attempt, lost, outcome = 1, [], None
    connector = world.connector()
    until = time.monotonic() + 40
    while outcome is None or outcome.stage is Stage.RUNNING:
        assert time.monotonic() < until
        try:
            if outcome is None:
                outcome = next(iter(connector.submit([dataclasses.replace(order, attempt=attempt)], soon(3))))
            else:
                outcome = next(iter(connector.poll([Receipt(order, outcome.receipt or {})], soon(3))))
        except ConnectorError as error:
            lost.append(error)
            outcome, attempt, connector = None, attempt + 1, world.connector()
        time.sleep(0.05)
    return outcome, lost


CHANGING: dict[str, tuple[type[ConnectorError], dict[str, Any]]] = {
    "hang": (errors.Unreachable, {}),
    "drop_before": (errors.Unreachable, {}),
    "drop_after": (errors.Unreachable, {}),
    "truncate": (errors.Unreachable, {}),
    "502 in HTML": (errors.Unreachable, {"status": 502, "body": HTML}),
    "401": (errors.CredentialsRejected, {"status": 401}),
}


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("where", ["POST .*/clone", "PATCH", "VirDomain/action"])
def test_a_clone_goes_on_after_any_fault_of_the_wire(world: HyperCoreWorld, name: str, where: str) -> None:
    kind, how = CHANGING[name]
    fault(world, name, where, how, count=2 if name == "401" else 1)
    order = clone(world, power_on=True)
    outcome, lost = go_on(world, order)
    assert [type(error) for error in lost] == [kind]
    require_no_secret(*lost)
    assert isinstance(outcome.result, MachineMade)
    assert list(world.machines()) == [outcome.result.machine_id]
    assert len(world.asked("POST", "/clone")) <= (3 if name == "401" else 2)


@pytest.mark.parametrize("name", CHANGING)
def test_a_delete_goes_on_after_any_fault_of_the_wire(world: HyperCoreWorld, name: str) -> None:
    machine = ref(world, made(world, world.connector(), clone(world)))
    kind, how = CHANGING[name]
    fault(world, name, "DELETE", how, count=2 if name == "401" else 1)
    outcome, lost = go_on(world, DeleteMachine(key=new_key(), machine=machine))
    assert [type(error) for error in lost] == [kind]
    assert outcome.stage is Stage.DONE
    assert not world.machines()
    assert not world.litter()


REFUSED = {
    400: errors.PlatformFault,
    403: errors.Unsupported,
    404: errors.NotFound,
    409: errors.Conflict,
    412: errors.Conflict,
    428: errors.Conflict,
}


@pytest.mark.parametrize("status", REFUSED)
@pytest.mark.parametrize("where", ["POST .*/clone", "PATCH", "VirDomain/action"])
def test_a_refused_clone_leaves_nothing_and_succeeds_later(world: HyperCoreWorld, status: int, where: str) -> None:
    order = clone(world, power_on=True)
    fault(world, "status", where, {"status": status, "body": '{"error": "No."}'}, count=1)
    outcome, lost = go_on(world, order)
    assert not lost
    assert type(outcome.error) is REFUSED[status]
    assert outcome.error.platform_words == "No."
    require_no_secret(outcome.error)
    assert not world.machines()
    assert not world.litter()
    made(world, world.connector(), dataclasses.replace(order, attempt=2))


@pytest.mark.parametrize("where", ["POST .*/clone", "PATCH", "VirDomain/action"])
def test_a_busy_cluster_is_come_back_to(world: HyperCoreWorld, where: str) -> None:
    fault(world, "status", where, {"status": 429, "headers": {"Retry-After": "1"}}, count=2)
    connector = world.connector()
    machine = made(world, connector, clone(world, power_on=True))
    assert list(world.machines()) == [machine.machine_id]


def test_slow_answers_change_nothing(world: HyperCoreWorld) -> None:
    fault(world, "slow", "", {"delay_s": 0.1})
    connector = world.connector()
    assert listing(connector).complete
    made(world, connector, clone(world))


def test_a_session_that_ends_is_begun_anew_once(world: HyperCoreWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.faults.add("session_expires", "GET /rest/v1/VirDomain", count=1)
    assert listing(connector).complete
    world.faults.add("session_expires", "POST .*/clone", count=1)
    made(world, connector, clone(world))
    assert len(world.machines()) == 1


def test_a_refused_account_is_asked_once_and_at_one_node(world: HyperCoreWorld) -> None:
    """Three nodes, two tries each, would lock an account out."""
    connector = world.connector(password="wrong")
    for call in (
        lambda: connector.check(soon()),
        lambda: connector.inventory(None, soon()),
        lambda: submit(connector, [clone(world)]),
    ):
        before = len(world.asked("POST", "/login"))
        with pytest.raises(errors.CredentialsRejected) as told:
            call()
        assert "'deskyard'" in told.value.message
        assert len(world.asked("POST", "/login")) == before + 1


def test_a_task_that_hangs_keeps_others_waiting_and_nobody_blocked(world: HyperCoreWorld) -> None:
    world.faults.add("task_hangs", "Clone")
    connector, first, second = world.connector(), clone(world), clone(world)
    outcomes = submit(connector, [first, second])
    began = time.monotonic()
    for _ in range(3):
        receipts = [Receipt(order, outcomes[order.key].receipt or {}) for order in (first, second)]
        outcomes = {outcome.key: outcome for outcome in connector.poll(receipts, soon())}
    assert time.monotonic() - began < 2
    assert outcomes[second.key].step == "Waiting for the one before"


def test_half_a_listing_is_what_the_broker_must_not_believe_alone(world: HyperCoreWorld) -> None:
    """Nothing in HyperCore's answer tells that machines are missing: the broker's rule of two listings has to."""
    connector = world.connector()
    for _ in range(3):
        do(world, connector, clone(world))
    world.faults.add("partial_inventory", "VirDomain")
    assert len(listing(connector).machines) < 3
    assert len(listing(connector).machines) >= 3


def test_a_listing_that_is_not_there_says_nothing_of_a_machine(world: HyperCoreWorld) -> None:
    machine = ref(world, made(world, world.connector(), clone(world)))
    fault(world, "status", "GET /rest/v1/VirDomain ", {"status": 404})
    with pytest.raises(errors.Unreachable):
        submit(world.connector(), [DeleteMachine(key=new_key(), machine=machine)])


def test_a_record_that_cannot_be_understood_is_no_missing_machine(world: HyperCoreWorld) -> None:
    machine = ref(world, made(world, world.connector(), clone(world)))
    body = '[{"uuid": "a", "name": "odd", "mem": "plenty"}]'
    fault(world, "status", "GET /rest/v1/VirDomain ", {"status": 200, "body": body})
    order = DeleteMachine(key=new_key(), machine=machine)
    outcome = submit(world.connector(), [order])[order.key]
    assert isinstance(outcome.error, errors.PlatformFault)


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "conditions", "expected"),
    [
        (Refusal(400, "Property not allowed: x"), (), errors.PlatformFault),
        (Refusal(400, "Bad Request"), ("SSD storage tier is 93% full",), errors.CapacityExhausted),
        (Refusal(400, "Bad Request"), ("A fan is slow",), errors.PlatformFault),
        (Refusal(500, "An internal error occurred"), (), errors.PlatformFault),
        (Refusal(0, "insufficient memory on node 2"), (), errors.CapacityExhausted),
        (Refusal(0, "Unable to process: insufficient storage capacity"), (), errors.CapacityExhausted),
        (Refusal(0, "VirDomain not found"), (), errors.NotFound),
        (Refusal(0, "The name already exists"), (), errors.Conflict),
        (Refusal(0, "Another operation is in progress"), (), errors.Busy),
        (Refusal(404, "not found"), (), errors.NotFound),
        (Refusal(403, "no role"), ("SSD storage tier is 93% full",), errors.Unsupported),
        (Refusal(418, "a teapot"), (), errors.PlatformFault),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_refusal_is_what_the_broker_does_next(
    refusal: Refusal, conditions: tuple[str, ...], expected: type[Exception]
) -> None:
    assert faults.kind_of(refusal, conditions) is expected


def test_every_kind_of_error_has_advice() -> None:
    kinds = {kind for _, kind in faults.WORDS} | set(faults.BY_STATUS.values())
    assert kinds | {errors.PlatformFault, errors.CertificateRejected} == set(faults.ADVICE)


def test_the_platforms_own_words_are_kept_apart_from_the_message() -> None:
    told = faults.ours(Refusal(0, "something odd"), "cloning the template", "HyperCore at a")
    assert told.message == (
        "HyperCore at a: cloning the template failed. HyperCore's own words are kept with the operation."
    )
    assert told.platform_words == "something odd"


def test_a_condition_that_explains_it_is_told() -> None:
    told = faults.ours(Refusal(400, "Bad Request"), "cloning", "hc3-a", ("A fan is slow", "SSD tier is full"))
    assert "The cluster says: SSD tier is full." in told.message
    assert "A fan is slow" in told.platform_words
