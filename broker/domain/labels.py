"""What people read: one label (text, tone, icon) for each thing that has several axes. Colour is never alone.

Tones: good (ready, in use, done), busy (the broker works on it), off (nothing wrong, nothing on), attention (a person
should look), bad (failed).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from broker.domain.failover import Step
from broker.domain.lifecycle import State
from broker.domain.permissions import NAMES, Role


class Tone(StrEnum):
    GOOD = "good"
    BUSY = "busy"
    OFF = "off"
    ATTENTION = "attention"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Label:
    text: str
    tone: Tone
    icon: str
    """check, user, screen, clock, spinner, power, pause, wrench, question, warning, cross, trash, lock"""


_STATES: dict[State, Label] = {
    State.PLANNED: Label("Planned", Tone.BUSY, "clock"),
    State.BUILDING: Label("Building", Tone.BUSY, "spinner"),
    State.PREPARING: Label("Preparing", Tone.BUSY, "spinner"),
    State.READY: Label("Ready", Tone.GOOD, "check"),
    State.ASSIGNED: Label("Assigned", Tone.GOOD, "user"),
    State.RECYCLING: Label("Recycling", Tone.BUSY, "spinner"),
    State.RETIRING: Label("Deleting", Tone.BUSY, "trash"),
    State.GONE: Label("Deleted", Tone.OFF, "trash"),
    State.FAILED: Label("Failed", Tone.BAD, "cross"),
    State.MISSING: Label("Missing", Tone.BAD, "question"),
}

_OPERATIONS_ON_DESKTOPS = {
    "power": "Changing power",
    "snapshot": "Taking a snapshot",
    "revert": "Reverting to a snapshot",
    "unsnapshot": "Deleting a snapshot",
    "reconfigure": "Changing its hardware",
    "move": "Being moved",
}


def label(
    state: State | str,
    power: str,
    has_session: bool,
    is_answering: bool,
    in_maintenance: bool,
    has_operation: str = "",
    *,
    has_agent: bool = True,
) -> Label:
    """A desktop, in one label. `has_operation` is the kind of an unfinished changing operation, "move" while a failover
    holds it, or empty.

    `has_agent` is False for pools that do not wait for a guest's agent: silence is then nothing to look at.

    The order of the questions is the order of what a person must know first: that it is broken, that it is being worked
    on, that it is in maintenance, and then how it is.
    """
    state = State(state)
    if state not in {State.READY, State.ASSIGNED}:
        return _STATES[state]
    if words := _OPERATIONS_ON_DESKTOPS.get(has_operation):
        return Label(words, Tone.BUSY, "spinner")
    if in_maintenance:
        return Label("Maintenance", Tone.ATTENTION, "wrench")
    if state == State.ASSIGNED and has_session:
        return Label("In use", Tone.GOOD, "screen")
    return _standing(_STATES[state], power, is_answering or not has_agent)


def account_label(role: Role | None, *, is_active: bool) -> Label:
    """Of somebody's account; a closed one has no role."""
    if not is_active:
        return Label("Closed", Tone.OFF, "lock")
    if role is None:
        return Label("User", Tone.GOOD, "user")
    return Label(NAMES[role], Tone.BUSY, "key")


def desktop_label(row: Any) -> Label:
    """Of a desktop with what `selectors.desktops.labelled` adds; without that, as if nobody used or changed it."""
    return label(
        row.state,
        row.power,
        getattr(row, "has_session", False),
        row.is_answering,
        row.is_in_maintenance,
        "move" if row.is_moving else getattr(row, "operation_kind", None) or "",
    )


def seat_words(row: Any) -> str:
    """How many are on a session host, with `%(taken)d` and `%(seats)d`, so that it can be translated."""
    return "%(taken)d of %(seats)d seats, takes nobody new" if row.is_emptying else "%(taken)d of %(seats)d seats"


def _standing(base: Label, power: str, is_answering: bool) -> Label:
    if power == "off":
        return Label(f"{base.text}, off", Tone.OFF, "power")
    if power == "suspended":
        return Label(f"{base.text}, suspended", Tone.OFF, "pause")
    if power == "on" and not is_answering:
        return Label(f"{base.text}, not answering", Tone.ATTENTION, "warning")
    if power not in {"on", "off", "suspended"}:
        return Label(f"{base.text}, power unknown", Tone.ATTENTION, "question")
    return base


