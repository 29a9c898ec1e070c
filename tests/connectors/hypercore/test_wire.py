"""What the connector makes of a faulty wire: each fault alone, and in pairs."""

from __future__ import annotations

import pytest

from tests.connectors import wire_faults
from tests.connectors.hypercore.worlds import HyperCoreWorld
from tests.connectors.wire_faults import FAULTS, PAIRS, SOME_PAIRS, Fault

ALONE = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
TWO = pytest.mark.parametrize("pair", SOME_PAIRS, ids=lambda pair: "-".join(fault.name for fault in pair))
ALL = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(fault.name for fault in pair))


@ALONE
def test_a_reading_bears_each_fault(world: HyperCoreWorld, fault: Fault) -> None:
    wire_faults.check_reading(world, fault)


@ALONE
def test_a_change_bears_each_fault(world: HyperCoreWorld, fault: Fault) -> None:
    wire_faults.check_changing(world, fault)


@TWO
def test_a_reading_bears_two_faults(world: HyperCoreWorld, pair: tuple[Fault, Fault]) -> None:
    wire_faults.check_reading(world, *pair)


@TWO
def test_a_change_bears_two_faults(world: HyperCoreWorld, pair: tuple[Fault, Fault]) -> None:
    wire_faults.check_changing(world, *pair)


@pytest.mark.long
@ALL
def test_a_reading_bears_any_two_faults(world: HyperCoreWorld, pair: tuple[Fault, Fault]) -> None:
    wire_faults.check_reading(world, *pair)


@pytest.mark.long
@ALL
def test_a_change_bears_any_two_faults(world: HyperCoreWorld, pair: tuple[Fault, Fault]) -> None:
    wire_faults.check_changing(world, *pair)
