from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.domain.lifecycle import State
from broker.hypervisors import gate
from broker.hypervisors.orders import to_order
from broker.models import Operation
from broker.services import inventory
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
