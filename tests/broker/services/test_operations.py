"""Operations: one change at a time, cancelled before they are sent, retried where that still makes sense."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.hypervisors.gate import installation_id
from broker.models import AuditEntry, Event, Machine, Operation
from broker.models.operations import GIVES_WAY
from broker.services import brokering, drift, nudges, operations, power
from broker.services.errors import Clash, Forbidden, Missing
from tests.broker.portal.cast import Estate

Kind = Operation.Kind


def _fail(operation: Operation) -> Operation:
    Operation.objects.filter(pk=operation.pk).update(state=Operation.State.FAILED)
    operation.refresh_from_db()
    return operation


def _off(house: Estate) -> Operation:
    return power.set_power(actor=house.alice, desktop_id=house.desktop.pk, action="off")


def _stray(house: Estate, **fields: Any) -> Machine:
    values = {"name": "stray", "platform_id": "m-1", "vcpus": 1, "memory_mib": 512, "stamp_installation": ""}
    return Machine.objects.create(hypervisor=house.hypervisor, seen_at=house.desktop.state_since, **(values | fields))


def test_an_order_tells_its_pump_once_it_is_written(house: Estate, hints: Callable[[], Any]) -> None:
    with hints() as sent:
        _off(house)
    assert (nudges.PUMP, str(house.hypervisor.pk)) in sent


def test_a_second_change_is_refused_and_names_the_first(house: Estate) -> None:
    first = _off(house)
    with pytest.raises(Clash, match="is busy: power is under way") as refused:
        _off(house)
    assert refused.value.operation == first


def test_a_screen_is_no_change_and_may_be_opened_meanwhile(house: Estate) -> None:
    _off(house)
    screen = operations.order(
        kind=Kind.SCREEN, hypervisor_id=house.hypervisor.pk, desktop=house.desktop, parameters={}, changes=False
    )
    assert screen.epoch == house.desktop.epoch


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_what_was_not_sent_can_be_cancelled(house: Estate) -> None:
    cancelled = operations.cancel_operation(actor=house.alice, operation_id=_off(house).pk)
    assert (cancelled.state, cancelled.error) == (Operation.State.CANCELLED, "Cancelled by alice.")
    assert Event.objects.filter(kind="operation.cancelled").count() == 1


@pytest.mark.parametrize("state", ["sent", "running", "done"])
def test_what_was_sent_can_no_longer_be_cancelled(house: Estate, state: str) -> None:
    order = _off(house)
    Operation.objects.filter(pk=order.pk).update(state=state)
    with pytest.raises(Clash, match=f"the operation is {state}"):
        operations.cancel_operation(actor=house.alice, operation_id=order.pk)


def test_a_build_whose_outcome_nobody_knows_is_ended_with_its_desktop_instead(house: Estate) -> None:
    """To cancel it would let the next build meet what this one made."""
    building = house.make(state=State.BUILDING, machine_id="", clean_epoch=0)
    clone = operations.order(kind=Kind.CLONE, hypervisor_id=house.hypervisor.pk, desktop=building, parameters={})
    Operation.objects.filter(pk=clone.pk).update(attempt=1)
    with pytest.raises(Clash, match="Delete the desktop instead"):
        operations.cancel_operation(actor=house.dana, operation_id=clone.pk)
    clone.refresh_from_db()
    assert clone.state == Operation.State.QUEUED


@pytest.mark.parametrize("person", ["bob", "charlie"])
def test_nobody_sees_or_cancels_anothers_operation(house: Estate, person: str) -> None:
    with pytest.raises(Missing):
        operations.cancel_operation(actor=getattr(house, person), operation_id=_off(house).pk)


# --- retrying --------------------------------------------------------------------------------------------------------


def test_what_failed_is_ordered_again_as_a_new_operation(house: Estate) -> None:
    old = _fail(_off(house))
    new = operations.retry_operation(actor=house.dana, operation_id=old.pk)
    assert (new.retry_of, new.parameters, new.rank) == (old, old.parameters, operations.RANK_PERSON)


def test_only_administrators_retry(house: Estate) -> None:
    with pytest.raises(Forbidden):
        operations.retry_operation(actor=house.alice, operation_id=_fail(_off(house)).pk)


def test_what_has_not_ended_is_not_retried(house: Estate) -> None:
    with pytest.raises(Clash, match="failed or cancelled"):
        operations.retry_operation(actor=house.dana, operation_id=_off(house).pk)


def test_an_order_of_the_last_owner_is_not_retried_for_the_next(house: Estate) -> None:
    old = _fail(_off(house))
    house.desktop.epoch += 1
    house.desktop.save(update_fields=["epoch"])
    with pytest.raises(Clash, match="changed hands"):
        operations.retry_operation(actor=house.dana, operation_id=old.pk)


def test_what_the_broker_repeats_by_itself_is_not_retried(house: Estate) -> None:
    desktop = house.make(state=State.RETIRING)
    order = operations.order(kind=Kind.DELETE, hypervisor_id=house.hypervisor.pk, desktop=desktop, parameters={})
    with pytest.raises(Clash, match="by itself"):
        operations.retry_operation(actor=house.dana, operation_id=_fail(order).pk)


def test_deleting_a_stray_machine_is_retried(house: Estate) -> None:
    old = _fail(drift.delete(actor=house.dana, machine_id=_stray(house).pk))
    new = operations.retry_operation(actor=house.dana, operation_id=old.pk)
    assert (new.kind, new.desktop, new.parameters) == (Kind.DELETE, None, old.parameters)
    with pytest.raises(Clash, match="already being deleted"):
        operations.retry_operation(actor=house.dana, operation_id=old.pk)


def test_a_stray_machine_that_became_somebodys_desktop_is_not_deleted_after_all(house: Estate) -> None:
    stray = _stray(house)
    old = _fail(drift.delete(actor=house.dana, machine_id=stray.pk))
    drift.adopt(actor=house.dana, machine_id=stray.pk, pool_id=house.pool.pk, user_id=house.bob.pk)
    with pytest.raises(Clash, match="is the desktop"):
        operations.retry_operation(actor=house.dana, operation_id=old.pk)


@pytest.mark.parametrize("fields", [{"stamp_installation": "another"}, {"stamp_key": "another"}, {"is_template": True}])
def test_a_stray_machine_that_is_another_one_by_now_is_not_deleted(house: Estate, fields: dict[str, Any]) -> None:
    stray = _stray(house, stamp_installation=installation_id())
    old = _fail(drift.delete(actor=house.dana, machine_id=stray.pk))
    Machine.objects.filter(pk=stray.pk).update(**fields)
    with pytest.raises(Clash):
        operations.retry_operation(actor=house.dana, operation_id=old.pk)


def test_a_stray_machine_that_is_gone_needs_no_retry(house: Estate) -> None:
    stray = _stray(house)
    old = _fail(drift.delete(actor=house.dana, machine_id=stray.pk))
    stray.delete()
    with pytest.raises(Clash, match="not there any more"):
        operations.retry_operation(actor=house.dana, operation_id=old.pk)


def test_every_verb_is_audited(house: Estate) -> None:
    old = operations.cancel_operation(actor=house.alice, operation_id=_off(house).pk)
    operations.retry_operation(actor=house.dana, operation_id=old.pk)
    assert list(AuditEntry.objects.order_by("id").values_list("action", "actor_name")) == [
        ("desktop.power_off", "alice"),
        ("operation.cancel", "alice"),
        ("operation.retry", "dana"),
    ]


def test_the_claim_and_the_rest_of_the_house_agree_on_what_gives_way(house: Estate) -> None:
    """The rule stands twice: as a condition of Django's, and by hand in the claim's one statement."""
    by_whom = (None, house.dana)
    each = product(("power", "clone"), ("queued", "sent"), (0, 1), ("", "by the schedule Evenings"), by_whom)
    Operation.objects.bulk_create(
        Operation(
            kind=kind, state=state, attempt=attempt, cause=cause, requested_by=by, hypervisor=house.hypervisor,
            changes=False, desktop=house.desktop, created_at=timezone.now(), deadline_at=timezone.now(),
        )
        for kind, state, attempt, cause, by in each
    )  # fmt: skip
    with connection.cursor() as cursor:
        columns = "kind, state, attempt, cause, requested_by_id"
        cursor.execute(f"SELECT {columns} FROM broker_operation o WHERE {brokering.GIVES_WAY}")
        by_hand = cursor.fetchall()
    assert by_hand == [("power", "queued", 0, "by the schedule Evenings", None)]
    assert list(Operation.objects.filter(GIVES_WAY).values_list(*columns.split(", "))) == by_hand
