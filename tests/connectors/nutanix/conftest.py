"""Worlds for the tests of the Nutanix connector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connectors.nutanix.worlds import PrismWorld, prism_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PrismWorld]:
    """A Prism Central of the lab."""
    with prism_world(tmp_path) as made:
        yield made
