"""SetPower, and the power steps that other orders take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from connectors.base import Outcome, Power, PowerAction, PowerSet, SetPower
from connectors.errors import Conflict, PlatformFault
from connectors.kvm import faults, held, mapping, volumes
from connectors.kvm.client import is_alive
from connectors.kvm.work import Domain, OutOfTime, Work, number

_PAUSED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED)
_ON = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN)
AGENT_ALONE_S = 10
"""How long the guest's agent has to begin a shutdown before the power button is pressed too."""


def power_of(state: int, has_saved_memory: bool) -> Power:
    """libvirt's domain state in our words. A saved memory image makes an inactive domain a suspended machine.

    A crashed guest that QEMU still holds is UNKNOWN: neither on nor off.
    """
    if state in _ON:
        return Power.ON
    if state in _PAUSED:
        return Power.SUSPENDED
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return Power.SUSPENDED if has_saved_memory else Power.OFF
    return Power.UNKNOWN


def seen_power(domain: Domain) -> Power:
    if held.is_held(domain):
        return Power.OFF
    return power_of(domain.state()[0], bool(domain.hasManagedSaveImage()))


def set_power(work: Work[SetPower]) -> Outcome:
    """Bring the power state about. SHUTDOWN asks the guest, then cuts the power once the receipt's `cut_at` has
    passed."""
    work.begin("Looking at the machine")
    domain, seen = work.ours(work.order.machine)
    match work.order.action:
        case PowerAction.ON:
            volumes.require_no_clones(work, seen)
            switch_on(work, domain)
        case PowerAction.OFF if held.is_held(domain):
            return work.done(PowerSet(Power.OFF))
        case PowerAction.OFF:
            cut_power(work, domain)
        case PowerAction.SHUTDOWN:
            return _shut_down(work, domain)
        case PowerAction.REBOOT:
            _require_on(domain)
            with _once(work, domain, seen):
                work.begin("Asking the guest to restart")
                by = libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT, libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
                _ask(domain, domain.reboot, *by)
        case PowerAction.RESET:
            _require_on(domain)
            with _once(work, domain, seen):
                work.begin("Pressing the reset button")
                domain.reset(0)
        case PowerAction.SUSPEND:
            _suspend(work, domain)
        case PowerAction.RESUME:
            _resume(work, domain)
    return work.done(PowerSet(seen_power(domain)))


@contextmanager
def _once(work: Work[SetPower], domain: Domain, seen: mapping.Domain) -> Iterator[None]:
    """Leave a trace before acting. Raises `PlatformFault` if an earlier attempt left it: whoever waited for that answer
    may be at work in the restarted guest by now."""
    if seen.restarted_by == work.order.key:
        raise PlatformFault(
            f"Whether machine {seen.name!r} was restarted is not known: the answer was lost. See whether it was, and "
            "ask again if not."
        )
    work.begin("Noting the restart")
    _note_restart(domain, seen, work.order.key)
    try:
        yield
    except (libvirt.libvirtError, OutOfTime):
        if is_alive(work.connection):  # refused, or not even asked: it may be tried again
            _note_restart(domain, seen, "")
        raise


def _note_restart(domain: Domain, seen: mapping.Domain, key: str) -> None:
    mark = mapping.mark_xml(seen.stamp, mapping.Role.MACHINE, reverted=seen.reverted_by, restarted=key)
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark, "deskyard", mapping.NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
    )


def switch_on(work: Work[Any], domain: Domain) -> None:
    """Running already is fine; a suspended machine goes on where it was. The reading of one that is held ends."""
    power = seen_power(domain)
    if power is Power.ON:
        return
    if power is Power.UNKNOWN:
        cut_power(work, domain)
    if power is Power.OFF and domain.isActive():
        work.begin("Ending the reading of its disks")
        held.let_go(domain)
    work.begin("Switching on")
    if domain.isActive():
        _wake(domain)
        return
    try:
        domain.create()
    except libvirt.libvirtError as error:
        if domain.isActive():  # another attempt was quicker
            return
        if faults.kind_of(error) is not Conflict:
            raise
        # A daemon that came back held it for running until it found that its QEMU had died with the daemon before.
        domain.create()


def cut_power(work: Work[Any], domain: Domain) -> None:
    """Off now, without asking the guest; memory saved to disk is thrown away. Off already is fine."""
    if domain.isActive():
        work.begin("Cutting the power")
        try:
            domain.destroy()
        except libvirt.libvirtError:
            if _is_active(domain):
                raise
    elif domain.hasManagedSaveImage():
        work.begin("Throwing away the saved memory")
        domain.managedSaveRemove()


def _is_active(domain: Domain) -> bool:
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise


def _require_on(domain: Domain) -> None:
    if not domain.isActive() or held.is_held(domain):
        raise Conflict(f"Machine {domain.name()!r} is off. Switch it on first.")


def _shut_down(work: Work[SetPower], domain: Domain) -> Outcome:
    """Wall-clock times in the receipt, since another process may go on with it."""
    if seen_power(domain) is Power.OFF:
        work.step = "Shutting down"
        return work.done(PowerSet(Power.OFF))
    now = time.time()
    cut_at = number(work.receipt, "cut_at")
    if cut_at is None:
        cut_at = work.receipt["cut_at"] = now + work.order.grace_s
    if now >= cut_at or seen_power(domain) is not Power.ON:  # a stopped guest hears nothing
        cut_power(work, domain)
        return work.done(PowerSet(Power.OFF))
    if "asked_at" not in work.receipt:
        work.begin("Asking the guest to shut down")
        by_agent = _ask(
            domain,
            domain.shutdownFlags,
            libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,
            libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
        )
        work.receipt["asked_at"] = now
        work.receipt["button"] = not by_agent
    elif not work.receipt.get("button") and now >= (number(work.receipt, "asked_at") or 0) + AGENT_ALONE_S:
        work.begin("Pressing the power button")
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        work.receipt["button"] = True
    work.step = "Waiting for the guest to shut down"
    return work.running(poll_after_s=max(0.2, min(1.0, cut_at - now)))


def _ask(domain: Domain, call: Any, by_agent: int, by_button: int) -> bool:
    """Ask the guest's agent if it is there, else press the button. True if the agent was asked."""
    if mapping.read_domain(domain.XMLDesc()).agent_channel == "connected":
        try:
            call(by_agent)
            return True
        except libvirt.libvirtError as error:
            if "agent socket" in str(error):  # the guest went down before its agent had answered: it did hear us
                return True
            if error.get_error_code() not in _AGENT_SILENT:
                raise
    call(by_button)
    return False


_AGENT_SILENT = (
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
)


def _suspend(work: Work[Any], domain: Domain) -> None:
    if seen_power(domain) is Power.SUSPENDED:
        return
    _require_on(domain)
    work.begin("Suspending")
    domain.suspend()


def _resume(work: Work[Any], domain: Domain) -> None:
    power = seen_power(domain)
    if power is Power.ON:
        return
    if power is Power.OFF:
        raise Conflict(f"Machine {domain.name()!r} is off, not suspended. Switch it on instead.")
    work.begin("Resuming")
    if domain.isActive():
        _wake(domain)
    else:
        domain.create()


def _wake(domain: Domain) -> None:
    if domain.state()[0] == libvirt.VIR_DOMAIN_PMSUSPENDED:
        domain.pMWakeup()
    else:
        domain.resume()
