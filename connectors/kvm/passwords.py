"""SetGuestPassword: an account of the guest gets a password, through the guest's own agent (`guest-set-user-password`).

On Linux qemu-ga hands it to chpasswd on its standard input, on Windows to NetUserSetInfo (QEMU, qga/commands-posix.c,
commands-win32.c); libvirt passes it on (`virDomainSetUserPassword`) and keeps it nowhere. Seen with qemu-ga 7.2 on
Debian 12 and libvirt 9.0.
"""

from __future__ import annotations

import libvirt

from connectors.base import Outcome, Power, SetGuestPassword
from connectors.errors import Conflict, ConnectorError, PlatformFault, Unsupported
from connectors.kvm import faults
from connectors.kvm.power import seen_power
from connectors.kvm.work import Work

ANSWER_S = 5
"""How long the guest may take: less than a call to the connector may last."""
AGAIN_S = 1.0
_SILENT = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED)


def set_password(work: Work[SetGuestPassword]) -> Outcome:
    """Each attempt sets it again: the same password twice is the same as once."""
    work.begin("Looking at the machine")
    domain, seen = work.ours(work.order.machine)
    if seen_power(domain) is not Power.ON:
        raise Conflict(f"Machine {seen.name!r} is not running: nobody there sets a password. Switch it on first.")
    if not seen.agent_channel:
        raise Unsupported(f"Machine {seen.name!r} has no channel for a guest agent. Add one to its template.")
    work.begin("Setting the password in the guest")
    domain.agentSetResponseTimeout(ANSWER_S, 0)
    try:
        domain.setUserPassword(work.order.user, work.order.password, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _SILENT:
            return _waiting(work)
        raise _told(error, seen.name, work.order.user) or error from error
    return work.done()


def _waiting(work: Work[SetGuestPassword]) -> Outcome:
    """One guest that does not listen is no word about its host: nothing failed, and nobody slows down."""
    work.step = "Waiting for the guest's agent"
    return work.running(poll_after_s=AGAIN_S)


def _told(error: libvirt.libvirtError, name: str, user: str) -> ConnectorError | None:
    """What the guest said against it; None if it was not the guest that refused."""
    if faults.kind_of(error) is not PlatformFault:
        return None
    return PlatformFault(
        f"The guest of {name!r} does not take a password for {user!r}. Check that this account is in its template, and "
        "that its agent may set passwords (guest-set-user-password).",
        platform_words=str(error),
    )
