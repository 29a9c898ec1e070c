"""Worlds for the tests of the HyperCore connector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.hypercore import work
from tests.connectors.hypercore.worlds import HyperCoreWorld, cluster_world


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time is quick, so orders may be asked after soon. How soon is nothing that a test here is about."""
    monkeypatch.setattr(work, "TASK_S", 0.05)
    monkeypatch.setattr(work, "WAIT_S", 0.1)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[HyperCoreWorld]:
    """Three nodes of 9.7, with virtual time twenty times as fast."""
    with cluster_world(tmp_path) as made:
        yield made
