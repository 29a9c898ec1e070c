"""Who gets which desktop, one at a time; `tests/broker/test_races.py` has the crowds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import Assignment, AuditEntry, Desktop, Event, Hypervisor, Operation, Pool, Request, TemplateCopy
from broker.services import brokering, nudges, power
from broker.services.errors import Clash, Forbidden, Missing
from tests.broker.portal.cast import Estate

# --- asking ----------------------------------------------------------------------------------------------------------


def test_a_ready_desktop_is_given_at_once_and_its_epoch_rises(house: Estate) -> None:
    free = house.make()
    request, is_new = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    free.refresh_from_db()
    assert is_new
    assert (request.state, request.desktop_id) == (Request.State.READY, free.pk)
    assert (free.state, free.epoch, free.clean_epoch) == (State.ASSIGNED, 2, 1)
    assert Assignment.objects.get(desktop=free, until=None).user == house.bob


def test_asking_again_gives_the_same(house: Estate) -> None:
    house.make()
    house.make()
    first, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    again, is_new = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert (again.pk, is_new) == (first.pk, False)
    assert Assignment.objects.filter(user=house.bob, until=None).count() == 1


def test_an_answering_desktop_goes_before_one_that_is_off(house: Estate) -> None:
    house.make(power="off", is_answering=False, ready_at=timezone.now() - timedelta(days=1))
    answering = house.make(ready_at=timezone.now())
    assert brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)[0].desktop_id == answering.pk


def test_one_that_is_off_is_given_with_a_start_order_that_goes_first(house: Estate) -> None:
    free = house.make(power="off", is_answering=False)
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    start = Operation.objects.get(desktop=free)
    assert (start.kind, start.parameters["action"], start.epoch) == ("power", "on", 2)
    assert start.rank < 1


def test_one_that_is_off_and_being_switched_is_left_until_that_is_done(house: Estate) -> None:
    free = house.make(power="off", is_answering=False)
    switching = power.set_power(actor=house.dana, desktop_id=free.pk, action="on")
    request, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert request.state == Request.State.APPROVED
    Operation.objects.filter(pk=switching.pk).update(state=Operation.State.DONE)
    assert brokering.serve_queue(pool_id=house.pool.pk) == 1


@pytest.mark.parametrize(
    "fields",
    [{"is_answering": False}, {"is_in_maintenance": True}, {"state": State.PREPARING}, {"state": State.FAILED}],
)
def test_what_is_not_fit_for_use_is_given_to_nobody(house: Estate, fields: dict[str, Any]) -> None:
    house.make(**fields)
    assert brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)[0].desktop_id is None


@pytest.mark.parametrize("status", ["down", "doubt", "refused", "new"])
def test_nothing_is_given_on_a_hypervisor_that_is_not_up(house: Estate, status: str) -> None:
    house.make()
    Hypervisor.objects.update(status=status)
    assert brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)[0].desktop_id is None


def test_a_stranger_is_told_that_there_is_no_such_pool(house: Estate) -> None:
    house.make()
    with pytest.raises(Missing):
        brokering.request_desktop(user=house.charlie, pool_id=house.pool.pk)
    assert not Assignment.objects.filter(user=house.charlie).exists()


def test_a_closed_pool_gives_nothing_and_says_so(house: Estate) -> None:
    house.make()
    Pool.objects.update(is_enabled=False)
    with pytest.raises(Clash, match="closed"):
        brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)


def test_a_claim_hints_to_the_reconciler(house: Estate, hints: Callable[[], Any]) -> None:
    house.make()
    with hints() as sent:
        brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert sent == [(nudges.RECONCILE, str(house.pool.pk))]


@pytest.mark.parametrize("crowd", [1, 60])
def test_a_claim_costs_the_same_in_a_small_and_a_large_pool(house: Estate, crowd: int) -> None:
    for _ in range(crowd):
        house.make()
    with CaptureQueriesContext(connection) as asked:
        brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert len(asked) == 7


# --- the queue -------------------------------------------------------------------------------------------------------


def test_the_queue_is_served_in_order(house: Estate) -> None:
    first, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert first.reason == brokering.NOBODY_LEFT
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    second, _ = brokering.request_desktop(user=house.alice, pool_id=house.pool.pk)
    house.make()
    assert brokering.serve_queue(pool_id=house.pool.pk) == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == (Request.State.READY, Request.State.APPROVED)


def test_a_newcomer_takes_nothing_while_others_wait(house: Estate) -> None:
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    free = house.make()
    brokering.request_desktop(user=house.alice, pool_id=house.pool.pk)
    assert Assignment.objects.get(desktop=free).user == house.bob


def test_one_who_lost_the_entitlement_blocks_nobody(house: Estate) -> None:
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    house.bob.groups.clear()
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    free = house.make()
    brokering.request_desktop(user=house.alice, pool_id=house.pool.pk)
    assert Assignment.objects.get(desktop=free).user == house.alice


def test_a_waiting_request_can_be_taken_back_by_its_owner_alone(house: Estate) -> None:
    waiting, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    with pytest.raises(Missing):
        brokering.cancel_request(actor=house.alice, request_id=waiting.pk)
    assert brokering.cancel_request(actor=house.bob, request_id=waiting.pk).state == Request.State.CANCELLED
    with pytest.raises(Clash, match="not waiting any more"):
        brokering.cancel_request(actor=house.bob, request_id=waiting.pk)


# --- giving back -----------------------------------------------------------------------------------------------------


def test_a_release_ends_everything_of_its_user(house: Estate) -> None:
    late = power.set_power(actor=house.alice, desktop_id=house.desktop.pk, action="off")
    before = Desktop.objects.get(pk=house.desktop.pk).epoch
    recycle = brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    late.refresh_from_db()
    assert recycle is not None
    assert (desktop.state, desktop.epoch, recycle.epoch) == (State.RECYCLING, before + 1, before + 1)
    assert late.state == Operation.State.CANCELLED
    assert not Assignment.objects.filter(desktop=desktop, until=None).exists()
    assert Request.objects.get(desktop=desktop).state == Request.State.ENDED


def test_a_release_waits_for_what_is_in_flight(house: Estate) -> None:
    flying = power.set_power(actor=house.alice, desktop_id=house.desktop.pk, action="off")
    Operation.objects.filter(pk=flying.pk).update(state=Operation.State.RUNNING)
    assert brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk) is None
    assert Desktop.objects.get(pk=house.desktop.pk).state == State.RECYCLING


@pytest.mark.parametrize("person", ["bob", "charlie"])
def test_nobody_releases_anothers_desktop(house: Estate, person: str) -> None:
    with pytest.raises(Missing):
        brokering.release_desktop(actor=getattr(house, person), desktop_id=house.desktop.pk)
    assert Assignment.objects.filter(desktop=house.desktop, until=None).exists()


def test_a_desktop_is_released_once(house: Estate) -> None:
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    with pytest.raises(Missing):
        brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    assert Operation.objects.filter(kind=Operation.Kind.RECYCLE).count() == 1


def test_only_administrators_end_other_peoples_requests(house: Estate) -> None:
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    given: dict[str, Any] = {"user": house.bob, "pool_id": house.pool.pk, "reason": "Not entitled any more."}
    with pytest.raises(Forbidden):
        brokering.end_requests_of(actor=house.alice, **given)
    assert brokering.end_requests_of(actor=house.dana, **given) == 1


# --- who did what ----------------------------------------------------------------------------------------------------


def test_every_verb_is_audited_under_the_person_who_said_it(house: Estate) -> None:
    house.make()
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    waiting, _ = brokering.request_desktop(user=house.alice, pool_id=house.pool.pk)
    brokering.cancel_request(actor=house.dana, request_id=waiting.pk)
    bobs = Assignment.objects.get(user=house.bob, until=None).desktop_id
    brokering.release_desktop(actor=house.dana, desktop_id=bobs)
    assert list(AuditEntry.objects.order_by("id").values_list("action", "actor_name")) == [
        ("desktop.claim", "bob"),
        ("desktop.release", "alice"),
        ("request.create", "alice"),
        ("request.cancel", "dana"),
        ("desktop.reclaim", "dana"),
    ]
    assert list(Event.objects.order_by("id").values_list("kind", flat=True)) == [
        "desktop.claimed",
        "desktop.released",
        "desktop.released",
    ]


def test_a_desktop_that_is_being_changed_is_not_given_out(house: Estate) -> None:
    """An administrator's shutdown on its way would hit whoever got it."""
    free = house.make()
    order = power.set_power(actor=house.dana, desktop_id=free.pk, action="shutdown")
    waiting, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert waiting.desktop_id is None
    Operation.objects.filter(pk=order.pk).update(state=Operation.State.DONE)
    assert brokering.serve_queue(pool_id=house.pool.pk) == 1


def test_a_desktop_given_back_moves_to_the_newer_template_copy_at_once(house: Estate) -> None:
    newer = TemplateCopy.objects.create(
        version=house.copy.version, hypervisor=house.hypervisor, platform_id="newer", name="newer", vcpus=1,
        memory_mib=512,
    )  # fmt: skip
    house.pool.members.update(copy=newer)
    recycle = brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    assert recycle is not None
    assert recycle.parameters["template"] == "newer"
    house.desktop.refresh_from_db()
    assert house.desktop.copy == newer
