"""What a machine that is to be made shall be like. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from connectors.base import CloneMachine, GuestSeed, RecycleMachine
from connectors.esxi import mapping, names
from connectors.esxi.work import Vm

DETAIL_PATHS = (
    "config.hardware.device", "snapshot", "config.hardware.numCPU", "config.hardware.memoryMB", "config.cpuAllocation",
    "config.memoryAllocation", "resourcePool",
)  # fmt: skip
"""What is read of a machine that is cloned or replaced, beside its identity."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A machine to be made from a template; None and empty: as the template has it."""

    name: str
    template: str
    linked: bool
    host: str | None = None
    """A host, a cluster or a resource pool."""
    storage: str | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    networks: tuple[str, ...] = ()
    seed: GuestSeed | None = None
    like: Vm | None = field(default=None, repr=False)
    """The machine that it replaces, whose sockets and shares it takes over."""

    @classmethod
    def of_clone(cls, order: CloneMachine) -> Plan:
        return cls(
            name=order.name, template=order.template, linked=order.linked, host=order.host, storage=order.storage,
            vcpus=order.vcpus, memory_mib=order.memory_mib, networks=order.networks, seed=order.seed,
        )  # fmt: skip

    @classmethod
    def of_recycling(cls, order: RecycleMachine, old: Vm, key: str) -> Plan:
        """Like the old machine, with the template's disk. It has another name until the old one is gone."""
        return cls(
            name=names.interim(order.name, key),
            template=order.template,
            linked=order.linked,
            host=old.seen.text("resourcePool") or None,
            storage=order.storage,
            vcpus=old.seen.number("config.hardware.numCPU") or None,
            memory_mib=old.seen.number("config.hardware.memoryMB") or None,
            seed=order.seed,
            like=old,
        )

    def shares(self) -> dict[str, Any]:
        """The shares of the machine that is replaced."""
        found = {}
        for field_name, path in (
            ("cpuAllocation", "config.cpuAllocation"),
            ("memoryAllocation", "config.memoryAllocation"),
        ):
            seen = mapping.allocation_seen(self.like.seen.values.get(path)) if self.like else None
            if seen is not None and seen.level:
                found[field_name] = mapping.allocation_spec(seen)
        return found
