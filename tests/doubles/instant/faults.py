"""Fault knobs: files in the world's folder, seen by every process that opens it.

A knob's file holds its value; an empty file means "always", a number "so many times". Taking one of a counted knob's
turns is atomic over processes (a rename).

    refuse         the connection is refused
    hang           no answer until the caller's deadline
    certificate    the certificate is not the trusted one
    credentials    the account is refused
    busy           orders are turned away: come back later
    fail_clone     a clone or recycle fails when it is half done
    storage_full   no room for a disk
    drop           the order is carried out, then the connection is lost before the answer
    silent         no guest's agent answers
    omit           share of the machines that listings leave out although they say that they are complete, such as 0.5
    partial        listings cannot read everything, and say so
    crash_at       the process is killed (SIGKILL) at a boundary, once: "act.after", or "act.after 7" for the 7th time
    freeze_at      the process stops (SIGSTOP) there, once

Boundaries, in the order in which an order meets them: submit.begin, act.before, act.between (half done), act.after
(done, not told), act.told (told; the next order is asked for), poll.begin, poll.before, poll.after, inventory.begin,
inventory.end.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from uuid import uuid4

BOUNDARIES = (
    "submit.begin",
    "act.before",
    "act.between",
    "act.after",
    "act.told",
    "poll.begin",
    "poll.before",
    "poll.after",
    "inventory.begin",
    "inventory.end",
)


class Faults:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # Tests turn the knobs.

    def set(self, knob: str, value: str | int | float = "") -> None:
        """Atomic: nobody reads half a value."""
        self.folder.mkdir(exist_ok=True)
        draft = self.folder / f".{uuid4().hex}"
        draft.write_text(str(value))
        draft.rename(self.folder / knob)

    def clear(self, *knobs: str) -> None:
        """Turn those off, or all."""
        for file in [self.folder / knob for knob in knobs] if knobs else list(self.folder.glob("[!.]*")):
            file.unlink(missing_ok=True)

    # The connector asks.

    def value(self, knob: str) -> str | None:
        """None: turned off. Costs one failed open in the usual case."""
        try:
            return (self.folder / knob).read_text()
        except FileNotFoundError:
            return None

    def strikes(self, knob: str) -> bool:
        """Whether it strikes now; takes one turn of a counted knob."""
        value = self.value(knob)
        if not value:
            return value is not None
        mine = self._seize(knob)
        if mine is None:
            return self.strikes(knob)
        turns = int(mine)
        if turns > 1:
            self.set(knob, turns - 1)
        return turns > 0

    def _seize(self, knob: str) -> str | None:
        """Take the knob's file away; None if another process was faster."""
        taken = self.folder / f".{uuid4().hex}"
        try:
            (self.folder / knob).rename(taken)
        except FileNotFoundError:
            return None
        value = taken.read_text()
        taken.unlink()
        return value

    def reach(self, boundary: str) -> None:
        """Say that a boundary is reached: the place where a process is killed or stopped."""
        for knob, number in (("crash_at", signal.SIGKILL), ("freeze_at", signal.SIGSTOP)):
            value = self.value(knob)
            if value is None or value.split()[0] != boundary:
                continue
            mine = self._seize(knob)
            if mine is None:
                continue
            _, _, count = mine.partition(" ")
            if int(count or 1) > 1:
                self.set(knob, f"{boundary} {int(count) - 1}")
            else:
                os.kill(os.getpid(), number)
