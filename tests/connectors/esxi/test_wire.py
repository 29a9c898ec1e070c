"""What the vSphere connector makes of a faulty wire: each fault with a reading and a change, alone and in pairs."""

from __future__ import annotations

import pytest

from tests.connectors.esxi.worlds import EsxiWorld
from tests.connectors.wire_faults import FAULTS, PAIRS, SOME_PAIRS, Fault, check_changing, check_reading


def named(fault: Fault) -> str:
    return fault.name


@pytest.mark.parametrize("fault", FAULTS, ids=named)
def test_a_listing_survives_a_fault(fault: Fault, world: EsxiWorld) -> None:
    check_reading(world, fault)


@pytest.mark.parametrize("fault", FAULTS, ids=named)
def test_a_clone_survives_a_fault(fault: Fault, world: EsxiWorld) -> None:
    check_changing(world, fault)


@pytest.mark.parametrize(("first", "second"), SOME_PAIRS, ids=named)
def test_a_clone_survives_one_fault_after_another(first: Fault, second: Fault, vcenter: EsxiWorld) -> None:
    check_changing(vcenter, first, second)


@pytest.mark.parametrize(("first", "second"), SOME_PAIRS, ids=named)
def test_a_listing_survives_one_fault_after_another(first: Fault, second: Fault, vcenter: EsxiWorld) -> None:
    check_reading(vcenter, first, second)


@pytest.mark.long
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=named)
def test_listings_and_clones_survive_any_two_faults(first: Fault, second: Fault, world: EsxiWorld) -> None:
    check_reading(world, first, second)
    check_changing(world, first, second)
