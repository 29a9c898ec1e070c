"""What kinds of hypervisors can do for replication is known without opening one."""

from __future__ import annotations

import pytest

from broker.hypervisors.abilities import can_land, can_replicate
from connectors import registry


def test_the_connectors_class_decides() -> None:
    assert can_replicate("instant")
    assert can_land("instant")
    for kind in registry.BUILT_IN:
        connector = registry.load(kind)
        assert can_replicate(kind) == hasattr(connector, "take_point"), kind
        assert can_land(kind) == hasattr(connector, "land"), kind


def test_machines_on_kvm_can_be_replicated() -> None:
    assert can_replicate("kvm")


@pytest.mark.parametrize("kind", ["", "nothing-of-this-kind"])
def test_what_is_not_installed_can_nothing(kind: str) -> None:
    assert not can_replicate(kind)
    assert not can_land(kind)
