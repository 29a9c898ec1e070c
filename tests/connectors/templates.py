"""What a template that was landed must be, on every platform."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from connectors.base import CloneMachine, Connector, DeleteMachine, MachineRef, Stamp
from connectors.errors import Conflict
from tests.connectors.contract import OURS, World, do, listing, made, new_key, ref, refuse


def prove(
    world: World,
    connector: Connector,
    template: MachineRef,
    key: str,
    holds: Sequence[bytes],
    now: Callable[[MachineRef], Sequence[bytes]],
) -> None:
    """It is listed as one, linked clones of it hold what it holds, and neither their end nor an order is its own.

    `key`: of its landing. `now`: the bytes of a machine's disks, behind the connector's back.
    """
    (seen,) = [one for one in listing(connector).templates if one.id == template.id]
    assert seen.cannot == ""
    assert seen.stamp == template.stamp
    clones = [_clone(world, connector, template, name) for name in ("first", "second")]
    for clone in clones:
        assert _is_same(now(clone), holds), "a clone holds what its template holds"
    do(world, connector, DeleteMachine(key=new_key(), machine=clones[0]))
    order = DeleteMachine(key=new_key(), machine=MachineRef(template.id, Stamp(OURS, key)))
    assert isinstance(refuse(world, connector, order), Conflict)
    assert _is_same(now(template), holds)
    assert _is_same(now(clones[1]), holds)
    assert template.id in {one.id for one in listing(connector).templates}
    assert _is_same(now(_clone(world, connector, template, "third")), holds)


def _clone(world: World, connector: Connector, template: MachineRef, name: str) -> MachineRef:
    order = CloneMachine(key=new_key(), name=name, template=template.id, power_on=False)
    clone = ref(world, made(world, connector, order))
    assert clone.stamp == Stamp(OURS, order.key)
    return clone


def _is_same(found: Sequence[bytes], wanted: Sequence[bytes]) -> bool:
    """Told without them, should they differ: they are large."""
    return list(found) == list(wanted)
