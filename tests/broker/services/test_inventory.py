from __future__ import annotations

import time

import pytest
from django.db import OperationalError
from django.db.models import F

from broker.domain.lifecycle import State
from broker.hypervisors import gate
from broker.hypervisors.orders import to_order
from broker.models import Desktop, Hypervisor, Machine, Operation
from broker.services import brokering, drift, inventory
from connectors.base import Inventory
from connectors.errors import Unreachable
from tests.broker.plant import Plant


def test_a_machine_that_was_shown_before_its_making_was_written_is_shown_again(plant: Plant) -> None:
    """Listings after the first tell what changed, and of this machine nothing changes any more."""
    hypervisor = plant.add_hypervisor()
    plant.add_pool(spare=1)
    plant.reconcile()
    clone = Operation.objects.get(kind=Operation.Kind.CLONE)
    inventory.take(hypervisor.pk)
    with gate.opened(hypervisor) as connector:
        # A pump that is about to write the answer.
        list(connector.submit([to_order(clone, gate.installation_id())], time.monotonic() + 5))

    inventory.take(hypervisor.pk)
    assert plant.count(State.READY) == 0
    plant.pump()
    inventory.take(hypervisor.pk)

    assert plant.count(State.READY) == 1


def test_a_recycled_machine_that_looks_as_before_is_ready_as_soon_as_its_recycling_is_written(plant: Plant) -> None:
    hypervisor = plant.add_hypervisor()
    plant.add_pool(spare=1, maximum=1)
    plant.fill(1)
    inventory.take(hypervisor.pk)
    desktop = plant.ask(plant.alice).desktop
    assert desktop is not None
    recycle = brokering.release_desktop(actor=plant.alice, desktop_id=desktop.pk)
    assert recycle is not None
    with gate.opened(hypervisor) as connector:
        list(connector.submit([to_order(recycle, gate.installation_id())], time.monotonic() + 5))

    inventory.take(hypervisor.pk)
    assert plant.count(State.READY) == 0
    plant.pump()
    inventory.take(hypervisor.pk)

    assert plant.count(State.READY) == 1


def test_many_adopted_machines_that_vanish_at_once_are_doubted_though_they_bear_no_stamp(plant: Plant) -> None:
    """Such as people's own machines that became desktops: what they lose by a wrong belief is theirs."""
    plant.add_hypervisor()
    ids = [plant.world().add_foreign_machine(f"theirs-{n}") for n in range(8)]
    plant.look()
    plant.add_pool(spare=0)
    for machine in Machine.objects.filter(platform_id__in=ids):
        drift.adopt(actor=plant.dana, machine_id=machine.pk, pool_id=plant.pool.pk)
    for machine_id in ids:
        plant.world().remove_machine(machine_id)
    for _ in range(2):
        plant.look()
    assert plant.hypervisor().status == Hypervisor.Status.DOUBT
    assert plant.count(State.MISSING) == 0


def test_a_leftover_that_an_administrator_said_to_leave_alone_is_left_alone(office: Plant) -> None:
    left, other = office.desktops(State.READY)
    # As if the rows had lost them: their operations have ended, and no desktop is them.
    Desktop.objects.filter(pk__in=[left.pk, other.pk]).update(machine_id="")
    drift.forget(actor=office.dana, machine_id=Machine.objects.get(platform_id=left.machine_id).pk)
    office.look()
    named = Operation.objects.filter(kind=Operation.Kind.DELETE).values_list("parameters__machine", flat=True)
    assert list(named) == [other.machine_id]


def test_a_reading_that_lost_its_lease_judges_nothing(office: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its successor has read in the meantime that all is well."""

    def freeze(hypervisor: Hypervisor, session: object) -> Inventory:
        Hypervisor.objects.update(inventory_epoch=F("inventory_epoch") + 1)
        raise Unreachable("It is away.")

    monkeypatch.setattr(inventory, "_read", freeze)
    inventory.take(office.hypervisor().pk)
    assert office.hypervisor().status == Hypervisor.Status.UP


def test_a_connector_whose_reading_could_not_be_written_is_closed(
    office: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its cursor has passed would otherwise never be told again."""

    def break_off(writer: inventory.Writer) -> None:
        raise OperationalError("the database went away")

    monkeypatch.setattr(inventory.Writer, "write", break_off)
    closed: list[object] = []
    monkeypatch.setattr("broker.hypervisors.gate.shut", closed.append)
    with pytest.raises(OperationalError):
        inventory.take(office.hypervisor().pk)
    assert len(closed) == 1
    assert office.hypervisor().inventory_expires_at is None
