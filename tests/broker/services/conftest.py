"""The estate that the services' tests act on, and what they tell the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_django import DjangoCaptureOnCommitCallbacks

from broker.services import nudges
from tests.broker.plant import Plant
from tests.broker.portal.cast import Estate, estate


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
def house(db: None) -> Estate:
    return estate()


class Hints(list[tuple[str, str]]):
    """(task, argument) of every nudge that a commit would send."""


@pytest.fixture
def hints(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> Callable[[], Any]:
    """`with hints() as sent:` collects the nudges that the block's commit would send to workers."""

    @contextmanager
    def collect() -> Iterator[Hints]:
        sent = Hints()
        with django_capture_on_commit_callbacks() as callbacks:
            yield sent
        sent.extend(pair for callback in callbacks if isinstance(callback, nudges.Hints) for pair in callback.nudges)

    return collect