_HYPERVISORS: dict[str, Label] = {
    "new": Label("Not reached yet", Tone.BUSY, "clock"),
    "up": Label("Up", Tone.GOOD, "check"),
    "down": Label("Down", Tone.BAD, "cross"),
    "refused": Label("Sign-in refused", Tone.BAD, "lock"),
    "doubt": Label("In doubt", Tone.ATTENTION, "question"),
}


def hypervisor_label(status: str, is_draining: bool = False) -> Label:
    """Of a registered hypervisor; being emptied shows only where nothing is worse."""
    if status == "up" and is_draining:
        return Label("Draining", Tone.ATTENTION, "wrench")
    return _HYPERVISORS[status]


_OPERATIONS: dict[str, Label] = {
    "queued": Label("Queued", Tone.BUSY, "clock"),
    "sent": Label("Sent", Tone.BUSY, "spinner"),
    "running": Label("Running", Tone.BUSY, "spinner"),
    "done": Label("Done", Tone.GOOD, "check"),
    "failed": Label("Failed", Tone.BAD, "cross"),
    "cancelled": Label("Cancelled", Tone.OFF, "cross"),
}


def operation_label(state: str) -> Label:
    return _OPERATIONS[state]


_REQUESTS: dict[str, Label] = {
    "waiting": Label("Waiting for approval", Tone.BUSY, "clock"),
    "approved": Label("Waiting for a desktop", Tone.BUSY, "clock"),
    "building": Label("Being built", Tone.BUSY, "spinner"),
    "ready": Label("Ready", Tone.GOOD, "check"),
    "refused": Label("Refused", Tone.BAD, "cross"),
    "failed": Label("Failed", Tone.BAD, "cross"),
    "cancelled": Label("Cancelled", Tone.OFF, "cross"),
    "ended": Label("Ended", Tone.OFF, "check"),
}


def request_label(state: str) -> Label:
    return _REQUESTS[state]


_SESSIONS: dict[str, Label] = {
    "connected": Label("Connected", Tone.GOOD, "screen"),
    "idle": Label("Idle", Tone.ATTENTION, "clock"),
    "disconnected": Label("Disconnected", Tone.OFF, "pause"),
    "logged_off": Label("Logged off", Tone.OFF, "check"),
}


def session_label(state: str) -> Label:
    """Of somebody's presence on a desktop."""
    return _SESSIONS[state]


def schedule_label(is_enabled: bool) -> Label:
    return Label("Active", Tone.GOOD, "check") if is_enabled else Label("Paused", Tone.OFF, "pause")


_VAULTS: dict[str, Label] = {
    "new": Label("Not opened yet", Tone.BUSY, "clock"),
    "up": Label("Up", Tone.GOOD, "check"),
    "down": Label("Down", Tone.BAD, "cross"),
    "refused": Label("Cannot be opened", Tone.BAD, "lock"),
}


def application_label(row: Any) -> Label:
    """Of a row of `selectors.applications`."""
    if not row.is_enabled:
        return Label("Not offered", Tone.OFF, "lock")
    if row.pool.protocol != "rdp":
        return Label("Its pool shows VNC", Tone.ATTENTION, "warning")
    if not row.people:
        return Label("For nobody yet", Tone.ATTENTION, "warning")
    return Label("Offered", Tone.GOOD, "check")


def vault_label(status: str) -> Label:
    return _VAULTS[status]


_RUNS: dict[str, Label] = {
    "queued": Label("Queued", Tone.BUSY, "clock"),
    "running": Label("Running", Tone.BUSY, "spinner"),
    "done": Label("Done", Tone.GOOD, "check"),
    "failed": Label("Failed", Tone.BAD, "cross"),
    "cancelled": Label("Cancelled", Tone.OFF, "cross"),
}


def run_label(state: str, *, is_to_end: bool = False, is_retried: bool = False) -> Label:
    """Of a mover's run. `is_to_end`: somebody wants it cancelled; `is_retried`: an attempt has failed already."""
    if is_to_end and state in ("queued", "running"):
        return Label("Being cancelled", Tone.BUSY, "spinner")
    if is_retried and state == "queued":
        return Label("Tried again", Tone.ATTENTION, "clock")
    return _RUNS[state]


def point_label(state: str, *, is_verified: bool = False) -> Label:
    """Of a recovery point."""
    if state == "usable":
        return Label("Verified", Tone.GOOD, "check") if is_verified else Label("Usable", Tone.GOOD, "check")
    if state == "broken":
        return Label("Damaged", Tone.BAD, "cross")
    return Label("Being deleted", Tone.BUSY, "trash")


