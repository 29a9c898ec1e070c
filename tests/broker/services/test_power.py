"""Power, by the users of desktops and by administrators."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.domain.power import select
from broker.models import AuditEntry, Desktop, Event, Operation
from broker.selectors.power import facts_of
from broker.services import operations, power
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from tests.broker.portal.cast import Estate


@pytest.mark.parametrize("action", list(power.ACTIONS))
def test_an_action_names_machine_stamp_and_epoch(house: Estate, action: str) -> None:
    order = power.set_power(actor=house.alice, desktop_id=house.desktop.pk, action=action)
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert order.parameters == {"machine": desktop.machine_id, "stamp_key": desktop.stamp_key, "action": action}
    assert (order.epoch, order.rank, order.requested_by) == (desktop.epoch, operations.rank_for_person(50), house.alice)


def test_an_administrator_switches_anybodys(house: Estate) -> None:
    assert power.set_power(actor=house.dana, desktop_id=house.desktop.pk, action="off").requested_by == house.dana


@pytest.mark.parametrize("person", ["bob", "charlie"])
def test_nobody_switches_anothers_desktop(house: Estate, person: str) -> None:
    with pytest.raises(Missing):
        power.set_power(actor=getattr(house, person), desktop_id=house.desktop.pk, action="off")
    assert not Operation.objects.exists()


def test_an_unknown_action_is_refused_with_the_known_ones(house: Estate) -> None:
    with pytest.raises(Invalid) as refused:
        power.set_power(actor=house.alice, desktop_id=house.desktop.pk, action="explode")
    assert "on, off, shutdown" in refused.value.fields["action"]


@pytest.mark.parametrize("state", [State.RECYCLING, State.RETIRING, State.GONE, State.MISSING])
def test_what_is_on_its_way_out_has_no_power_to_switch(house: Estate, state: State) -> None:
    desktop = house.make(state=state)
    with pytest.raises(Clash, match="no power to switch"):
        power.set_power(actor=house.dana, desktop_id=desktop.pk, action="on")


def test_what_has_no_machine_yet_has_no_power_to_switch(house: Estate) -> None:
    with pytest.raises(Clash):
        power.set_power(actor=house.dana, desktop_id=house.make(machine_id="").pk, action="on")


def _many(house: Estate, *desktops: Desktop, action: str = "off") -> power.Ordered:
    wanted = Desktop.objects.filter(pk__in=[desktop.pk for desktop in desktops])
    return power.set_power_of_many(actor=house.dana, wanted=wanted, action=action)


def test_of_many_the_possible_is_ordered_and_the_rest_named_with_the_reason(house: Estate) -> None:
    free, busy, going = house.make(), house.make(), house.make(state=State.RETIRING)
    power.set_power(actor=house.dana, desktop_id=busy.pk, action="off")
    ordered = _many(house, free, busy, going)
    assert [o.desktop for o in ordered.operations] == [free]
    assert {(d.name, why) for d, why in ordered.skipped} == {
        (busy.name, "busy with another change"),
        (going.name, "being deleted"),
    }


def test_only_administrators_switch_many(house: Estate) -> None:
    with pytest.raises(Forbidden):
        power.set_power_of_many(actor=house.alice, wanted=Desktop.objects.all(), action="off")


def test_an_order_for_many_goes_behind_those_who_wait_for_one_and_before_the_pools_own(house: Estate) -> None:
    ordered = _many(house, house.make(), house.make(), house.make())
    assert {(o.rank, o.cause) for o in ordered.operations} == {(operations.RANK_MANY, "together with 2 others")}
    assert operations.RANK_PERSON < operations.RANK_MANY < 1
    alone = _many(house, house.make())
    assert [(o.rank, o.cause) for o in alone.operations] == [(operations.RANK_PERSON, "")]


def test_each_of_many_is_audited_and_told(house: Estate) -> None:
    one, two = house.make(), house.make()
    _many(house, one, two)
    assert {e.object_id for e in AuditEntry.objects.filter(action="desktop.power_off")} == {str(one.pk), str(two.pk)}
    assert {e.message for e in Event.objects.all()} == {"Power off, asked by dana."}
    assert Event.objects.filter(operation__isnull=False).count() == 2


def test_how_many_of_them_are_in_use_is_said(house: Estate) -> None:
    now = timezone.now()
    house.desktop.sessions.create(user=house.alice, epoch=2, protocol="vnc", started_at=now, seen_at=now)
    assert _many(house, house.desktop, house.make()).in_use == 1


def test_more_than_the_person_was_shown_is_not_switched(house: Estate) -> None:
    house.make()
    with pytest.raises(Clash, match="you were shown 1"):
        power.set_power_of_many(actor=house.dana, wanted=Desktop.objects.all(), action="off", at_most=1)
    assert not Operation.objects.exists()


def test_an_order_that_came_in_between_is_left_alone(house: Estate) -> None:
    """Somebody's order was written after the facts were read: the constraint decides, and the rest goes on."""
    one, two = house.make(), house.make()
    rows = power.locked(Desktop.objects.filter(pk__in=[one.pk, two.pk]))
    found = select("off", [facts_of(row) for row in rows.values()])
    theirs = power.set_power(actor=house.dana, desktop_id=one.pk, action="reset")
    ordered = power.order_together(found, rows, action="off", asked="asked by dana", cause="", rank=1)
    assert [o.desktop_id for o in ordered.operations] == [two.pk]
    assert [(d.id, why) for d, why in ordered.skipped] == [(one.pk, "busy with another change")]
    assert list(Operation.objects.filter(desktop=one)) == [theirs]


def test_switching_many_costs_the_same_kinds_of_statements_whatever_their_number(house: Estate) -> None:
    costs = []
    for count in (3, 200):
        rows = [house.make() for _ in range(count)]
        with CaptureQueriesContext(connection) as asked:
            assert len(_many(house, *rows).operations) == count
        costs.append(kinds(asked))
    assert costs[0] == costs[1]


def kinds(asked: CaptureQueriesContext) -> set[str]:
    """The statements by how they begin. SQLite takes a thousand parameters in one, so that long ones come in parts."""
    found = [str(query["sql"])[:60] for query in asked.captured_queries if "SAVEPOINT" not in str(query["sql"])]
    assert len(found) < 40
    return set(found)


def test_a_persons_order_goes_before_a_schedules_that_was_not_sent(house: Estate) -> None:
    desktop = house.make()
    rows = power.locked(Desktop.objects.filter(pk=desktop.pk))
    found = select("shutdown", [facts_of(row) for row in rows.values()])
    cause = "by the schedule Evenings"
    (theirs,) = power.order_together(found, rows, action="shutdown", asked=cause, cause=cause, rank=50).operations
    mine = power.set_power(actor=house.dana, desktop_id=desktop.pk, action="reboot")
    theirs.refresh_from_db()
    assert (theirs.state, mine.state) == ("cancelled", "queued")
    assert "Something else was wanted" in theirs.error
    Operation.objects.filter(pk=mine.pk).update(state="done")
    Operation.objects.filter(pk=theirs.pk).update(state="sent")
    with pytest.raises(Clash, match="is busy"):
        power.set_power(actor=house.dana, desktop_id=desktop.pk, action="reboot")


def test_each_is_audited_and_told(house: Estate) -> None:
    power.set_power(actor=house.alice, desktop_id=house.desktop.pk, action="reset")
    entry, event = AuditEntry.objects.get(), Event.objects.get()
    assert (entry.action, entry.actor_name, entry.object_id) == (
        "desktop.power_reset",
        "alice",
        str(house.desktop.pk),
    )
    assert event.message == "Reset, asked by alice."
