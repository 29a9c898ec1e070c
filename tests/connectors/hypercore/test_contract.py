"""The HyperCore connector keeps the contract, on 9.6 and on 9.7, and the checks catch a connector that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connectors.base import ShareResources
from connectors.errors import ConnectorError
from tests.connectors.broken import FAULTS, BrokenWorld
from tests.connectors.contract import CHECKS, World, name_of
from tests.connectors.hypercore.worlds import HyperCoreWorld, cluster_world

CAUGHT = [(fault, check) for fault, checks in FAULTS.items() for check in checks if "a_share" not in check.__name__]
"""HyperCore knows no shares: a fault of that kind is another connector's."""


@pytest.fixture(params=["9.6.27.225000", "9.7.4.225310"])
def any_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HyperCoreWorld]:
    with cluster_world(tmp_path, version=request.param) as made:
        yield made


@pytest.mark.judges("hypercore", "the lab", but=(ShareResources,))
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_it_keeps_the_contract(check: Callable[[World], None], any_world: HyperCoreWorld) -> None:
    check(any_world)


@pytest.mark.parametrize(("fault", "check"), CAUGHT, ids=[f"{fault}-{name_of(check)}" for fault, check in CAUGHT])
def test_a_broken_connector_is_caught(fault: str, check: Callable[[World], None], world: HyperCoreWorld) -> None:
    world.limit_s = 15.0  # one that forgets its keys never comes to an end
    with pytest.raises((AssertionError, ConnectorError)):
        check(BrokenWorld(world, fault))
