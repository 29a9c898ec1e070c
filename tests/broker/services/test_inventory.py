from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.domain.lifecycle import State
from broker.hypervisors import gate
from broker.hypervisors.orders import to_order
from broker.models import Operation
from broker.services import brokering, inventory
from tests.broker.plant import Plant

pytestmark = pytest.mark.django_db


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.close()


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
