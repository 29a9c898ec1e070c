"""One order on its way: what a step of any order has at hand, and how it says how far it got."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import libvirt

from connectors.base import MachineRef, Order, Outcome, Result, Stage, Stamp, Surroundings
from connectors.errors import Conflict, ConnectorError, NotFound, Unreachable
from connectors.kvm import faults, mapping
from connectors.kvm.client import is_alive
from connectors.kvm.settings import KvmSettings

O = TypeVar("O", bound=Order)  # noqa: E741
Domain = Any
"""libvirt.virDomain"""


class OutOfTime(Exception):
    """The deadline passed between two steps: the order goes on at the next poll."""


class Usage:
    """Which paths the host's domains and volumes name, remembered for some seconds so that a batch reads them once."""

    FRESH_S = 10.0

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.read_at = 0.0
        self.users: dict[str, set[str]] = {}
        """Path -> who names it: uuids of domains, paths of overlays."""

    @property
    def is_fresh(self) -> bool:
        return self.read_at > 0 and time.monotonic() - self.read_at < self.FRESH_S

    def touch(self) -> None:
        self.read_at = time.monotonic()

    def forget(self) -> None:
        """To be called by whoever makes a new user of an old path."""
        self.read_at = 0.0


@dataclass
class Work(Generic[O]):
    """An order, the connection, and the receipt as it grows. Steps call `begin` before each thing they ask of
    libvirt."""

    order: O
    settings: KvmSettings
    surroundings: Surroundings
    usage: Usage
    deadline: float
    receipt: dict[str, object] = field(default_factory=dict)
    connection: Any = None
    """Set while a job is at it."""
    host_id: str = ""
    step: str = "Waiting for its turn"

    def begin(self, step: str) -> None:
        """Name the step that comes. Raises `OutOfTime` if none may be taken any more."""
        self.step = step
        if time.monotonic() >= self.deadline:
            raise OutOfTime

    def running(self, poll_after_s: float = 1.0, percent: int | None = None) -> Outcome:
        return Outcome(
            key=self.order.key, stage=Stage.RUNNING, step=self.step, percent=percent,
            receipt=dict(self.receipt), poll_after_s=poll_after_s,
        )  # fmt: skip

    def done(self, result: Result | None = None) -> Outcome:
        return Outcome(key=self.order.key, stage=Stage.DONE, step=self.step, percent=100, result=result)

    def problem(self, error: libvirt.libvirtError | ConnectorError) -> ConnectorError:
        """What went wrong at the step that was taken, in our words; Unreachable if the line is dead, whatever was
        said."""
        if isinstance(error, ConnectorError):
            return error
        if not is_alive(self.connection):
            words = f"The connection to {self.settings.endpoint} was lost while {self.step.lower()}."
            return Unreachable(f"{words} {faults.ADVICE[Unreachable]}", platform_words=str(error))
        return faults.ours(error, self.step.lower(), self.settings.endpoint)

    @property
    def stamp(self) -> Stamp:
        """What a machine made by this order bears."""
        return Stamp(self.surroundings.installation, self.order.key)

    # --- machines ---

    def find(self, uuid: str) -> Domain | None:
        """The domain of that uuid, or None."""
        return find(self.connection, uuid)

    def find_ours(self, ref: MachineRef) -> tuple[Domain, mapping.Domain] | None:
        """The machine and its definition once its stamp has been compared; None if it is gone. Raises `Conflict`."""
        return find_ours(self.connection, ref)

    def ours(self, ref: MachineRef) -> tuple[Domain, mapping.Domain]:
        """As `find_ours`. Raises `NotFound` if it is gone."""
        return ours(self.connection, ref, self.settings.endpoint)


def find(connection: Any, uuid: str) -> Domain | None:
    """The domain of that uuid, or None."""
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
            return None
        raise


def find_ours(connection: Any, ref: MachineRef) -> tuple[Domain, mapping.Domain] | None:
    """The machine and its definition once its stamp has been compared; None if it is gone. Raises `Conflict`."""
    found = find_meant(connection, ref)
    if found is not None and found[1].role is mapping.Role.TEMPLATE:
        raise Conflict(f"Machine {found[1].name!r} is marked as a template. Nothing was done to it.")
    return found


def find_meant(connection: Any, ref: MachineRef) -> tuple[Domain, mapping.Domain] | None:
    """As `find_ours`, but it may be a template: for what changes nothing of it."""
    domain = find(connection, ref.id)
    if domain is None:
        return None
    seen = mapping.read_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    if seen.stamp != ref.stamp:
        raise Conflict(
            f"Machine {seen.name!r} bears {_words(seen.stamp)}, not {_words(ref.stamp)}. Nothing was done to it: "
            "somebody else may own it. See the drift page."
        )
    return domain, seen


def ours(connection: Any, ref: MachineRef, endpoint: str) -> tuple[Domain, mapping.Domain]:
    """As `find_ours`. Raises `NotFound` if it is gone."""
    found = find_ours(connection, ref)
    if found is None:
        raise NotFound(f"Machine {ref.id} is not on {endpoint} any more.")
    return found


def _words(stamp: Stamp | None) -> str:
    return f"the stamp of installation {stamp.installation}, order {stamp.key}" if stamp else "no stamp"


def number(receipt: Mapping[str, object], name: str) -> float | None:
    """A number from a receipt, None if it holds none."""
    value = receipt.get(name)
    return float(value) if isinstance(value, (int, float)) else None
