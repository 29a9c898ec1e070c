"""SetPower, and the power steps that other orders take."""

from __future__ import annotations

import time
from typing import Any

from connectors.base import Outcome, Power, PowerAction, PowerSet, SetPower
from connectors.errors import Busy, Conflict, PlatformFault
from connectors.esxi import mapping
from connectors.esxi.api import vim
from connectors.esxi.faults import VimFault
from connectors.esxi.work import Vm, Work, number

TOOLS_PATHS = ("guest.toolsRunningStatus", "guest.toolsVersionStatus2")


def set_power(work: Work[SetPower]) -> Outcome:
    """Bring the power state about. Each entry looks at the machine; a task that lost a race is judged by what it
    shows."""
    fault = work.settle()
    work.begin("Looking at the machine")
    vm = work.ours(work.order.machine, TOOLS_PATHS)
    if fault is not None:
        lost = int(number(work.receipt, "lost_races") or 0) + 1
        work.receipt["lost_races"] = lost
        if lost > 3 or not fault.is_a("InvalidPowerState"):
            raise fault
    match work.order.action:
        case PowerAction.ON:
            switch_on(work, vm)
        case PowerAction.OFF:
            cut_power(work, vm)
        case PowerAction.SHUTDOWN:
            return _shut_down(work, vm)
        case PowerAction.REBOOT | PowerAction.RESET:
            return _restart(work, vm)
        case PowerAction.SUSPEND:
            if vm.power is not Power.SUSPENDED:
                _require_on(vm)
                raise work.start("Suspending", work.vm(vm).Suspend)
        case PowerAction.RESUME:
            _resume(work, vm)
    return work.done(PowerSet(vm.power))


def switch_on(work: Work[Any], vm: Vm) -> None:
    """Running already is fine; a suspended machine goes on where it was. Raises `Waiting` while it is on its way."""
    if vm.power is not Power.ON:
        raise work.start("Switching on", work.vm(vm).PowerOn)


def cut_power(work: Work[Any], vm: Vm) -> None:
    """Off now, without asking the guest; a suspended machine forgets its memory. Off already is fine."""
    if vm.power is not Power.OFF:
        raise work.start("Cutting the power", work.vm(vm).PowerOff)


def _require_on(vm: Vm) -> None:
    if vm.power is not Power.ON:
        raise Conflict(f"Machine {vm.name!r} is {vm.power}. Switch it on first.")


def _resume(work: Work[SetPower], vm: Vm) -> None:
    if vm.power is Power.OFF:
        raise Conflict(f"Machine {vm.name!r} is off, not suspended. Switch it on instead.")
    switch_on(work, vm)


# --- shutting down ---------------------------------------------------------------------------------------------------


def _shut_down(work: Work[SetPower], vm: Vm) -> Outcome:
    """Wall-clock times in the receipt, since another process may go on with it."""
    if vm.power is Power.OFF:
        work.step = "Shutting down"
        return work.done(PowerSet(Power.OFF))
    now = time.time()
    cut_at = number(work.receipt, "cut_at")
    if cut_at is None:
        cut_at = work.receipt["cut_at"] = now + work.order.grace_s
    # A stopped guest hears nothing, and neither does one without VMware Tools: vSphere has no power button to press.
    is_deaf = vm.power is not Power.ON or vm.seen.text("guest.toolsVersionStatus2") == "guestToolsNotInstalled"
    if now >= cut_at or is_deaf:
        cut_power(work, vm)
    if "asked_at" not in work.receipt:
        work.begin("Asking the guest to shut down")
        try:
            work.vm(vm).ShutdownGuest()
            work.receipt["asked_at"] = now
        except VimFault as fault:
            # Tools that do not run yet may do so before the time is over.
            if not fault.is_a("ToolsUnavailable", "InvalidPowerState"):
                raise
    work.step = "Waiting for the guest to shut down"
    return work.running(poll_after_s=max(0.2, min(1.0, cut_at - now)))


# --- restarting, once ------------------------------------------------------------------------------------------------


def _restart(work: Work[SetPower], vm: Vm) -> Outcome:
    """1. Note the order's key at the machine. 2. Restart it, by the very connector object that wrote the note.

    Whoever finds the note of an order and has not written it cannot know whether the guest was restarted, and says so:
    somebody may be at work in it by now.
    """
    order, restarts = work.order, work.shared.restarts
    far = restarts.get(order.key, "")
    if work.receipt.get("resetting"):  # the reset's own task has ended
        restarts.pop(order.key, None)
        return work.done(PowerSet(vm.power))
    is_noted = vm.mark(mapping.RESTARTED) == order.key
    if far == "acted" or (is_noted and far != "noted"):
        raise PlatformFault(
            f"Whether machine {vm.name!r} was restarted is not known: the answer was lost. See whether it was, and "
            "ask again if not."
        )
    _require_on(vm)
    if not is_noted:
        restarts[order.key] = "noted"
        raise work.start("Noting the restart", lambda: work.vm(vm).Reconfigure(spec=_note(order.key)))
    if order.action is PowerAction.REBOOT and _ask_guest(work, vm):
        restarts.pop(order.key, None)
        return work.done(PowerSet(Power.ON))
    restarts[order.key] = "acted"
    try:
        raise work.start("Pressing the reset button", work.vm(vm).Reset, resetting=True)
    except VimFault:
        restarts[order.key] = "noted"  # refused: nothing happened
        raise


def _ask_guest(work: Work[SetPower], vm: Vm) -> bool:
    """True if the guest was asked to restart; False if it has no Tools that could hear it: then reset serves."""
    work.begin("Asking the guest to restart")
    work.shared.restarts[work.order.key] = "acted"
    try:
        work.vm(vm).RebootGuest()
        return True
    except VimFault as fault:
        work.shared.restarts[work.order.key] = "noted"
        if fault.is_a("ToolsUnavailable", "MethodNotFound"):
            return False
        if fault.is_a("TaskInProgress"):
            raise Busy(f"Machine {vm.name!r} is busy. It will be tried again.") from None
        raise


def _note(key: str) -> Any:
    return vim.vm.ConfigSpec(extraConfig=mapping.options({mapping.RESTARTED: key}))
