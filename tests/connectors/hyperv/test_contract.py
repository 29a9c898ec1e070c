"""The Hyper-V connector keeps the contract, over TLS, sealed over HTTP, and on a cluster."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.connectors.broken import FAULTS, BrokenWorld
from tests.connectors.contract import CHECKS, World, name_of
from tests.connectors.hyperv.worlds import HypervWorld

CAUGHT = [(fault, check) for fault, checks in FAULTS.items() for check in checks]


@pytest.mark.judges("hyperv", "the lab")
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_it_keeps_the_contract_over_https(check: Callable[[World], None], world: HypervWorld) -> None:
    check(world)


@pytest.mark.judges("hyperv", "the lab")
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_it_keeps_the_contract_with_sealed_messages(check: Callable[[World], None], sealed: HypervWorld) -> None:
    check(sealed)


@pytest.mark.judges("hyperv", "the lab")
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_it_keeps_the_contract_on_a_cluster(check: Callable[[World], None], cluster: HypervWorld) -> None:
    check(cluster)


@pytest.mark.parametrize(("fault", "check"), CAUGHT, ids=[f"{fault}-{name_of(check)}" for fault, check in CAUGHT])
def test_a_broken_connector_is_caught(fault: str, check: Callable[[World], None], world: HypervWorld) -> None:
    with pytest.raises(AssertionError):
        check(BrokenWorld(world, fault))
