"""The pump: one at a time, in order, within budgets; what it cannot do fails in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.hypervisors import gate
from broker.models import Event, Hypervisor, Operation
from broker.services import operations, pump
from connectors.base import Order, Outcome, Receipt, SetPower, Stage
from connectors.errors import Busy, CredentialsRejected, Unreachable
from tests.broker.plant import Plant
from tests.broker.portal.cast import Estate

State, Kind = Operation.State, Operation.Kind


class Recording:
    """A connector that takes every order and answers "running" until it is told to say something else."""

    takes = frozenset({SetPower})

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.asked: list[str] = []
        self.stage = Stage.RUNNING

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        self.sent += [order.key for order in orders]
        return (self._told(order.key) for order in orders)

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        self.asked += [receipt.order.key for receipt in receipts]
        return (self._told(receipt.order.key) for receipt in receipts)

    def _told(self, key: str) -> Outcome:
        return Outcome(key=key, stage=self.stage, poll_after_s=5)


class Silent(Recording):
    """The order arrives and no answer comes back."""

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        self.sent += [order.key for order in orders]
        return iter(())


class Lost(Recording):
    """The endpoint goes away in mid-call, when something else has happened meanwhile."""

    def __init__(self, error: Exception, meanwhile: Any = lambda: None) -> None:
        super().__init__()
        self.error, self.meanwhile = error, meanwhile

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        self.meanwhile()
        raise self.error


def _order(house: Estate, kind: str = Kind.POWER, **fields: Any) -> Operation:
    """A queued operation without a desktop, unless the fields name one."""
    now = timezone.now()
    parameters: dict[str, Any] = {"machine": str(uuid4())}
    if kind == Kind.POWER:
        parameters["action"] = "on"
    values: dict[str, Any] = {
        "kind": kind,
        "hypervisor": house.hypervisor,
        "changes": "desktop" in fields,
        "parameters": parameters,
        "created_at": now,
        "deadline_at": now + timedelta(hours=1),
    }
    return Operation.objects.create(**(values | fields))


def _lease(house: Estate) -> pump.Lease:
    lease = pump.take_lease(house.hypervisor.pk)
    assert lease is not None
    return lease


def _round(house: Estate, connector: Any, lease: pump.Lease | None = None) -> bool:
    house.hypervisor.refresh_from_db()
    return pump._round(lease or _lease(house), house.hypervisor, connector)


def _states(*orders: Operation) -> list[str]:
    return [Operation.objects.get(pk=order.pk).state for order in orders]


def _steal(house: Estate) -> pump.Lease:
    """Another pump takes over, as it does once a lease has expired."""
    Hypervisor.objects.filter(pk=house.hypervisor.pk).update(pump_expires_at=timezone.now() - timedelta(seconds=1))
    return _lease(house)


# --- the lease -------------------------------------------------------------------------------------------------------


def test_a_lease_is_given_to_one(house: Estate) -> None:
    assert pump.take_lease(house.hypervisor.pk) is not None
    assert pump.take_lease(house.hypervisor.pk) is None


def test_every_lease_has_a_higher_epoch(house: Estate) -> None:
    first = _lease(house)
    pump.let_go(first)
    assert _lease(house).epoch == first.epoch + 1
    assert _steal(house).epoch == first.epoch + 2


def test_an_expired_lease_is_not_revived(house: Estate) -> None:
    lease = _lease(house)
    Hypervisor.objects.update(pump_expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(pump.LeaseLost):
        pump.renew(lease)


def test_who_lost_the_lease_writes_nothing(house: Estate) -> None:
    order = _order(house)
    lease = _lease(house)
    _steal(house)
    with pytest.raises(pump.LeaseLost), pump.under(lease):
        Operation.objects.update(error="written")
    with pytest.raises(pump.LeaseLost):
        pump._choose(lease, house.hypervisor)
    order.refresh_from_db()
    assert (order.state, order.error) == (State.QUEUED, "")


def test_who_lost_the_lease_does_not_let_go_of_anothers(house: Estate) -> None:
    lease = _lease(house)
    _steal(house)
    pump.let_go(lease)
    assert pump.take_lease(house.hypervisor.pk) is None


def test_an_answer_that_comes_after_the_takeover_is_dropped(house: Estate) -> None:
    order = _order(house)
    frozen = Recording()
    frozen.stage = Stage.DONE
    lease = _lease(house)

    class Frozen(Recording):
        def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
            _steal(house)
            return super().submit(orders, deadline)

    with pytest.raises(pump.LeaseLost):
        _round(house, Frozen(), lease)
    assert _states(order) == [State.SENT]


# --- orders whose answer is unknown ----------------------------------------------------------------------------------


def test_an_order_without_an_answer_is_queued_again_only_once_its_call_is_over(house: Estate) -> None:
    order = _order(house)
    lease = _lease(house)
    _round(house, Silent(), lease)
    assert _states(order) == [State.SENT]
    pump.adopt(lease)
    assert _states(order) == [State.SENT]
    Operation.objects.update(call_deadline=timezone.now() - timedelta(milliseconds=1))
    pump.adopt(lease)
    assert _states(order) == [State.QUEUED]


def test_an_order_that_is_sent_again_says_so(house: Estate) -> None:
    order = _order(house)
    lease = _lease(house)
    _round(house, Silent(), lease)
    Operation.objects.update(call_deadline=timezone.now() - timedelta(milliseconds=1))
    _round(house, Recording(), lease)
    order.refresh_from_db()
    assert (order.state, order.attempt) == (State.RUNNING, 2)


def test_a_successor_asks_after_running_orders_at_once(house: Estate) -> None:
    _order(house)
    _round(house, Recording())
    lease = _steal(house)
    pump.adopt(lease)
    successor = Recording()
    _round(house, successor, lease)
    assert len(successor.asked) == 1
    assert not successor.sent


# --- budgets and order -----------------------------------------------------------------------------------------------


def test_no_more_is_in_flight_than_the_budget_allows(house: Estate) -> None:
    Hypervisor.objects.update(power_budget=3)
    for _ in range(5):
        _order(house)
    lease = _lease(house)
    connector = Recording()
    for _ in range(2):
        _round(house, connector, lease)
    assert Operation.objects.filter(state=State.RUNNING).count() == 3
    connector.stage = Stage.DONE
    Operation.objects.filter(state=State.RUNNING).update(next_poll_at=timezone.now())
    _round(house, connector, lease)
    assert Operation.objects.filter(state=State.QUEUED).count() == 0


class Turned(Recording):
    """Every order is turned away for now."""

    def _told(self, key: str) -> Outcome:
        return Outcome(key=key, stage=Stage.FAILED, error=Busy("Come back later."))


def test_a_hypervisor_that_is_busy_is_asked_for_half_as_much_until_it_has_caught_up(house: Estate) -> None:
    Hypervisor.objects.update(build_budget=1, power_budget=8)
    orders = [_order(house, rank=operations.RANK_PERSON) for _ in range(20)]
    lease = _lease(house)
    _round(house, Turned(), lease)
    house.hypervisor.refresh_from_db()
    assert house.hypervisor.halvings == 1
    assert "at most 1 builds and 4 other orders" in Event.objects.get(kind="hypervisor.slowed").message
    Operation.objects.update(not_before=None)
    recording = Recording()
    _round(house, recording, lease)
    assert len(recording.sent) == 4
    Hypervisor.objects.update(halved_at=timezone.now() - timedelta(seconds=61))
    _round(house, recording, lease)
    assert len(recording.sent) == 8
    assert _states(*orders).count(State.RUNNING) == 8
    assert Event.objects.filter(kind="hypervisor.slowed").count() == 1


def test_builds_have_a_budget_of_their_own(house: Estate) -> None:
    Hypervisor.objects.update(power_budget=1, build_budget=2)
    chosen = [_order(house, kind) for kind in (Kind.DELETE, Kind.DELETE, Kind.DELETE, Kind.POWER, Kind.POWER)]
    house.hypervisor.refresh_from_db()
    sent = pump._choose(_lease(house), house.hypervisor)
    assert sorted(o.kind for o in sent) == [Kind.DELETE, Kind.DELETE, Kind.POWER]
    assert {o.pk for o in sent} <= {o.pk for o in chosen}


def test_a_screen_does_not_wait_for_the_power_budget(house: Estate) -> None:
    Hypervisor.objects.update(power_budget=1)
    lease = _lease(house)
    _order(house)
    _round(house, Recording(), lease)
    screen = _order(house, Kind.SCREEN, rank=operations.RANK_SCREEN)
    assert [o.pk for o in pump._choose(lease, house.hypervisor)] == [screen.pk]


def test_what_a_person_waits_for_goes_first_then_by_priority_then_the_oldest(house: Estate) -> None:
    now = timezone.now()
    most_urgent_pool = _order(house, rank=1, created_at=now - timedelta(hours=2))
    newer = _order(house, rank=50, created_at=now)
    older = _order(house, rank=50, created_at=now - timedelta(hours=1))
    person = _order(house, rank=operations.RANK_PERSON, created_at=now)
    chosen = pump._choose(_lease(house), house.hypervisor)
    assert [o.pk for o in chosen] == [person.pk, most_urgent_pool.pk, older.pk, newer.pk]


def test_two_people_wait_and_the_more_important_pool_is_served_first(house: Estate) -> None:
    """So with starts as with builds: both are what a person waits for."""
    now = timezone.now()
    for kind in (Kind.POWER, Kind.CLONE):
        parameters = {} if kind == Kind.POWER else {"parameters": {"name": "x", "template": "golden"}}
        _order(house, kind, rank=operations.rank_for_person(70), created_at=now - timedelta(hours=1), **parameters)
        critical = _order(house, kind, rank=operations.rank_for_person(10), created_at=now, **parameters)
        Hypervisor.objects.update(power_budget=1, build_budget=1)
        lease = _lease(house)
        assert [order.pk for order in pump._choose(lease, house.hypervisor)] == [critical.pk]
        pump.let_go(lease)
        Operation.objects.all().delete()


def test_the_least_important_pools_person_goes_before_any_spare_and_shares_come_last(house: Estate) -> None:
    ranks = [operations.RANK_SCREEN, operations.rank_for_person(1), operations.rank_for_person(100), 1]
    assert ranks == sorted(set(ranks))
    assert operations.rank_for_person(100) <= operations.RANK_PERSON
    share = _order(house, Kind.SHARE, rank=operations.RANK_SHARE, created_at=timezone.now() - timedelta(hours=1))
    power = _order(house, rank=100)
    Hypervisor.objects.update(power_budget=1)
    assert [order.pk for order in pump._choose(_lease(house), house.hypervisor)] == [power.pk]
    assert _states(share) == [State.QUEUED]


def test_with_little_budget_the_person_is_served(house: Estate) -> None:
    Hypervisor.objects.update(power_budget=1)
    house.hypervisor.refresh_from_db()
    now = timezone.now()
    _order(house, rank=1, created_at=now - timedelta(hours=1))
    person = _order(house, rank=operations.RANK_PERSON, created_at=now - timedelta(minutes=1))
    _order(house, rank=1, created_at=now)
    assert [o.pk for o in pump._choose(_lease(house), house.hypervisor)] == [person.pk]


def test_a_thousand_power_orders_never_exceed_the_budget_and_starve_nobody(house: Estate) -> None:
    """All of them slow: who waits for one desktop finds a place at once, round after round, and the rest gets done."""
    Hypervisor.objects.update(power_budget=10)
    now = timezone.now()
    queued = _running(house.hypervisor.pk, 0, 1000)
    for operation in queued:
        operation.state, operation.rank, operation.cause = State.QUEUED, 50, "by the schedule Evenings"
    Operation.objects.bulk_create(queued)
    lease = _lease(house)
    connector = Recording()
    flying = Operation.objects.filter(state=State.RUNNING)
    _round(house, connector, lease)
    assert flying.count() == 8, "two places are kept"
    for _ in range(2):
        person = _order(house, rank=operations.RANK_PERSON, created_at=now)
        _round(house, connector, lease)
        assert _states(person) == [State.RUNNING]
    assert flying.count() == 10
    last = _order(house, rank=operations.RANK_PERSON)
    _round(house, connector, lease)
    assert _states(last) == [State.QUEUED]
    assert flying.count() == 10, "the budget holds for everybody"
    flying.filter(pk__in=[operation.pk for operation in queued]).update(state=State.DONE)
    _round(house, connector, lease)
    assert _states(last) == [State.RUNNING]
    assert flying.count() == 8
    for _ in range(130):
        flying.update(state=State.DONE)
        _round(house, connector, lease)
        assert flying.count() <= 8
    assert not Operation.objects.filter(state=State.QUEUED).exists()


def test_what_is_kept_for_people_is_a_share_of_what_a_busy_hypervisor_is_asked_for_now(house: Estate) -> None:
    Hypervisor.objects.update(power_budget=20, halvings=5, halved_at=timezone.now())
    order = _order(house, cause="by the schedule Evenings")
    _round(house, Recording())
    assert _states(order) == [State.RUNNING]


def test_one_of_many_may_stand_in_the_queue_for_long_and_its_time_begins_when_it_is_sent(house: Estate) -> None:
    soon = timezone.now() + timedelta(seconds=operations.STAGGERED_S)
    order = _order(house, cause="by the schedule Evenings", deadline_at=soon)
    pump._choose(_lease(house), house.hypervisor)
    order.refresh_from_db()
    assert order.deadline_at < timezone.now() + timedelta(seconds=operations.DEADLINE_S[Kind.POWER] + 1)


def test_nothing_is_sent_before_its_time(house: Estate) -> None:
    _order(house, not_before=timezone.now() + timedelta(seconds=30))
    assert pump._choose(_lease(house), house.hypervisor) == []
    assert not pump.has_work(house.hypervisor.pk)
    due = pump.next_due(house.hypervisor.pk)
    assert due is not None
    assert due > timezone.now() + timedelta(seconds=20)


def test_nothing_is_built_before_the_probe_has_ended(house: Estate) -> None:
    build = _order(house, Kind.DELETE)
    probe = _order(house, Kind.PROBE, rank=operations.RANK_SCREEN, parameters={})
    lease = _lease(house)
    assert [o.pk for o in pump._choose(lease, house.hypervisor)] == [probe.pk]
    assert pump._choose(lease, house.hypervisor) == []
    Operation.objects.filter(pk=probe.pk).update(state=State.FAILED)
    assert [o.pk for o in pump._choose(lease, house.hypervisor)] == [build.pk]


def test_nothing_is_built_or_deleted_from_the_moment_a_hypervisor_is_in_doubt(house: Estate) -> None:
    delete, power = _order(house, Kind.DELETE), _order(house)
    lease = _lease(house)
    # An inventory finds out after this pump has last looked at the row.
    Hypervisor.objects.update(status=Hypervisor.Status.DOUBT)
    assert [o.pk for o in pump._choose(lease, house.hypervisor)] == [power.pk]
    assert _states(delete) == [State.QUEUED]


# --- what ends without an answer -------------------------------------------------------------------------------------


def test_an_order_of_a_desktop_that_changed_hands_is_not_sent(house: Estate) -> None:
    order = _order(house, desktop=house.desktop, epoch=house.desktop.epoch - 1)
    connector = Recording()
    _round(house, connector)
    order.refresh_from_db()
    assert order.state == State.CANCELLED
    assert "changed hands" in order.error
    assert not connector.sent


def test_an_order_that_the_platform_does_not_take_fails_in_words(house: Estate) -> None:
    order, taken = _order(house, Kind.DELETE), _order(house)
    _round(house, Recording())
    order.refresh_from_db()
    assert order.state == State.FAILED
    assert order.error_kind == "unsupported"
    assert order.error == f"{house.hypervisor} cannot do this: delete."
    assert _states(taken) == [State.RUNNING]


def test_an_order_past_its_deadline_fails_in_words(house: Estate) -> None:
    past = timezone.now() - timedelta(seconds=1)
    queued = _order(house, deadline_at=past)
    running = _order(house, deadline_at=past, state=State.RUNNING, step="copying the disk")
    connector = Recording()
    _round(house, connector)
    assert _states(queued, running) == [State.FAILED, State.FAILED]
    running.refresh_from_db()
    assert "was not done within" in running.error
    assert "It stood at: copying the disk." in running.error
    assert not connector.sent


def test_an_order_whose_call_was_lost_is_not_sent_again_past_its_deadline(house: Estate) -> None:
    past = timezone.now() - timedelta(seconds=1)
    order = _order(house, state=State.SENT, call_deadline=past, deadline_at=past)
    connector = Recording()
    _round(house, connector)
    assert _states(order) == [State.FAILED]
    assert not connector.sent


# --- the endpoint ----------------------------------------------------------------------------------------------------


def test_a_lost_endpoint_ends_the_slice_and_is_left_alone_for_a_while(house: Estate) -> None:
    _order(house)
    assert not _round(house, Lost(Unreachable("It is away.")))
    house.hypervisor.refresh_from_db()
    assert (house.hypervisor.status, house.hypervisor.status_reason) == (Hypervisor.Status.DOWN, "It is away.")
    assert not pump.has_work(house.hypervisor.pk)
    assert house.hypervisor.pk not in pump.backlog()


def test_a_doubt_that_arose_during_a_lost_call_is_not_forgotten(house: Estate) -> None:
    _order(house)
    doubted = lambda: Hypervisor.objects.update(status=Hypervisor.Status.DOUBT)  # noqa: E731
    _round(house, Lost(Unreachable("It is away."), doubted))
    house.hypervisor.refresh_from_db()
    assert house.hypervisor.status == Hypervisor.Status.DOUBT


def test_a_refusal_of_old_credentials_says_nothing_of_new_ones(house: Estate) -> None:
    _order(house)
    changed = lambda: Hypervisor.objects.update(settings={"address": "new"}, status="new")  # noqa: E731
    _round(house, Lost(CredentialsRejected("Refused."), changed))
    house.hypervisor.refresh_from_db()
    assert house.hypervisor.status == Hypervisor.Status.NEW


def test_secrets_that_no_key_opens_are_told_and_not_retried(office: Plant) -> None:
    office.ask(office.alice)
    office.reconcile()
    Hypervisor.objects.update(secrets=b"sealed with a lost key")
    office.pump()
    assert office.hypervisor().status == Hypervisor.Status.REFUSED
    assert "DESKYARD_VAULT_KEYS" in office.hypervisor().status_reason


# --- cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [Stage.RUNNING, Stage.DONE])
def test_a_round_costs_as_many_statements_for_five_hundred_operations_as_for_ten(house: Estate, stage: Stage) -> None:
    costs = []
    gate.installation_id()
    for count in (10, 500):
        Operation.objects.all().delete()
        Hypervisor.objects.update(power_budget=1000, pump_expires_at=None)
        lease = _lease(house)
        Operation.objects.bulk_create(_running(house.hypervisor.pk, lease.epoch, count))
        connector = Recording()
        connector.stage = stage
        house.hypervisor.refresh_from_db()
        with CaptureQueriesContext(connection) as asked:
            pump._poll(lease, house.hypervisor, connector)  # type: ignore[arg-type]
        assert len(connector.asked) == count
        costs.append(_kinds(asked))
    assert costs[0] == costs[1]


def test_sending_costs_as_many_statements_for_two_hundred_operations_as_for_ten(house: Estate) -> None:
    costs = []
    gate.installation_id()
    for count in (10, 200):
        Operation.objects.all().delete()
        Hypervisor.objects.update(power_budget=1000, pump_expires_at=None)
        house.hypervisor.refresh_from_db()
        lease = _lease(house)
        queued = _running(house.hypervisor.pk, lease.epoch, count)
        for operation in queued:
            operation.state = State.QUEUED
        Operation.objects.bulk_create(queued)
        connector = Recording()
        with CaptureQueriesContext(connection) as asked:
            pump._submit(lease, house.hypervisor, connector)  # type: ignore[arg-type]
        assert len(connector.sent) == count
        costs.append(_kinds(asked))
    assert costs[0] == costs[1]


def _kinds(asked: CaptureQueriesContext) -> set[str]:
    """The statements by how they begin. SQLite takes a thousand parameters in one, so that long ones come in parts."""
    found = [str(query["sql"]).split(' "s')[0][:60] for query in asked.captured_queries]
    assert len(found) < 40
    return set(found)


def _running(hypervisor_id: UUID, epoch: int, count: int) -> list[Operation]:
    now = timezone.now()
    past = now - timedelta(seconds=1)
    return [
        Operation(
            kind=Kind.POWER,
            hypervisor_id=hypervisor_id,
            changes=False,
            parameters={"machine": str(uuid4()), "action": "on"},
            state=State.RUNNING,
            pump_epoch=epoch,
            next_poll_at=past,
            created_at=past,
            deadline_at=now + timedelta(hours=1),
        )
        for _ in range(count)
    ]


# --- whose desktop it is when the order goes out ---------------------------------------------------------------------


def test_an_order_from_before_a_hand_over_is_not_sent_in_the_same_round_either(house: Estate) -> None:
    """The desktop changed hands after the round had looked for such orders."""
    old = _order(house, desktop=house.desktop, epoch=house.desktop.epoch - 1)
    ours = _order(house, Kind.SCREEN, desktop=house.desktop, epoch=house.desktop.epoch, changes=False)
    assert [o.pk for o in pump._choose(_lease(house), house.hypervisor)] == [ours.pk]
    assert _states(old) == [State.QUEUED]


def test_the_time_of_a_build_begins_when_it_is_first_sent(house: Estate) -> None:
    past = timezone.now() - timedelta(hours=5)
    build, power = _order(house, Kind.DELETE, deadline_at=past), _order(house, deadline_at=past)
    lease = _lease(house)
    pump._choose(lease, house.hypervisor)
    build.refresh_from_db()
    power.refresh_from_db()
    first = build.deadline_at
    assert first > timezone.now() + timedelta(minutes=20)
    assert power.deadline_at == past
    Operation.objects.filter(pk=build.pk).update(state=State.QUEUED)
    pump._choose(lease, house.hypervisor)
    build.refresh_from_db()
    assert build.deadline_at == first, "a second attempt gets no more time"
