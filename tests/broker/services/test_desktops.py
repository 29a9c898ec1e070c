"""What administrators do to single desktops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.domain.lifecycle import State
from broker.models import AuditEntry, Desktop, Hypervisor, Operation
from broker.services import brokering, desktops, hypervisors, nudges, operations, power
from broker.services.errors import Clash, Forbidden, Missing
from tests.broker.portal.cast import Estate

VERBS: list[Callable[..., Desktop]] = [
    desktops.retire_desktop,
    desktops.forget_desktop,
    desktops.recycle_desktop,
    lambda **given: desktops.set_maintenance(**given, on=True),
]


def _now(desktop: Desktop) -> Desktop:
    desktop.refresh_from_db()
    return desktop


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("person", ["alice", "bob", "charlie"])
def test_only_administrators_do_that(house: Estate, verb: Callable[..., Desktop], person: str) -> None:
    with pytest.raises(Forbidden):
        verb(actor=getattr(house, person), desktop_id=house.desktop.pk)


def test_a_desktop_may_be_used_by_its_user_and_by_administrators(house: Estate) -> None:
    assert desktops.may_use(house.alice, house.desktop.pk) == house.desktop
    assert desktops.may_use(house.dana, house.desktop.pk) == house.desktop
    for stranger in (house.bob, house.charlie):
        with pytest.raises(Missing):
            desktops.may_use(stranger, house.desktop.pk)


def test_a_desktop_given_back_may_not_be_used_any_more(house: Estate) -> None:
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    with pytest.raises(Missing):
        desktops.may_use(house.alice, house.desktop.pk)


# --- retiring --------------------------------------------------------------------------------------------------------


def test_a_free_desktop_goes_and_its_pool_is_told(house: Estate, hints: Callable[[], Any]) -> None:
    free = house.make()
    with hints() as sent:
        desktops.retire_desktop(actor=house.dana, desktop_id=free.pk)
    assert (_now(free).state, free.is_answering) == (State.RETIRING, False)
    assert (nudges.RECONCILE, str(house.pool.pk)) in sent


@pytest.mark.parametrize("state", [State.ASSIGNED, State.MISSING])
def test_a_desktop_of_somebodys_does_not_go(house: Estate, state: State) -> None:
    Desktop.objects.filter(pk=house.desktop.pk).update(state=state)
    with pytest.raises(Clash, match="Reclaim it"):
        desktops.retire_desktop(actor=house.dana, desktop_id=house.desktop.pk)


def test_one_that_was_claimed_meanwhile_is_not_retired(house: Estate) -> None:
    free = house.make()
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert not desktops.retire(free, reason="Too many.")
    assert _now(free).state == State.ASSIGNED
    assert not AuditEntry.objects.filter(action="desktop.retire").exists()


def test_what_was_ordered_for_it_and_not_sent_is_cancelled(house: Estate) -> None:
    free = house.make()
    order = power.set_power(actor=house.dana, desktop_id=free.pk, action="off")
    desktops.retire_desktop(actor=house.dana, desktop_id=free.pk)
    order.refresh_from_db()
    assert (order.state, order.error) == (Operation.State.CANCELLED, "The desktop is being deleted.")


def test_a_desktop_is_retired_once(house: Estate) -> None:
    free = house.make()
    desktops.retire_desktop(actor=house.dana, desktop_id=free.pk)
    with pytest.raises(Clash, match="is retiring"):
        desktops.retire_desktop(actor=house.dana, desktop_id=free.pk)


# --- forgetting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.RETIRING, State.MISSING])
def test_a_desktop_on_a_hypervisor_that_never_comes_back_can_be_forgotten_and_the_hypervisor_removed(
    house: Estate, state: State
) -> None:
    lost = house.make(state=state, clean_epoch=0)
    order = operations.order(
        kind=Operation.Kind.DELETE, hypervisor_id=house.hypervisor.pk, desktop=lost, parameters={"machine": "m"}
    )
    Hypervisor.objects.update(status=Hypervisor.Status.DOWN)
    desktops.forget_desktop(actor=house.dana, desktop_id=lost.pk)
    assert _now(lost).state == State.GONE
    order.refresh_from_db()
    assert (order.state, order.error) == (Operation.State.CANCELLED, "The desktop was forgotten.")
    assert AuditEntry.objects.filter(action="desktop.forget", object_id=str(lost.pk)).count() == 1
    brokering.release_desktop(actor=house.dana, desktop_id=house.desktop.pk)
    desktops.retire_desktop(actor=house.dana, desktop_id=house.desktop.pk)
    desktops.forget_desktop(actor=house.dana, desktop_id=house.desktop.pk)
    house.pool.members.all().delete()
    hypervisors.remove_hypervisor(actor=house.dana, hypervisor_id=house.hypervisor.pk)
    assert not Hypervisor.objects.filter(pk=house.hypervisor.pk).exists()


def test_what_the_hypervisor_refuses_to_delete_can_be_forgotten_too(house: Estate) -> None:
    stuck = house.make(state=State.RETIRING, attempts=1, failure="Somebody else owns it.")
    assert desktops.forget_desktop(actor=house.dana, desktop_id=stuck.pk).state == State.GONE


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": State.RETIRING}, "Wait for that"),
        ({"state": State.MISSING, "clean_epoch": 0}, "Delete office-.* instead"),
        ({"state": State.READY}, "Delete it first"),
    ],
)
def test_what_can_still_be_deleted_is_not_forgotten(house: Estate, fields: dict[str, Any], words: str) -> None:
    desktop = house.make(**fields)
    with pytest.raises(Clash, match=words):
        desktops.forget_desktop(actor=house.dana, desktop_id=desktop.pk)


def test_a_desktop_of_somebodys_is_not_forgotten(house: Estate) -> None:
    Hypervisor.objects.update(status=Hypervisor.Status.DOWN)
    Desktop.objects.filter(pk=house.desktop.pk).update(state=State.MISSING)
    with pytest.raises(Clash, match="Reclaim it"):
        desktops.forget_desktop(actor=house.dana, desktop_id=house.desktop.pk)


# --- recycling, maintenance ------------------------------------------------------------------------------------------


def test_a_failed_desktop_is_recycled_by_hand_with_all_its_tries_again(house: Estate) -> None:
    failed = house.make(state=State.FAILED, attempts=3, failure="No.", epoch=3)
    desktops.recycle_desktop(actor=house.dana, desktop_id=failed.pk)
    assert (_now(failed).state, failed.attempts, failed.failure) == (State.RECYCLING, 0, "")


def test_an_assigned_desktop_is_not_recycled_under_its_user(house: Estate) -> None:
    with pytest.raises(Clash, match="is assigned"):
        desktops.recycle_desktop(actor=house.dana, desktop_id=house.desktop.pk)


def test_what_has_no_machine_is_not_recycled(house: Estate) -> None:
    with pytest.raises(Clash, match="no machine"):
        desktops.recycle_desktop(actor=house.dana, desktop_id=house.make(state=State.FAILED, machine_id="").pk)


def test_a_desktop_in_maintenance_is_given_to_nobody_until_it_is_over(house: Estate) -> None:
    free = house.make()
    desktops.set_maintenance(actor=house.dana, desktop_id=free.pk, on=True)
    assert brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)[0].desktop_id is None
    desktops.set_maintenance(actor=house.dana, desktop_id=free.pk, on=False)
    brokering.serve_queue(pool_id=house.pool.pk)
    assert _now(free).state == State.ASSIGNED


def test_each_verb_is_audited_once_it_changes_something(house: Estate) -> None:
    free, failed = house.make(), house.make(state=State.FAILED)
    for _ in range(2):
        desktops.set_maintenance(actor=house.dana, desktop_id=free.pk, on=True)
    desktops.retire_desktop(actor=house.dana, desktop_id=free.pk)
    desktops.recycle_desktop(actor=house.dana, desktop_id=failed.pk)
    assert list(AuditEntry.objects.order_by("id").values_list("action", "actor_name")) == [
        ("desktop.maintenance", "dana"),
        ("desktop.retire", "dana"),
        ("desktop.recycle", "dana"),
    ]
