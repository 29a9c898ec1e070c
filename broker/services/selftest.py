"""Try a registered hypervisor out, step by step, with a transcript that can be sent to whoever knows more.

Reading steps always; making, starting, snapshotting and deleting a scratch machine only if a template is named. It goes
past the queue, straight to the connector, and touches nothing but its own scratch machine, which is gone in the end.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

from django.contrib.auth.models import User

from broker.hypervisors import gate, sealing
from broker.models import Hypervisor
from broker.services import audit
from broker.services.errors import Missing
from broker.services.permissions import Right, require
from connectors.base import (
    CloneMachine,
    Connector,
    DeleteMachine,
    DeleteSnapshot,
    Inventory,
    MachineMade,
    MachineRef,
    Order,
    Outcome,
    Power,
    PowerAction,
    Receipt,
    RevertSnapshot,
    SetPower,
    SnapshotTaken,
    Stage,
    Stamp,
    TakeSnapshot,
)
from connectors.errors import ConnectorError, PlatformFault

ORDER_LIMIT_S = 900
"""How long one order of the scratch machine may take."""
CALL_LIMIT_S = 60
"""How long one call may take."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the transcript, with what was learned."""

    name: str
    is_passed: bool
    seconds: float
    lines: tuple[str, ...] = ()


@dataclass(slots=True)
class _Scratch:
    """What the steps hand to each other."""

    connector: Connector
    template: str
    key: str = field(default_factory=lambda: str(uuid4()))
    machine: MachineRef = field(default_factory=lambda: MachineRef(""))
    snapshot: str = ""


def run(*, actor: User, name: str, template: str = "") -> Iterator[Step]:
    """The steps as they are done; the first that fails is the last, but for removing the scratch machine.

    `template` is a template's name or platform id; empty: only what reads. Raises `Missing`.
    """
    require(actor, Right.OPERATE)
    hypervisor = Hypervisor.objects.filter(name=name).first()
    if hypervisor is None:
        raise Missing(f"There is no hypervisor named {name!r}.")
    audit.record(actor=actor, action="hypervisor.selftest", subject=hypervisor)
    secrets = [secret for secret in sealing.unseal(hypervisor.secrets).values() if secret]
    with gate.opened(hypervisor) as connector:
        for step in _steps(_Scratch(connector, template)):
            yield _without(secrets, step)


def _steps(scratch: _Scratch) -> Iterator[Step]:
    yield (step := _timed("Sign in and look", lambda: _check(scratch.connector)))
    if not step.is_passed:
        return
    yield (step := _timed("Read everything", lambda: _read(scratch)))
    if not step.is_passed:
        return
    yield (step := _timed("Read it again", lambda: _told(scratch.connector.inventory(None, _soon()))))
    if not (step.is_passed and scratch.template):
        return
    wanted = [
        ("Clone a scratch machine", CloneMachine, _clone),
        ("Find it in the listing", CloneMachine, _find),
        ("Clone it once more by the same key", CloneMachine, _clone_again),
        ("Take a snapshot", TakeSnapshot, _snapshot),
        ("Go back to the snapshot", RevertSnapshot, _revert),
        ("Delete the snapshot", DeleteSnapshot, _unsnapshot),
        ("Start it", SetPower, lambda scratch: _power(scratch, PowerAction.ON)),
        ("Switch it off", SetPower, lambda scratch: _power(scratch, PowerAction.OFF)),
    ]
    takes = scratch.connector.check(_soon()).takes
    try:
        for title, order, act in wanted:
            if order not in takes:
                yield Step(title, True, 0.0, (f"left out: this hypervisor does not take {order.__name__}",))
                continue
            yield (step := _timed(title, lambda act=act: act(scratch)))  # type: ignore[misc]
            if not step.is_passed:
                break
    finally:
        removed = _timed("Remove it", lambda: _remove(scratch))
    yield removed


# --- the steps -------------------------------------------------------------------------------------------------------


def _check(connector: Connector) -> list[str]:
    platform = connector.check(_soon())
    return [
        f"product: {platform.product} {platform.version}",
        f"connector: {connector.kind} {connector.version}",
        f"takes: {', '.join(sorted(order.__name__ for order in platform.takes))}",
        *(f"warning: {warning}" for warning in platform.warnings),
    ]


def _read(scratch: _Scratch) -> list[str]:
    inventory = scratch.connector.inventory(None, _soon())
    if scratch.template:
        scratch.template = _template(inventory, scratch.template)
    return _told(inventory)


def _told(inventory: Inventory) -> list[str]:
    powers = Counter(str(machine.power) for machine in inventory.machines)
    return [
        "complete" if inventory.complete else f"not complete: {inventory.partial or 'only what has changed'}",
        f"hosts: {len(inventory.hosts)}, storages: {len(inventory.storages)}, networks: {len(inventory.networks)}",
        f"machines: {len(inventory.machines)} ({', '.join(f'{count} {power}' for power, count in powers.items())})",
        f"with an address: {sum(bool(machine.addresses) for machine in inventory.machines)}",
        *(
            f"template: {template.name} ({template.id}){f': {template.cannot}' if template.cannot else ''}"
            for template in inventory.templates[:20]
        ),
    ]


def _template(inventory: Inventory, wanted: str) -> str:
    for template in inventory.templates:
        if wanted in (template.id, template.name):
            return template.id
    raise PlatformFault(f"There is no template {wanted!r} in the listing. Name one of those that it shows.")


