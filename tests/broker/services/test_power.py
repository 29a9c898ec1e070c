"""Power, by the users of desktops and by administrators."""

from __future__ import annotations

import pytest

from broker.domain.lifecycle import State
from broker.models import AuditEntry, Desktop, Event, Operation
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


def test_of_many_the_possible_is_ordered_and_the_rest_named_with_the_reason(house: Estate) -> None:
    free, busy, going = house.make(), house.make(), house.make(state=State.RETIRING)
    power.set_power(actor=house.dana, desktop_id=busy.pk, action="off")
    ids = [free.pk, busy.pk, going.pk]
    started, refused = power.set_power_of_many(actor=house.dana, desktop_ids=ids, action="off")
    assert [o.desktop for o in started] == [free]
    assert {name for name, _ in refused} == {busy.name, going.name}
    assert all(reason for _, reason in refused)


def test_only_administrators_switch_many(house: Estate) -> None:
    with pytest.raises(Forbidden):
        power.set_power_of_many(actor=house.alice, desktop_ids=[house.desktop.pk], action="off")


def test_each_is_audited_and_told(house: Estate) -> None:
    power.set_power(actor=house.alice, desktop_id=house.desktop.pk, action="reset")
    entry, event = AuditEntry.objects.get(), Event.objects.get()
    assert (entry.action, entry.actor_name, entry.object_id) == (
        "desktop.power_reset",
        "alice",
        str(house.desktop.pk),
    )
    assert event.message == "Reset, asked by alice."
