"""Operation rows <-> the connectors' orders, outcomes and receipts. Translation: nothing is read or written."""

from __future__ import annotations

from typing import Any

from broker.hypervisors import passwords
from broker.models import Operation
from connectors.base import (
    CloneMachine,
    DeleteMachine,
    DeleteSnapshot,
    GuestSeed,
    MachineRef,
    OpenScreen,
    Order,
    PowerAction,
    ProbeAcceleration,
    Receipt,
    Reconfigure,
    RecycleMachine,
    ResourceShare,
    RevertSnapshot,
    SetGuestPassword,
    SetPower,
    ShareResources,
    Stamp,
    TakeSnapshot,
)

KINDS: dict[str, type[Order]] = {
    Operation.Kind.CLONE: CloneMachine,
    Operation.Kind.RECYCLE: RecycleMachine,
    Operation.Kind.DELETE: DeleteMachine,
    Operation.Kind.POWER: SetPower,
    Operation.Kind.SNAPSHOT: TakeSnapshot,
    Operation.Kind.REVERT: RevertSnapshot,
    Operation.Kind.UNSNAPSHOT: DeleteSnapshot,
    Operation.Kind.RECONFIGURE: Reconfigure,
    Operation.Kind.SHARE: ShareResources,
    Operation.Kind.SCREEN: OpenScreen,
    Operation.Kind.PASSWORD: SetGuestPassword,
    Operation.Kind.PROBE: ProbeAcceleration,
}


def machine_ref(parameters: dict[str, Any], installation: str) -> MachineRef:
    key = parameters.get("stamp_key", "")
    return MachineRef(id=parameters["machine"], stamp=Stamp(installation, key) if key else None)


def to_order(operation: Operation, installation: str, password: str = "") -> Order:
    """The order an operation stands for, with the operation's id as key.

    `password`: what an account in the guest is to get; empty, one that nobody keeps.
    """
    given = dict(operation.parameters)
    values: dict[str, Any] = {"key": str(operation.pk), "attempt": max(operation.attempt, 1)}
    if "machine" in given:
        values["machine"] = machine_ref(given, installation)
        given.pop("machine")
        given.pop("stamp_key", None)
    if seed := given.pop("seed", None):
        values["seed"] = GuestSeed(**seed)
    if "networks" in given:
        values["networks"] = tuple(given.pop("networks"))
    if "share" in given:
        values["share"] = ResourceShare(**given.pop("share"))
    if "action" in given:
        values["action"] = PowerAction(given.pop("action"))
    if operation.kind == Operation.Kind.PASSWORD:
        values["password"] = password or passwords.fresh()
    return KINDS[operation.kind](**values, **given)


def to_receipt(operation: Operation, installation: str, password: str = "") -> Receipt:
    return Receipt(order=to_order(operation, installation, password), data=operation.receipt or {})
