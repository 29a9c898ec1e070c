"""The Nutanix connector keeps the contract, and the contract's checks catch one that does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from connectors.base import ShareResources
from tests.connectors.broken import FAULTS, BrokenWorld
from tests.connectors.contract import CHECKS, World, check_a_screen_has_a_password_that_is_never_shown, name_of
from tests.connectors.nutanix.worlds import PrismWorld

CAUGHT = [
    (fault, check)
    for fault, checks in FAULTS.items()
    for check in checks
    if check is not check_a_screen_has_a_password_that_is_never_shown
]
"""Screens here have no password of their own that could be told twice: a fault of that kind is another connector's."""


@pytest.mark.judges("nutanix", "the lab", but=(ShareResources,))
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_it_keeps_the_contract(check: Callable[[World], None], world: PrismWorld) -> None:
    check(world)


@pytest.mark.parametrize(("fault", "check"), CAUGHT, ids=[f"{fault}-{name_of(check)}" for fault, check in CAUGHT])
def test_a_broken_connector_is_caught(fault: str, check: Callable[[World], None], world: PrismWorld) -> None:
    with pytest.raises(AssertionError):
        check(BrokenWorld(world, fault))
