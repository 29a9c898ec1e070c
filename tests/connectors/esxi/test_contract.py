"""The vSphere connector keeps the contract, on a vCenter and on a host that stands alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.connectors.contract import CHECKS, World, name_of
from tests.connectors.esxi.worlds import EsxiWorld


@pytest.mark.judges("esxi", "the lab's vCenter and ESXi")
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_it_keeps_the_contract(check: Callable[[World], None], world: EsxiWorld) -> None:
    check(world)
    assert "Fetch" not in world.methods(), "no property is read lazily"
    assert not (world.is_esxi and "CloneVM_Task" in world.methods()), "a stand-alone host has no CloneVM"
