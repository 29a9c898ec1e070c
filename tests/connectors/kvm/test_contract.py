"""The KVM connector keeps the contract, and the contract's checks catch a connector that does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from connectors.base import OpenScreen, ShareResources
from tests.connectors import contract
from tests.connectors.broken import FAULTS, BrokenWorld
from tests.connectors.contract import CHECKS, World, name_of
from tests.connectors.kvm.worlds import LibvirtWorld

CAUGHT = [(fault, check) for fault, checks in FAULTS.items() for check in checks]
NEEDS_SCREENS = contract.check_a_screen_has_a_password_that_is_never_shown
"""libvirt's test driver has no screens (and no shares)."""


@pytest.mark.judges("kvm", "libvirt's test driver", but=(OpenScreen, ShareResources))
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_it_keeps_the_contract_on_libvirts_test_driver(check: Callable[[World], None], world: LibvirtWorld) -> None:
    check(world)


@pytest.mark.judges("kvm", "real libvirt and QEMU")
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_it_keeps_the_contract_on_a_real_host(check: Callable[[World], None], real: LibvirtWorld) -> None:
    check(real)


@pytest.mark.parametrize(("fault", "check"), CAUGHT, ids=[f"{fault}-{name_of(check)}" for fault, check in CAUGHT])
def test_a_broken_connector_is_caught(
    fault: str, check: Callable[[World], None], request: pytest.FixtureRequest
) -> None:
    world: LibvirtWorld = request.getfixturevalue("real" if check is NEEDS_SCREENS else "world")
    with pytest.raises(AssertionError):
        check(BrokenWorld(world, fault))


def test_every_check_has_been_seen_to_fail() -> None:
    assert {check for checks in FAULTS.values() for check in checks} == set(CHECKS)
