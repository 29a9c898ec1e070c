"""Who is logged on to a guest, as its agent tells (`guest-get-users`): names, and nothing of whether they are idle.

qemu-ga reads utmp on Linux and the sessions of Terminal Services on Windows; seen with qemu-ga 7.2 and libvirt 9.0
(`virDomainGetGuestInfo`, VIR_DOMAIN_GUEST_INFO_USERS).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import libvirt

from connectors.kvm import mapping
from connectors.kvm.inventory import AGENT_ANSWER_S, Agents
from connectors.presence import GuestUsers

LOST = (libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR)
"""What may mean that the connection broke, not that a guest could not tell."""


def ask(connection: Any, machines: Sequence[str], deadline: float, agents: Agents) -> Iterator[GuestUsers]:
    """One by one, as long as there is time for an answer. A guest whose agent hung a moment ago is left in peace."""
    for machine in machines:
        if time.monotonic() + AGENT_ANSWER_S >= deadline:
            return
        began_at = datetime.now(UTC)
        names = None if agents.is_hung(machine) else _ask_one(connection, machine, agents)
        yield GuestUsers(machine, began_at, names)


def _ask_one(connection: Any, machine: str, agents: Agents) -> tuple[str, ...] | None:
    try:
        domain = connection.lookupByUUIDString(machine)
        if mapping.read_domain(domain.XMLDesc()).agent_channel != "connected":
            return None
        domain.agentSetResponseTimeout(AGENT_ANSWER_S, 0)
        return mapping.user_names(domain.guestInfo(libvirt.VIR_DOMAIN_GUEST_INFO_USERS, 0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
            agents.note(machine, answered=False)
        if error.get_error_code() in LOST and not connection.isAlive():
            raise
        return None
