"""Worlds for the tests of the vSphere connector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connectors.esxi.worlds import EsxiWorld


@pytest.fixture
def vcenter(tmp_path: Path) -> Iterator[EsxiWorld]:
    """A vCenter with two hosts."""
    made = EsxiWorld(tmp_path)
    yield made
    made.close()


@pytest.fixture
def esxi(tmp_path: Path) -> Iterator[EsxiWorld]:
    """A host that stands alone."""
    made = EsxiWorld(tmp_path, is_esxi=True)
    yield made
    made.close()


@pytest.fixture(params=["vcenter", "esxi"])
def world(request: pytest.FixtureRequest) -> EsxiWorld:
    """Both, one after the other."""
    made: EsxiWorld = request.getfixturevalue(request.param)
    return made
