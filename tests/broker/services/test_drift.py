"""Machines that are not what the broker expects: adopted, forgotten, deleted."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.hypervisors.gate import installation_id
from broker.models import Assignment, AuditEntry, Desktop, Hypervisor, Machine, Operation, Request
from broker.selectors.drift import drifting_machines
from broker.services import drift, operations
from broker.services.errors import Clash, Forbidden, Invalid
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def stray(house: Estate, **fields: Any) -> Machine:
    """A machine that somebody made by hand."""
    values: dict[str, Any] = {
        "hypervisor": house.hypervisor, "platform_id": "stray-1", "name": "stray-1", "power": "on", "vcpus": 2,
        "memory_mib": 2048, "seen_at": timezone.now(),
    }  # fmt: skip
    return Machine.objects.create(**(values | fields))


def test_adopting_for_a_user_keeps_the_machine_as_it_is(house: Estate) -> None:
    machine = stray(house)
    made = drift.adopt(actor=house.dana, machine_id=machine.pk, pool_id=house.pool.pk, user_id=house.bob.pk)
    assert (made.state, made.machine_id, made.vcpus, made.power) == (State.ASSIGNED, "stray-1", 2, "on")
    assert Assignment.objects.get(desktop=made, until=None).user == house.bob
    assert Request.objects.get(desktop=made).state == "ready"
    assert not Operation.objects.exists()
    assert AuditEntry.objects.get().changes == {"pool": [None, "Office"], "user": [None, "bob"]}


def test_adopting_into_the_pool_gives_nobody_what_lay_on_it(house: Estate) -> None:
    made = drift.adopt(actor=house.dana, machine_id=stray(house).pk, pool_id=house.pool.pk)
    assert made.state == State.RECYCLING
    assert made.clean_epoch != made.epoch


def test_who_has_one_gets_no_second_by_adoption(house: Estate) -> None:
    with pytest.raises(Clash, match="alice already has"):
        drift.adopt(actor=house.dana, machine_id=stray(house).pk, pool_id=house.pool.pk, user_id=house.alice.pk)
    assert Desktop.objects.count() == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "two words"}, "cannot be a desktop's name"),
        ({"name": "OFFICE-001"}, "already a desktop named"),
        ({"is_template": True}, "is a template"),
        ({"platform_id": "golden"}, "is a template"),
        ({"stamp_installation": str(uuid4())}, "another installation"),
        ({"vcpus": 0}, "how many CPUs"),
    ],
)
def test_what_does_not_fit_is_not_adopted(house: Estate, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(Clash, match=words):
        drift.adopt(actor=house.dana, machine_id=stray(house, **fields).pk, pool_id=house.pool.pk)


def test_a_full_pool_adopts_nothing(house: Estate) -> None:
    house.pool.maximum = 1
    house.pool.save()
    with pytest.raises(Clash, match="maximum of 1"):
        drift.adopt(actor=house.dana, machine_id=stray(house).pk, pool_id=house.pool.pk)


def test_a_pool_adopts_only_where_it_builds(house: Estate) -> None:
    other = Hypervisor.objects.create(name="kvm-02", kind="kvm")
    with pytest.raises(Invalid) as refused:
        drift.adopt(actor=house.dana, machine_id=stray(house, hypervisor=other).pk, pool_id=house.pool.pk)
    assert "does not build on kvm-02" in refused.value.fields["pool"]


def test_deleting_is_an_order_that_names_machine_and_stamp(house: Estate) -> None:
    machine = stray(house, stamp_installation=installation_id(), stamp_key=str(uuid4()))
    operation = drift.delete(actor=house.dana, machine_id=machine.pk)
    assert (operation.kind, operation.desktop) == ("delete", None)
    assert operation.parameters == {"machine": "stray-1", "stamp_key": machine.stamp_key}
    with pytest.raises(Clash, match="already being deleted") as refused:
        drift.delete(actor=house.dana, machine_id=machine.pk)
    assert refused.value.operation == operation


def test_desktops_templates_and_other_installations_machines_are_not_deleted(house: Estate) -> None:
    for fields, words in (
        ({"platform_id": house.desktop.machine_id}, "is the desktop office-001"),
        ({"is_template": True, "platform_id": "b"}, "is a template"),
        ({"stamp_installation": str(uuid4()), "platform_id": "c"}, "another installation"),
    ):
        with pytest.raises(Clash, match=words):
            drift.delete(actor=house.dana, machine_id=stray(house, **fields).pk)
    assert not Operation.objects.exists()


def test_a_machine_in_the_making_is_no_drift(house: Estate) -> None:
    building = operations.order(kind="clone", hypervisor_id=house.hypervisor.pk, parameters={"name": "office-002"})
    machine = stray(house, stamp_installation=installation_id(), stamp_key=str(building.pk))
    with pytest.raises(Clash, match="being built"):
        drift.delete(actor=house.dana, machine_id=machine.pk)


def test_forgetting_touches_nothing_and_may_be_said_twice(house: Estate) -> None:
    machine = stray(house, stamp_installation=str(uuid4()))
    drift.forget(actor=house.dana, machine_id=machine.pk)
    drift.forget(actor=house.dana, machine_id=machine.pk)
    machine.refresh_from_db()
    assert machine.is_forgotten
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize("person", ["alice", "bob", "charlie"])
def test_only_administrators_have_a_say(house: Estate, person: str) -> None:
    actor, machine = getattr(house, person), stray(house)
    for verb in (
        lambda: drift.adopt(actor=actor, machine_id=machine.pk, pool_id=house.pool.pk),
        lambda: drift.forget(actor=actor, machine_id=machine.pk),
        lambda: drift.delete(actor=actor, machine_id=machine.pk),
    ):
        with pytest.raises(Forbidden):
            verb()


def test_a_desktop_listed_by_a_second_registration_of_its_hypervisor_is_no_drift(house: Estate) -> None:
    twin = Hypervisor.objects.create(name="kvm-01 again", kind="kvm")
    machine = stray(
        house, hypervisor=twin, platform_id=house.desktop.machine_id, stamp_key=house.desktop.stamp_key,
        stamp_installation=installation_id(),
    )  # fmt: skip
    assert not drifting_machines().exists()
    for verb in (drift.delete, lambda **given: drift.adopt(**given, pool_id=house.pool.pk)):
        with pytest.raises(Clash, match="is the desktop office-001"):
            verb(actor=house.dana, machine_id=machine.pk)
    assert not Operation.objects.exists()


def test_machines_of_the_same_id_on_two_hypervisors_are_two_machines(house: Estate) -> None:
    """Ids are unique within one hypervisor only, as vSphere's `vm-12` are."""
    other = Hypervisor.objects.create(name="another", kind="kvm")
    stray(house, hypervisor=other, platform_id=house.desktop.machine_id)
    assert drifting_machines().count() == 1
