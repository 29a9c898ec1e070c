"""How many PowerShells a Hyper-V host has to start: one a round, however many orders and polls there are.

On a real host a start takes a second or more of a processor, whatever is asked; here it is counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from connectors.base import (
    CloneMachine,
    MachineMade,
    MachineRef,
    Order,
    Outcome,
    Receipt,
    ResourceShare,
    ShareResources,
    Stage,
)
from connectors.hyperv.connector import HypervConnector
from tests.bench.figures import report, say
from tests.bench.ground import Ground
from tests.connectors.contract import clone, new_key, poll, soon, submit
from tests.connectors.hyperv.worlds import HypervWorld

SIZES, SMALL_SIZES = (1, 20, 200), (1, 20)
HOSTS = {1: ("HV1",), 3: ("HV1", "HV2", "HV3")}


def run(ground: Ground) -> None:
    for number, hosts in HOSTS.items():
        for size in SMALL_SIZES if ground.is_small else SIZES:
            say(f"{size} orders on {number} hosts")
            folder = ground.folder / f"hyperv-{number}-{size}"
            folder.mkdir()
            measure(folder, hosts, size)


def measure(folder: Path, hosts: tuple[str, ...], size: int) -> None:
    """Rounds of one kind each: so many clones, so many shares set; what is not done at once is polled."""
    world = HypervWorld(folder, hosts=hosts)
    try:
        connector = world.connector()
        connector.inventory(None, soon())
        for host in hosts:  # each node has been told of the template, as after the first desktop
            done(world, connector, [clone_on(world, host)])
        wanted = [clone_on(world, hosts[number % len(hosts)]) for number in range(size)]
        machines = [outcome.result for outcome in told(world, connector, wanted, "clone")]
        made = [one for one in machines if isinstance(one, MachineMade)]
        assert len(made) == size
        shares = [ShareResources(key=new_key(), machine=_ref(one), share=ResourceShare(weight=200)) for one in made]
        told(world, connector, shares, "share")
    finally:
        world.close()


def told(world: HypervWorld, connector: HypervConnector, orders: Sequence[Order], kind: str) -> list[Outcome]:
    """Submitted in one round and polled to the end; reports the starts a host and round."""
    before, began = world.starts, time.monotonic()
    outcomes, rounds = done(world, connector, orders)
    starts = (world.starts - before) / rounds / len(world.servers)
    params = {"orders": len(orders), "hosts": len(world.servers), "kind": kind}
    report("hyperv_starts", "starts_a_host_and_round", starts, "starts", **params)
    report("hyperv_starts", "seconds", time.monotonic() - began, "s", **params)
    return outcomes


def done(world: HypervWorld, connector: HypervConnector, orders: Sequence[Order]) -> tuple[list[Outcome], int]:
    """The last outcome of each, and in how many rounds of the connector they came."""
    outcomes, rounds = submit(connector, orders), 1
    while waiting := [order for order in orders if outcomes[order.key].stage is Stage.RUNNING]:
        outcomes |= poll(connector, [Receipt(order, outcomes[order.key].receipt or {}) for order in waiting])
        rounds += 1
    for outcome in outcomes.values():
        assert outcome.stage is Stage.DONE, outcome.error
    return [outcomes[order.key] for order in orders], rounds


def clone_on(world: HypervWorld, host: str) -> CloneMachine:
    order = clone(world)
    return CloneMachine(key=order.key, name=order.name, template=order.template, host=host, power_on=False)


def _ref(machine: MachineMade) -> MachineRef:
    return MachineRef(machine.machine_id, machine.stamp)
