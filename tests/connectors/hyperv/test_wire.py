"""A faulty wire between the Hyper-V connector and its host: every fault alone, and some of them one after the other."""

from __future__ import annotations

import pytest

from tests.connectors import wire_faults
from tests.connectors.hyperv.worlds import HypervWorld
from tests.connectors.wire_faults import FAULTS, PAIRS, SOME_PAIRS, Fault


def name_of(fault: Fault) -> str:
    return fault.name


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_a_reading_survives_a_fault(fault: Fault, world: HypervWorld) -> None:
    wire_faults.check_reading(world, fault)


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_a_change_survives_a_fault(fault: Fault, world: HypervWorld) -> None:
    wire_faults.check_changing(world, fault)


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_a_change_survives_a_fault_of_sealed_messages(fault: Fault, sealed: HypervWorld) -> None:
    wire_faults.check_changing(sealed, fault)


@pytest.mark.parametrize("where", ["Create", "Command", "Send orders", "Signal orders"])
@pytest.mark.parametrize(
    "fault", [it for it in FAULTS if it.kind in ("drop_before", "drop_after", "truncate")], ids=name_of
)
def test_a_change_survives_a_connection_lost_anywhere(fault: Fault, where: str, world: HypervWorld) -> None:
    world.changing = where
    wire_faults.check_changing(world, fault)


@pytest.mark.parametrize("pair", SOME_PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_a_change_survives_two_faults(pair: tuple[Fault, Fault], world: HypervWorld) -> None:
    wire_faults.check_changing(world, *pair)


@pytest.mark.long
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_reading_and_change_survive_every_two_faults(pair: tuple[Fault, Fault], world: HypervWorld) -> None:
    wire_faults.check_reading(world, *pair)
    wire_faults.check_changing(world, *pair)
