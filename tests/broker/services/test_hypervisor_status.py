"""What is believed of a hypervisor: told once when it is lost, once when it is back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import Desktop, Event, Hypervisor
from broker.services import hypervisor_status, nudges
from connectors.errors import CertificateRejected, ConnectorError, CredentialsRejected, Unreachable
from tests.broker.portal.cast import Estate

Status = Hypervisor.Status


def _row() -> Hypervisor:
    return Hypervisor.objects.get()


def _told() -> list[str]:
    return list(Event.objects.filter(kind__startswith="hypervisor.").order_by("id").values_list("kind", flat=True))


def test_a_loss_is_told_once_however_often_it_is_met(house: Estate) -> None:
    for _ in range(3):
        hypervisor_status.lost(_row(), Unreachable("It is away."))
    assert (_row().status, _row().status_reason) == (Status.DOWN, "It is away.")
    assert _told() == ["hypervisor.lost"]


def test_it_is_asked_ever_more_rarely_and_never_less_than_twice_a_minute(house: Estate) -> None:
    pauses = []
    for _ in range(9):
        hypervisor_status.lost(_row(), Unreachable("It is away."))
        retry_at = _row().retry_at
        assert retry_at is not None
        pauses.append((retry_at - timezone.now()).total_seconds())
    assert pauses[0] < 2.1
    assert pauses[0] < pauses[2] < pauses[4]
    assert max(pauses) <= 30


def test_it_is_left_alone_for_as_long_as_it_asks(house: Estate) -> None:
    hypervisor_status.lost(_row(), Unreachable("Later.", retry_after_s=300))
    retry_at = _row().retry_at
    assert retry_at is not None
    assert retry_at > timezone.now() + timedelta(seconds=290)


@pytest.mark.parametrize("error", [CredentialsRejected("No."), CertificateRejected("No.")])
def test_a_refusal_is_no_mere_absence(house: Estate, error: ConnectorError) -> None:
    hypervisor_status.lost(_row(), error)
    assert _row().status == Status.REFUSED


def test_nobody_is_given_what_cannot_be_reached(house: Estate) -> None:
    free = house.make()
    hypervisor_status.lost(_row(), Unreachable("It is away."))
    assert not Desktop.objects.get(pk=free.pk).is_answering


def test_a_loss_wakes_the_pools_that_build_there(house: Estate, hints: Callable[[], Any]) -> None:
    with hints() as sent:
        hypervisor_status.lost(_row(), Unreachable("It is away."))
    assert (nudges.RECONCILE, str(house.pool.pk)) in sent


def test_its_return_is_told_once_and_looked_at_at_once(house: Estate, hints: Callable[[], Any]) -> None:
    hypervisor_status.lost(_row(), Unreachable("It is away."))
    with hints() as sent:
        for _ in range(2):
            hypervisor_status.back(_row())
    assert (_row().status, _row().status_reason, _row().failures, _row().retry_at) == (Status.UP, "", 0, None)
    assert _told() == ["hypervisor.lost", "hypervisor.back"]
    assert {task for task, _ in sent} == {nudges.INVENTORY, nudges.PUMP, nudges.RECONCILE}


def test_a_doubt_outlasts_a_loss_and_a_return(house: Estate) -> None:
    hypervisor_status.doubt(_row(), ["m-1"], "Seven vanished.")
    hypervisor_status.lost(_row(), Unreachable("It is away."))
    hypervisor_status.back(_row())
    assert (_row().status, _row().doubt) == (Status.DOUBT, ["m-1"])


def test_a_doubt_is_told_once_and_dates_from_its_beginning(house: Estate) -> None:
    hypervisor_status.doubt(_row(), ["m-1"], "One vanished.")
    began = _row().status_since
    hypervisor_status.doubt(_row(), ["m-1", "m-2"], "Two vanished.")
    assert _row().status_since == began
    assert (_row().doubt, _row().status_reason) == (["m-1", "m-2"], "Two vanished.")
    assert _told() == ["hypervisor.doubted"]


def test_what_was_refused_before_a_change_of_access_says_nothing(house: Estate) -> None:
    asked = _row()
    Hypervisor.objects.update(secrets=b"new", status=Status.NEW)
    hypervisor_status.lost(asked, CredentialsRejected("No."))
    assert _row().status == Status.NEW


def test_desktops_that_are_gone_are_history(house: Estate) -> None:
    gone = house.make(state=State.GONE)
    hypervisor_status.lost(_row(), Unreachable("It is away."))
    assert Desktop.objects.get(pk=gone.pk).is_answering
