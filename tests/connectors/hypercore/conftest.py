"""Worlds for the tests of the HyperCore connector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connectors.hypercore.worlds import HyperCoreWorld, cluster_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[HyperCoreWorld]:
    """Three nodes of 9.7, with virtual time twenty times as fast."""
    with cluster_world(tmp_path) as made:
        yield made
