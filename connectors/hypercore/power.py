"""SetPower, and the power steps that other orders take."""

from __future__ import annotations

import time

from connectors.base import Outcome, Power, PowerAction, PowerSet, SetPower
from connectors.errors import Conflict, PlatformFault
from connectors.hypercore import mapping
from connectors.hypercore.client import segment
from connectors.hypercore.mapping import Vm
from connectors.hypercore.work import O, Started, Waiting, Work, number

LOOK_S = 1.0
"""How often to look whether a guest has gone down."""


def set_power(work: Work[SetPower]) -> Outcome:
    """Bring the power state about. SHUTDOWN asks the guest, which may ignore it, and cuts the power once the receipt's
    `cut_at` has passed."""
    work.begin("Looking at the machine")
    vm = work.ours(work.order.machine)
    match work.order.action:
        case PowerAction.ON | PowerAction.RESUME:
            if work.order.action is PowerAction.RESUME and vm.power is Power.OFF:
                raise Conflict(f"Machine {vm.name!r} is off: there is nothing to resume. Switch it on.")
            switch_on(work, vm)
        case PowerAction.OFF:
            cut_power(work, vm)
        case PowerAction.SHUTDOWN:
            _shut_down(work, vm)
        case PowerAction.REBOOT:
            _restart(work, vm, "REBOOT", "Asking the guest to restart")
        case PowerAction.RESET:
            _restart(work, vm, "RESET", "Pressing the reset button")
        case PowerAction.SUSPEND:
            if vm.power is Power.OFF:
                raise Conflict(f"Machine {vm.name!r} is off and cannot be suspended.")
            work.act(vm, "PAUSE", "Suspending", lambda seen: seen.power is Power.SUSPENDED)
    return work.done(PowerSet(vm.power))


def switch_on(work: Work[O], vm: Vm) -> None:
    """On already is fine; a suspended machine goes on where it was (START), a crashed one is cut off first."""
    if vm.power is Power.UNKNOWN and _last_sent(work) != "START":
        work.act(vm, "STOP", "Cutting the power", is_off)
    work.act(vm, "START", "Switching on", lambda seen: seen.power is Power.ON)


def cut_power(work: Work[O], vm: Vm) -> None:
    """Off now, without asking the guest. Off already is fine."""
    work.act(vm, "STOP", "Cutting the power", is_off)


def is_off(vm: Vm) -> bool:
    return vm.power is Power.OFF


def _last_sent(work: Work[O]) -> str:
    sent = work.receipt.get("sent")
    return str(sent[0]) if isinstance(sent, list) and sent else ""


def _shut_down(work: Work[SetPower], vm: Vm) -> None:
    if is_off(vm):
        return
    if vm.power is not Power.ON:  # a guest that does not run hears nothing
        cut_power(work, vm)
        return
    cut_at = number(work.receipt, "cut_at")
    if cut_at is None:
        try:
            work.send(vm, "SHUTDOWN", "Asking the guest to shut down")
        except Started:
            work.receipt["cut_at"] = time.time() + work.order.grace_s
            raise
    elif time.time() < cut_at:
        work.begin("Waiting for the guest to shut down")
        raise Waiting(work.step, min(LOOK_S, max(0.1, cut_at - time.time())))
    cut_power(work, vm)


def _restart(work: Work[SetPower], vm: Vm, action: str, step: str) -> None:
    """Restart the guest once, whatever is lost on the way.

    1. The order's key is noted in the machine's tags, and the note's task in the receipt.
    2. As long as that task is the last one that worked on the machine, nobody has restarted it since: now it is done.
    3. Any other attempt that finds the note, or finds that something came after it, says that nobody knows. Whoever
       waited for the lost answer may be at work in the restarted guest by now.
    """
    if work.receipt.get("restarted"):
        return
    if vm.power is not Power.ON:
        raise Conflict(f"Machine {vm.name!r} is not on: only a running machine can be restarted.")
    if vm.marks.restarted != work.order.key:
        tags = mapping.with_marks(vm, restarted=work.order.key)
        try:
            work.change("Noting the restart", "PATCH", f"/VirDomain/{segment(vm.id)}", {"tags": tags}, on=vm)
        except Started:
            work.receipt["note"] = work.receipt.get("task", "")
            raise
    if not work.receipt.get("note") or vm.task != work.receipt["note"]:
        raise PlatformFault(
            f"Whether machine {vm.name!r} was restarted is not known: the answer was lost. See whether it was, and "
            "ask again if not."
        )
    try:
        work.send(vm, action, step)
    except Started:
        work.receipt["restarted"] = True
        raise
