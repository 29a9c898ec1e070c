"""The estate that the services' tests act on, and what they tell the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from broker.services import movers, nudges
from tests.broker.plant import Plant
from tests.broker.portal.cast import Estate, estate
from tests.broker.services.replicas import Replicas


@pytest.fixture
def plant(db: None, tmp_path: Path) -> Iterator[Plant]:
    """A broker without hypervisors."""
    made = Plant(tmp_path)
    yield made
    made.close()


@pytest.fixture
def office(plant: Plant) -> Plant:
    """One hypervisor, a pool with two ready desktops."""
    plant.add_hypervisor()
    plant.add_pool()
    plant.fill()
    return plant


@pytest.fixture
def replicas(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replicas:
    """Machines that are replicated into a vault, run by run as the test says."""
    movers._stopping.clear()
    # Its thread would not see the rows of the test's transaction; what it does is called by name.
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    return Replicas(plant, tmp_path / "vault")


@pytest.fixture
def house(db: None) -> Estate:
    return estate()


class Hints(list[tuple[str, str]]):
    """(task, argument) of every nudge that a commit would send."""


@pytest.fixture
def hints(db: None) -> Callable[[], Any]:
    """`with hints() as sent:` collects the nudges that the block's commit would send to workers."""

    @contextmanager
    def collect() -> Iterator[Hints]:
        sent = Hints()
        before = {id(hook): len(hook.nudges) for hook in _spoken()}
        yield sent
        sent.extend(pair for hook in _spoken() for pair in hook.nudges[before.get(id(hook), 0) :])

    return collect


def _spoken() -> list[nudges.Hints]:
    """What the test's transaction has to say so far."""
    return [entry[1] for entry in connection.run_on_commit if isinstance(entry[1], nudges.Hints)]
