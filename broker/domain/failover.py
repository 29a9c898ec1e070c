"""The steps of a failover, and what an end in each of them means. Plain rules; `services/failovers.py` carries out.

    test        a recovery point is brought up beside everything, started, asked for a sign of life, and taken away
    move        the desktop stops, its last bytes are copied, it starts elsewhere, and its user goes on there
    emergency   the desktop's newest recovery point is brought up, and its user goes on there
    planned     the desktop stops, and the replica that its platform keeps elsewhere takes its place

A move copies twice: first while its user works, so that the copy after the stop is short. What goes wrong before the
user goes on elsewhere is taken back: the new machine goes, or the replica is one again, and the old one runs again if
it ran.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum


class Kind(StrEnum):
    TEST = "test"
    MOVE = "move"
    EMERGENCY = "emergency"
    PLANNED = "planned"


class Step(StrEnum):
    WAITING = "waiting"
    """Its turn has not come."""
    COPYING = "copying"
    """The desktop's state comes into the vault, while its user works."""
    STOPPING = "stopping"
    LAST_COPY = "last_copy"
    """What changed since, now that nothing changes any more."""
    LANDING = "landing"
    """The recovery point becomes a machine."""
    HANDING_OVER = "handing_over"
    """The platform sends the last changes to the replica. From here on the machine cannot be started where it is."""
    TAKING_OVER = "taking_over"
    """The replica becomes the machine."""
    STARTING = "starting"
    PROBING = "probing"
    """A sign of life is waited for."""
    REVERSING = "reversing"
    """Its user goes on there; the platform is told to replicate back."""
    CLEANING = "cleaning"
    """The test's machine is deleted."""
    TAKING_BACK = "taking_back"
    """It failed: what it made is deleted, what it stopped is started."""
    OVER = "over"


STEPS: dict[Kind, tuple[Step, ...]] = {
    Kind.TEST: (Step.WAITING, Step.LANDING, Step.STARTING, Step.PROBING, Step.CLEANING, Step.OVER),
    Kind.MOVE: (
        Step.WAITING, Step.COPYING, Step.STOPPING, Step.LAST_COPY, Step.LANDING, Step.STARTING, Step.PROBING, Step.OVER,
    ),
    Kind.EMERGENCY: (Step.WAITING, Step.LANDING, Step.STARTING, Step.PROBING, Step.OVER),
    Kind.PLANNED: (
        Step.WAITING, Step.STOPPING, Step.HANDING_OVER, Step.TAKING_OVER, Step.STARTING, Step.PROBING, Step.REVERSING,
        Step.OVER,
    ),
}  # fmt: skip

WORDS: dict[Step, str] = {
    Step.WAITING: "Waits for its turn",
    Step.COPYING: "Copies it while its user works",
    Step.STOPPING: "Shuts it down",
    Step.LAST_COPY: "Copies the last changes",
    Step.LANDING: "Brings the recovery point up",
    Step.HANDING_OVER: "The platform sends the last changes",
    Step.TAKING_OVER: "The replica takes its place",
    Step.REVERSING: "Turns the replication round",
    Step.STARTING: "Starts the machine",
    Step.PROBING: "Waits for a sign of life",
    Step.CLEANING: "Takes the test's machine away",
    Step.TAKING_BACK: "Puts things back as they were",
    Step.OVER: "Over",
}

SHORT: dict[Step, str] = {
    Step.WAITING: "Waiting",
    Step.COPYING: "Copy",
    Step.STOPPING: "Shut down",
    Step.LAST_COPY: "Last copy",
    Step.LANDING: "Bring up",
    Step.HANDING_OVER: "Last changes",
    Step.TAKING_OVER: "Take over",
    Step.REVERSING: "Replicate back",
    Step.STARTING: "Start",
    Step.PROBING: "Sign of life",
    Step.CLEANING: "Take away",
    Step.TAKING_BACK: "Put back",
    Step.OVER: "Over",
}
"""For a row of steps."""

STOPS_FIRST = frozenset({Kind.MOVE, Kind.PLANNED})
"""Kinds that shut the desktop down, so that nothing is lost, and start it again if they fail."""
HOLDS_USER_OFF = frozenset(
    {
        Step.STOPPING, Step.LAST_COPY, Step.LANDING, Step.HANDING_OVER, Step.TAKING_OVER, Step.STARTING, Step.PROBING,
        Step.TAKING_BACK,
    }
)  # fmt: skip
"""Steps of all but a test in which nobody may use the desktop."""

MAY_BE_CANCELLED = frozenset(Step) - {Step.CLEANING, Step.REVERSING, Step.TAKING_BACK, Step.OVER}

SHUTDOWN_GRACE_S = 120
PROBE_S = 900.0
"""How long a machine may take until its guest answers."""
AT_ONCE = 4
"""Of a group."""


def after(kind: Kind, step: Step) -> Step:
    """The step that follows a good end."""
    if step == Step.TAKING_BACK:
        return Step.OVER
    steps = STEPS[kind]
    return steps[steps.index(step) + 1]


def after_failure(kind: Kind, step: Step, *, has_machine: bool, was_stopped: bool) -> Step:
    """Where it goes when a step ends badly or is cancelled."""
    if step in (Step.TAKING_BACK, Step.CLEANING) or not (has_machine or was_stopped):
        return Step.OVER
    return Step.CLEANING if kind == Kind.TEST else Step.TAKING_BACK


def down_s(
    kind: Kind,
    *,
    is_done: bool,
    stopped_at: datetime | None,
    answered_at: datetime | None,
    finished_at: datetime | None,
    now: datetime,
) -> float | None:
    """How long its user could not work, so far or in all. None: not at all, or nobody can say.

    What was taken back ends with the old machine running. An emergency that failed does not end it.
    """
    if stopped_at is None:
        return None
    if is_done:
        until = answered_at
    elif finished_at is not None:
        until = finished_at if kind in STOPS_FIRST else None
    else:
        until = now
    return (until - stopped_at).total_seconds() if until is not None else None


def lost_s(
    kind: Kind, *, is_done: bool, began_at: datetime, stopped_at: datetime | None, taken_at: datetime | None
) -> float | None:
    """The achieved RPO: from how long a stretch of work nothing is there any more. Of a test: what would be missing if
    the machine had been lost when the test began. None: nobody can say."""
    if kind in STOPS_FIRST:
        return 0.0 if is_done else None
    return max(((stopped_at or began_at) - taken_at).total_seconds(), 0.0) if taken_at is not None else None


def recovery_s(*, began_at: datetime, stopped_at: datetime | None, answered_at: datetime | None) -> float | None:
    """The achieved RTO: from the moment it was asked for, or from the stop, to the first sign of life."""
    return (answered_at - (stopped_at or began_at)).total_seconds() if answered_at is not None else None
