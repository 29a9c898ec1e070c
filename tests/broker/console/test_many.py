"""Many desktops taken out of service, recycled or deleted at once: said first, done in a few statements."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.domain.many import Change
from broker.models import Assignment, AuditEntry, Desktop, Event, Operation
from broker.services import many
from broker.services.errors import Clash, Forbidden, Invalid
from tests.broker.console.furniture import operation
from tests.broker.console.test_acts import HTMX, at, events_of, text_of
from tests.broker.console.test_power import hidden_of
from tests.broker.portal.cast import Estate


def chosen(house: Estate, **named: dict[str, Any]) -> dict[str, Desktop]:
    return {name: house.make(name=name, **fields) for name, fields in named.items()}


def send(dana: Client, action: str, **fields: Any) -> Any:
    return dana.post(at("desktops-change"), {"action": action, **fields}, headers=HTMX)


def ids_of(desktops: dict[str, Desktop]) -> list[str]:
    return [str(desktop.pk) for desktop in desktops.values()]


def test_desktops_are_taken_out_of_service_and_put_back(house: Estate, dana: Client) -> None:
    rows = chosen(house, a={}, b={"is_in_maintenance": True}, c={})
    question = text_of(send(dana, "maintain", desktop=ids_of(rows), asked="1"))
    assert "Take 2 desktops out of service?" in question
    assert "1 is left out: 1 in maintenance already." in question
    assert not Desktop.objects.get(name="a").is_in_maintenance, "asked first"
    said = events_of(send(dana, "maintain", desktop=ids_of(rows)))["toast"]["text"]
    assert said == "2 desktops are in maintenance. Not for 1: b is in maintenance already."
    assert Desktop.objects.filter(is_in_maintenance=True).count() == 3
    assert AuditEntry.objects.filter(action="desktop.maintenance").count() == 2
    assert "3 desktops are back in service." in events_of(send(dana, "serve", desktop=ids_of(rows)))["toast"]["text"]
    assert not Desktop.objects.filter(is_in_maintenance=True).exists()


def test_what_is_nobodys_gets_fresh_disks_and_what_is_somebodys_stays(house: Estate, dana: Client) -> None:
    rows = chosen(house, ready={}, failed={"state": State.FAILED}, empty={"machine_id": ""})
    ids = [*ids_of(rows), str(house.desktop.pk)]
    said = events_of(send(dana, "recycle", desktop=ids))["toast"]["text"]
    assert said.startswith("2 desktops get fresh disks. Not for 2: ")
    assert "office-001 is assigned to somebody" in said
    assert "empty is without a machine yet" in said
    states = dict(Desktop.objects.values_list("name", "state"))
    assert (states["ready"], states["failed"], states["office-001"]) == ("recycling", "recycling", "assigned")


def test_deleting_many_wants_their_number_typed(house: Estate, dana: Client) -> None:
    rows = chosen(house, a={}, b={"state": State.FAILED})
    queued = operation(house.hypervisor, kind="power", desktop=rows["a"])
    question = send(dana, "retire", desktop=ids_of(rows), asked="1")
    assert "Delete 2 desktops?" in text_of(question)
    assert 'Type <b class="mono">2</b> to confirm' in question.content.decode()
    assert send(dana, "retire", desktop=ids_of(rows), typed_name="3").status_code == 422
    assert not Desktop.objects.filter(state=State.RETIRING).exists()
    said = events_of(send(dana, "retire", desktop=ids_of(rows), typed_name="2"))["toast"]["text"]
    assert said == "2 desktops are being deleted."
    assert set(Desktop.objects.filter(state=State.RETIRING).values_list("name", flat=True)) == {"a", "b"}
    queued.refresh_from_db()
    assert queued.state == Operation.State.CANCELLED
    assert Event.objects.filter(kind="desktop.retired").count() == 2


def test_a_desktop_that_is_somebodys_or_being_moved_is_never_deleted_with_others(house: Estate) -> None:
    """Not even a missing one that still has its user."""
    rows = chosen(house, moving={"is_moving": True}, missing={"state": State.MISSING})
    Assignment.objects.create(
        pool=house.open_pool("Lab"), user=house.bob, desktop=rows["missing"], since=timezone.now()
    )
    done = many.change_many(actor=house.dana, wanted=Desktop.objects.all(), change=Change.RETIRE)
    assert not done.desktops
    assert {facts.name: why for facts, why in done.skipped} == {
        "moving": "being moved", "missing": "assigned to somebody", "office-001": "assigned to somebody",
    }  # fmt: skip


def test_all_that_fit_are_changed_by_their_filter_and_no_more_than_were_shown(house: Estate, dana: Client) -> None:
    for number in range(60):
        house.make(name=f"many-{number:02}")
    question = send(dana, "retire", all="1", asked="1", q="many")
    again = hidden_of(question.content.decode())
    house.make(name="many-more")
    refused = send(dana, typed_name="61", **again)
    assert refused.status_code == 422
    assert "61 desktops fit by now, and you were shown 60." in text_of(refused)
    assert not Desktop.objects.filter(state=State.RETIRING).exists()


def test_a_thousand_take_as_many_statements_as_ten(house: Estate) -> None:
    counts = []
    for number in (10, 100):
        for one in range(number):
            house.make(name=f"{number}-{one}")
        with CaptureQueriesContext(connection) as queries:
            many.change_many(
                actor=house.dana, wanted=Desktop.objects.filter(name__startswith=f"{number}-"), change="retire"
            )
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_only_administrators_and_only_what_there_is(house: Estate) -> None:
    everything = Desktop.objects.all()
    with pytest.raises(Forbidden):
        many.change_many(actor=house.alice, wanted=everything, change="retire")
    with pytest.raises(Invalid, match="no such change"):
        many.change_many(actor=house.dana, wanted=everything, change="explode")
    with pytest.raises(Clash):
        many.change_many(actor=house.dana, wanted=everything, change="maintain", at_most=0)
    assert not Desktop.objects.filter(is_in_maintenance=True).exists()


def test_a_moving_desktop_is_not_switched_with_others(house: Estate, dana: Client) -> None:
    rows = chosen(house, moving={"is_moving": True, "power": "off"}, still={"power": "off"})
    said = events_of(send(dana, "on", desktop=ids_of(rows)))["toast"]["text"]
    assert said == "Ordered for 1 desktop. Not for 1: moving is being moved."