_CONSISTENCIES: dict[str, Label] = {
    "guest": Label("File systems frozen", Tone.GOOD, "check"),
    "crash": Label("As after a power cut", Tone.OFF, "power"),
    "off": Label("The machine was off", Tone.GOOD, "power"),
}


def consistency_label(consistency: str) -> Label:
    """What a guest that starts from a recovery point finds."""
    return _CONSISTENCIES.get(consistency, Label("Not known", Tone.ATTENTION, "question"))


def promise_label(*, is_chosen: bool, is_enabled: bool, has_point: bool, is_kept: bool) -> Label:
    """Of one machine under a policy: whether its newest point is as new as promised."""
    if not is_chosen:
        return Label("Not replicated any more", Tone.OFF, "minus")
    if not is_enabled:
        return Label("Paused", Tone.OFF, "pause")
    if not is_kept:
        return Label("RPO broken", Tone.BAD, "warning")
    if not has_point:
        return Label("First point to come", Tone.BUSY, "clock")
    return Label("RPO kept", Tone.GOOD, "check")


_MIRRORS: dict[str, Label] = {
    "healthy": Label("Replicating", Tone.GOOD, "check"),
    "warning": Label("Behind", Tone.ATTENTION, "warning"),
    "failing": Label("Failing", Tone.BAD, "warning"),
    "initial": Label("First copy to come", Tone.BUSY, "clock"),
    "paused": Label("Paused there", Tone.OFF, "pause"),
    "unknown": Label("Not told", Tone.ATTENTION, "question"),
}


def mirror_label(state: str) -> Label:
    """Of one replica that a platform keeps by itself. A state that a later release knows is shown as it is called."""
    return _MIRRORS.get(state) or Label(state, Tone.ATTENTION, "question")


def watched_label(*, is_chosen: bool, is_enabled: bool, is_replicated: bool, has_replica: bool, is_kept: bool) -> Label:
    """As `promise_label`, of a machine that its platform replicates, or, `is_replicated` false, does not."""
    label = promise_label(is_chosen=is_chosen, is_enabled=is_enabled, has_point=True, is_kept=is_kept)
    if label.tone is not Tone.GOOD:
        return label
    if not is_replicated:
        return Label("Not replicated there", Tone.ATTENTION, "question")
    return label if has_replica else Label("First replica to come", Tone.BUSY, "clock")


def policy_label(
    *, is_enabled: bool, machines: int, broken: int, without_point: int, is_watched: bool = False
) -> Label:
    """Of a policy with all its machines."""
    if not is_enabled:
        return Label("Paused", Tone.OFF, "pause")
    if not machines:
        return Label("No machine chosen", Tone.ATTENTION, "question")
    if broken:
        return Label(f"RPO broken for {broken} of {machines}", Tone.BAD, "warning")
    if without_point:
        return Label("First replicas to come" if is_watched else "First points to come", Tone.BUSY, "clock")
    return Label("RPO kept", Tone.GOOD, "check")


_FAILOVERS: dict[str, Label] = {
    "done": Label("Done", Tone.GOOD, "check"),
    "failed": Label("Failed", Tone.BAD, "cross"),
    "cancelled": Label("Cancelled", Tone.OFF, "cross"),
}


def failover_label(state: str, step: str, *, is_to_end: bool = False) -> Label:
    """Of a test, a move or an emergency."""
    if state != "running":
        return _FAILOVERS[state]
    if step == Step.TAKING_BACK:
        return Label("Being put back", Tone.ATTENTION, "spinner")
    if is_to_end:
        return Label("Being cancelled", Tone.BUSY, "spinner")
    return Label("Waiting", Tone.BUSY, "clock") if step == Step.WAITING else Label("Under way", Tone.BUSY, "spinner")


class Wait(StrEnum):
    """The four words of a user's wait, in order."""

    FINDING = "Finding"
    """No desktop is theirs yet."""
    STARTING = "Starting"
    """Theirs, and being switched on."""
    PREPARING = "Preparing"
    """On; the guest does not answer yet."""
    CONNECTING = "Connecting"
    """Answers: the screen is being opened."""


WAITS = tuple(Wait)


def wait(*, has_desktop: bool, power: str, is_answering: bool, waits_for_guest: bool = True) -> Wait:
    """Where a user's wait stands. `waits_for_guest` is False for pools that do not wait for an agent."""
    if not has_desktop:
        return Wait.FINDING
    if power != "on":
        return Wait.STARTING
    if waits_for_guest and not is_answering:
        return Wait.PREPARING
    return Wait.CONNECTING
