"""Machines that go over to the replica that Hyper-V Replica keeps of them, as planned (script `failover`).

On the primary host `Start-VMFailover -Prepare` sends what has not been sent; on the replica's host `Start-VMFailover`
makes the replica the machine, and `Set-VMReplication -Reverse` has it replicate back. `Stop-VMFailover` undoes the
first two: on a primary it restarts replication and lets the machine be started, of a replica it turns off what runs
(Microsoft's documentation of the Hyper-V module, Windows Server 2019 and 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.base import MachineRef
from connectors.errors import NotFound
from connectors.hyperv.nodes import Nodes
from connectors.hyperv.rounds import Desk

DOING = {
    "hand_over": "sending the last changes of a machine",
    "take_over": "putting a replica in a machine's place",
    "reverse": "turning a machine's replication round",
    "take_back": "taking a failover back",
}


def nodes(desks: Sequence[Desk], installation: str, machine: MachineRef, op: str) -> Nodes:
    stamp = machine.stamp
    plain: dict[str, object] = {
        "installation": installation,
        "folder": "",
        "id": machine.id,
        "stamp": {"installation": stamp.installation, "key": stamp.key} if stamp is not None else None,
    }
    return Nodes(desks, "failover", plain, DOING[op])


def carry_out(
    op: str, desks: Sequence[Desk], installation: str, machine: MachineRef, deadline: float, *, first: str
) -> None:
    """One step, on the node that has the machine. Raises as `connectors.replication.DrivesMirrors` says."""
    desk, _ = nodes(desks, installation, machine, op).find(op, deadline, first)
    if desk is None and op != "take_back":
        raise NotFound(f"There is no machine {machine.id} on {', '.join(one.address for one in desks)}.")
