"""What people read: one label (text, tone, icon) for each thing that has several axes. Colour is never alone.

Tones: good (ready, in use, done), busy (the broker works on it), off (nothing wrong, nothing on), attention (a person
should look), bad (failed).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from broker.domain.lifecycle import State


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
    """A desktop, in one label. `has_operation` is the kind of an unfinished changing operation, or empty.

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


def schedule_label(is_enabled: bool) -> Label:
    return Label("Active", Tone.GOOD, "check") if is_enabled else Label("Paused", Tone.OFF, "pause")


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
