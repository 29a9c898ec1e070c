"""Worlds for the tests of the Hyper-V connector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connectors.hyperv.worlds import HypervWorld, cluster_world, host_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[HypervWorld]:
    """A stand-alone host over HTTPS."""
    with host_world(tmp_path) as made:
        yield made


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[HypervWorld]:
    """A stand-alone host over HTTP, every message sealed."""
    with host_world(tmp_path, tls=False) as made:
        yield made


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[HypervWorld]:
    """Three nodes."""
    with cluster_world(tmp_path) as made:
        yield made