def _clone(scratch: _Scratch) -> list[str]:
    order = CloneMachine(key=scratch.key, name=f"selftest-{scratch.key[:8]}", template=scratch.template, power_on=False)
    made, told = _done(scratch.connector, order)
    if not isinstance(made.result, MachineMade):
        raise PlatformFault("The clone is done, but nothing says which machine it is.")
    scratch.machine = MachineRef(made.result.machine_id, Stamp(gate.installation_id(), scratch.key))
    return [*told, f"machine: {made.result.machine_id}", f"disks: {', '.join(made.result.disks)}"]


def _find(scratch: _Scratch) -> list[str]:
    for machine in scratch.connector.inventory(None, _soon()).machines:
        if machine.id == scratch.machine.id:
            if machine.stamp != scratch.machine.stamp:
                raise PlatformFault("The listing shows the machine without our stamp.")
            return [f"{machine.name}, {machine.power}, {machine.vcpus} CPUs, {machine.memory_mib} MiB"]
    raise PlatformFault("The listing does not show the machine.")


def _clone_again(scratch: _Scratch) -> list[str]:
    order = CloneMachine(
        key=scratch.key, attempt=2, name=f"selftest-{scratch.key[:8]}", template=scratch.template, power_on=False
    )
    made, told = _done(scratch.connector, order)
    if not isinstance(made.result, MachineMade) or made.result.machine_id != scratch.machine.id:
        raise PlatformFault("The same key made a second machine. Do not use this hypervisor.")
    return told


def _snapshot(scratch: _Scratch) -> list[str]:
    taken, told = _done(scratch.connector, TakeSnapshot(key=str(uuid4()), machine=scratch.machine, name="selftest"))
    if isinstance(taken.result, SnapshotTaken):
        scratch.snapshot = taken.result.snapshot_id
    return told


def _revert(scratch: _Scratch) -> list[str]:
    return _done(
        scratch.connector, RevertSnapshot(key=str(uuid4()), machine=scratch.machine, snapshot=scratch.snapshot)
    )[1]


def _unsnapshot(scratch: _Scratch) -> list[str]:
    return _done(
        scratch.connector, DeleteSnapshot(key=str(uuid4()), machine=scratch.machine, snapshot=scratch.snapshot)
    )[1]


def _power(scratch: _Scratch, action: PowerAction) -> list[str]:
    told = _done(scratch.connector, SetPower(key=str(uuid4()), machine=scratch.machine, action=action))[1]
    shown = {machine.id: machine.power for machine in scratch.connector.inventory(None, _soon()).machines}
    wanted = Power.ON if action is PowerAction.ON else Power.OFF
    if (power := shown.get(scratch.machine.id)) is not wanted:
        raise PlatformFault(f"It should be {wanted}; the listing says {power}.")
    return told


def _remove(scratch: _Scratch) -> list[str]:
    """By its id, or by the key that made it if its id was never told."""
    if scratch.machine.id:
        with suppress(ConnectorError):
            _done(scratch.connector, SetPower(key=str(uuid4()), machine=scratch.machine, action=PowerAction.OFF))
    machine = scratch.machine if scratch.machine.id else MachineRef("", Stamp(gate.installation_id(), scratch.key))
    told = _done(scratch.connector, DeleteMachine(key=str(uuid4()), machine=machine))[1]
    shown = {found.id for found in scratch.connector.inventory(None, _soon()).machines}
    if scratch.machine.id in shown:
        raise PlatformFault("It is deleted, but the listing still shows it.")
    return told


# --- driving the connector -------------------------------------------------------------------------------------------


def _soon() -> float:
    return time.monotonic() + CALL_LIMIT_S


def _done(connector: Connector, order: Order) -> tuple[Outcome, list[str]]:
    """Submit and poll until it is done, with what it said on the way. Raises the order's error."""
    told: list[str] = []
    last = time.monotonic() + ORDER_LIMIT_S
    outcomes = list(connector.submit([order], _soon()))
    while True:
        if not outcomes:
            raise PlatformFault(f"{type(order).__name__} got no answer within {CALL_LIMIT_S} s.")
        outcome = outcomes[0]
        if outcome.step and outcome.step not in told:
            told.append(outcome.step)
        if outcome.error is not None:
            raise outcome.error
        if outcome.stage is Stage.DONE:
            return outcome, told
        if time.monotonic() > last:
            raise PlatformFault(f"{type(order).__name__} is not done after {ORDER_LIMIT_S} s: {outcome.step}")
        time.sleep(min(outcome.poll_after_s, 5.0))
        outcomes = list(connector.poll([Receipt(order, outcome.receipt or {})], _soon()))


def _timed(name: str, act: Callable[[], list[str]]) -> Step:
    began = time.monotonic()
    try:
        lines, is_passed = act(), True
    except ConnectorError as error:
        lines = [error.message, *([f"the platform's words: {error.platform_words}"] if error.platform_words else [])]
        is_passed = False
    return Step(name, is_passed, time.monotonic() - began, tuple(lines))


def _without(secrets: list[str], step: Step) -> Step:
    """The transcript goes to others: whatever a platform says, a secret is not in it."""
    lines = []
    for line in step.lines:
        for secret in secrets:
            line = line.replace(secret, "***")
        lines.append(line)
    return Step(step.name, step.is_passed, step.seconds, tuple(lines))
