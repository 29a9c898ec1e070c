"""What every connector must make of a faulty wire, over its platform in the lab.

Each fault strikes a reading (a listing) and a change (a clone), alone and for ever, then every two of them one after
the other and once each. Whatever happens, the error is one that tells the broker what to do next, in words and without
a secret; and once the wire is sound again the same order, under the same key, gives exactly one machine, which leaves
nothing behind when it is deleted.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Protocol

from connectors.base import Connector, DeleteMachine, MachineMade, MachineRef, Stage, Stamp
from connectors.errors import (
    Busy,
    CapacityExhausted,
    CertificateRejected,
    Conflict,
    ConnectorError,
    CredentialsRejected,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)
from lab.faults import Faults
from tests.connectors import contract
from tests.connectors.contract import OURS, again, clone, finish

LOST = (Unreachable,)
DENIED = (CredentialsRejected, Unsupported, PlatformFault)
TROUBLE = (Busy, Unreachable, PlatformFault)
ANSWERED = (NotFound, Conflict, Busy, PlatformFault)
DEADLINE_S = 6.0


class LabWorld(contract.World, Protocol):
    """A platform of the lab behind a connector."""

    @property
    def faults(self) -> Faults: ...

    reading: str
    """Fits what a listing asks, and nothing of signing in: a regular expression over labels."""
    changing: str
    """Fits the request that begins a clone."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    kind: str
    errors: tuple[type[ConnectorError], ...]
    status: int = 503
    delay_s: float = 0.0


FAULTS = (
    Fault("slow", "slow", (), delay_s=0.3),
    Fault("hang", "hang", LOST),
    Fault("drop_before", "drop_before", LOST),
    Fault("drop_after", "drop_after", LOST),
    Fault("truncate", "truncate", (*LOST, PlatformFault)),
    Fault("session_expires", "session_expires", DENIED),
    Fault("401", "status", DENIED, 401),
    Fault("403", "status", DENIED, 403),
    Fault("404", "status", (*ANSWERED, Unsupported, Unreachable), 404),
    Fault("409", "status", ANSWERED, 409),
    Fault("412", "status", ANSWERED, 412),
    Fault("428", "status", ANSWERED, 428),
    Fault("429", "status", TROUBLE, 429),
    Fault("500", "status", TROUBLE, 500),
    Fault("502", "status", TROUBLE, 502),
    Fault("503", "status", TROUBLE, 503),
)
QUICK = tuple(fault for fault in FAULTS if fault.kind not in ("slow", "hang"))
PAIRS = tuple(itertools.permutations(QUICK, 2))
SOME_PAIRS = tuple((fault, QUICK[(place + step) % len(QUICK)]) for place, fault in enumerate(QUICK) for step in (1, 5))
"""Each fault twice as the first and twice as the second one; the long run has all `PAIRS`."""


def strike(world: LabWorld, where: str, *faults: Fault, count: int) -> None:
    """The faults one after the other, each so often."""
    for fault in faults:
        world.faults.add(fault.kind, where, count=count, status=fault.status, delay_s=fault.delay_s)


def check_reading(world: LabWorld, *faults: Fault) -> None:
    """One fault stands; two strike once each. Then the listing is whole again."""
    connector = world.connector()
    whole = contract.listing(connector)
    strike(world, world.reading, *faults, count=-1 if len(faults) == 1 else 1)
    for _ in faults:
        try:
            seen = connector.inventory(None, time.monotonic() + DEADLINE_S)
        except ConnectorError as error:
            require_sound(world, error, faults)
        else:
            assert seen.partial or {m.id for m in seen.machines} == {m.id for m in whole.machines}, (
                "nothing is left out"
            )
            assert seen.complete == (not seen.partial)
    world.faults.clear()
    assert contract.listing(world.connector()).machines == whole.machines


def check_changing(world: LabWorld, *faults: Fault) -> None:
    """One fault stands; two strike once each. Then the same order makes one machine, whose deletion leaves nothing."""
    connector, order = world.connector(), clone(world)
    strike(world, world.changing, *faults, count=-1 if len(faults) == 1 else 1)
    outcome = None
    try:
        (outcome,) = contract.submit_within(connector, [order], DEADLINE_S) or (None,)
        if outcome is not None and outcome.stage is Stage.RUNNING and len(faults) == 2:
            outcome = finish(world, connector, order, outcome)
    except ConnectorError as error:
        require_sound(world, error, faults)
    if outcome is not None and outcome.error is not None:
        require_sound(world, outcome.error, faults)
    world.faults.clear()
    fresh = world.connector()
    done = finish(world, fresh, again(order))
    assert done.stage is Stage.DONE, f"{done.error} ({done.error.platform_words if done.error else ''})"
    assert isinstance(done.result, MachineMade)
    assert list(world.machines()) == [done.result.machine_id], "the same key makes one machine"
    remove(world, fresh, done.result, order.key)


def remove(world: LabWorld, connector: Connector, machine: MachineMade, key: str) -> None:
    order = DeleteMachine(key=contract.new_key(), machine=MachineRef(machine.machine_id, Stamp(OURS, key)))
    assert finish(world, connector, order).stage is Stage.DONE
    assert not world.machines()
    assert not world.litter(), "nothing is left behind"


def require_sound(world: LabWorld, error: ConnectorError, faults: tuple[Fault, ...]) -> None:
    """It is of a class that fits one of the faults, speaks to people, and tells no secret."""
    fitting = tuple(kind for fault in faults for kind in fault.errors)
    assert isinstance(error, fitting), f"{type(error).__name__} ({error}) after {[fault.name for fault in faults]}"
    assert not isinstance(error, CapacityExhausted | CertificateRejected)
    assert error.message[:1].isupper()
    assert error.message.rstrip().endswith((".", "!"))
    for text in (str(error), repr(error), error.platform_words):
        assert not any(secret in text for secret in world.secrets), "a secret stands in a text"
