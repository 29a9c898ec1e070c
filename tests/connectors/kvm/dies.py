"""A process that is killed between two steps of an order. `python -m tests.connectors.kvm.dies FILE BOUNDARY`

FILE holds settings and order as JSON. The process ends by SIGKILL just before step BOUNDARY (counted from 0), or with
exit status 0 if the order has fewer steps.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    GuestSeed,
    MachineRef,
    Order,
    Receipt,
    RecycleMachine,
    Stage,
    Stamp,
    Surroundings,
)
from connectors.kvm.connector import KvmConnector
from connectors.kvm.settings import KvmSettings
from connectors.kvm.work import Work

ORDERS: dict[str, type[Order]] = {order.__name__: order for order in (CloneMachine, DeleteMachine, RecycleMachine)}


def written(settings: KvmSettings, installation: str, order: Order) -> str:
    """What FILE holds."""
    values: dict[str, Any] = {name: getattr(order, name) for name in order.__dataclass_fields__}
    if "machine" in values:
        machine = values["machine"]
        values["machine"] = [machine.id, machine.stamp.installation, machine.stamp.key]
    if values.get("seed"):
        values["seed"] = values["seed"].hostname
    named = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    return json.dumps({"settings": named, "installation": installation, "kind": type(order).__name__, "order": values})


def read(text: str) -> tuple[KvmSettings, str, Order]:
    found = json.loads(text)
    values = found["order"]
    if "machine" in values:
        machine, installation, key = values["machine"]
        values["machine"] = MachineRef(machine, Stamp(installation, key))
    if values.get("seed"):
        values["seed"] = GuestSeed(values["seed"])
    if "networks" in values:
        values["networks"] = tuple(values["networks"])
    return KvmSettings(**found["settings"]), found["installation"], ORDERS[found["kind"]](**values)


def die_before(step: int) -> None:
    begin, taken = Work.begin, iter(range(1000))

    def begin_or_die(self: Work[Any], name: str) -> None:
        if next(taken) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        begin(self, name)

    Work.begin = begin_or_die  # type: ignore[method-assign, assignment]


def main() -> int:
    settings, installation, order = read(Path(sys.argv[1]).read_text())
    die_before(int(sys.argv[2]))
    connector = KvmConnector(settings, Surroundings(installation=installation, workdir=Path(sys.argv[1]).parent))
    outcomes = list(connector.submit([order], time.monotonic() + 60))
    while outcomes[0].stage is Stage.RUNNING:
        time.sleep(0.05)
        outcomes = list(connector.poll([Receipt(order, outcomes[0].receipt or {})], time.monotonic() + 60))
    return 0


if __name__ == "__main__":
    sys.exit(main())
