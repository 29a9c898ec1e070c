"""SetPower, and the power steps that other orders take.

AHV's v4 API knows no suspend and no resume: machines can be seen paused, but not be made so (ntnx_vmm_py_client 4.3.2,
`VmApi`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from connectors.base import Agent, Outcome, Power, PowerAction, PowerSet, SetPower
from connectors.errors import Conflict, PlatformFault, Unsupported
from connectors.nutanix.client import Answer
from connectors.nutanix.work import Seen, StillGoing, Work

Look = Callable[[], Seen]

GUEST_OPTIONS = {
    "guestPowerStateTransitionConfig": {"shouldEnableScriptExec": False, "shouldFailOnScriptFailure": False}
}
TOOLS_ALONE_S = 15.0
"""How long the guest's tools have to begin a shutdown before the power button is pressed too."""


def set_power(work: Work[SetPower]) -> Outcome:
    """Bring the power state about. SHUTDOWN asks the guest, then cuts the power once the receipt's `cut_at` has
    passed."""
    order = work.order

    def look() -> Seen:
        return work.ours(order.machine)

    match order.action:
        case PowerAction.ON:
            switch_on(work, look)
            return work.done(PowerSet(Power.ON))
        case PowerAction.OFF:
            switch_off(work, look)
            return work.done(PowerSet(Power.OFF))
        case PowerAction.SHUTDOWN:
            return _shut_down(work, look)
        case PowerAction.REBOOT:
            return _restart(work, look, "reboot", "Asking the guest to restart")
        case PowerAction.RESET:
            return _restart(work, look, "reset", "Resetting")
        case PowerAction.SUSPEND | PowerAction.RESUME:
            return _suspend_or_resume(work, look)


def switch_on(work: Work[Any], look: Look, step: str = "on") -> None:
    """On already is fine."""
    work.ensure(step, "Switching on", look, lambda seen, id: work.post("power-on", seen, id), is_done=_is_on)


def switch_off(work: Work[Any], look: Look, step: str = "off") -> None:
    """The power is cut; off already is fine."""
    work.ensure(step, "Cutting the power", look, lambda seen, id: work.post("power-off", seen, id), is_done=_is_off)


def _is_on(seen: Seen) -> bool:
    return seen.vm.power is Power.ON


def _is_off(seen: Seen) -> bool:
    return seen.vm.power is Power.OFF


def _require_on(seen: Seen) -> None:
    if seen.vm.power is not Power.ON:
        raise Conflict(f"Machine {seen.vm.name!r} is {seen.vm.power}. Switch it on first.")


def _restart(work: Work[SetPower], look: Look, action: str, words: str) -> Outcome:
    """Once: a second attempt sends the same request id, and Prism answers with the first one's task."""

    def start(seen: Seen, id: str) -> Answer:
        _require_on(seen)
        if action == "reboot" and seen.vm.agent is Agent.ANSWERING:
            return work.post("guest-reboot", seen, id, GUEST_OPTIONS)
        return work.post(action, seen, id)

    work.ensure(action, words, look, start)
    return work.done(PowerSet(Power.ON))


def _suspend_or_resume(work: Work[SetPower], look: Look) -> Outcome:
    """What is already so is success; everything else Prism has no call for."""
    work.begin("Looking at the machine")
    seen = look()
    wanted = Power.SUSPENDED if work.order.action is PowerAction.SUSPEND else Power.ON
    if seen.vm.power is wanted:
        return work.done(PowerSet(wanted))
    if seen.vm.power is Power.OFF:
        raise Conflict(f"Machine {seen.vm.name!r} is off. Switch it on instead.")
    raise Unsupported(
        f"Prism Central has no call to {work.order.action} a machine: {seen.vm.name!r} was left as it is. "
        "Shut it down instead."
    )


def _shut_down(work: Work[SetPower], look: Look) -> Outcome:
    """Ask the guest by its tools if they answer, else (and after a while) by the power button; then cut the power.

    Wall-clock times in the receipt, since another process may go on with it.
    """
    work.begin("Asking the guest to shut down")
    now = time.time()
    work.receipt.setdefault("cut_at", now + work.order.grace_s)
    seen = look()
    if _is_off(seen):
        return work.done(PowerSet(Power.OFF))
    if now >= work.number("cut_at") or seen.vm.power is not Power.ON:  # a paused guest hears nothing
        switch_off(work, look)
        return work.done(PowerSet(Power.OFF))
    by_tools = (
        work.has_done("tools")
        or work.is_under_way("tools")
        or (seen.vm.agent is Agent.ANSWERING and not work.has_done("button"))
    )
    if by_tools and not work.has_done("button"):
        work.receipt.setdefault("asked_at", now)
        _ask(work, look, "tools", "guest-shutdown")
    if not by_tools or now >= work.number("asked_at") + TOOLS_ALONE_S:
        _ask(work, look, "button", "shutdown")
    work.step = "Waiting for the guest to shut down"
    raise StillGoing(after_s=max(0.2, min(1.0, work.number("cut_at") - now)))


def _ask(work: Work[SetPower], look: Look, step: str, action: str) -> None:
    """A guest that does not hear is no failure: the power is cut in the end."""
    body = GUEST_OPTIONS if action == "guest-shutdown" else None
    try:
        work.ensure(
            step, work.step, look, lambda seen, id: work.post(action, seen, id, body), is_done=_is_off, is_shown=False
        )
    except StillGoing as going:
        left = work.number("cut_at") - time.time()
        raise StillGoing(going.percent, max(0.2, min(1.0, left))) from None
    except (Conflict, Unsupported, PlatformFault):
        look()  # a Conflict of identity is one
        work.note_done(step)
