"""Fault knobs: files in the world's folder, seen by every process that opens it.

A knob's file holds its value; an empty file means "always", a number "so many times". Taking one of a counted knob's
turns is atomic over processes.

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

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
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
        if not (value := self.value(knob)):
            return value is not None
        with self._alone():
            turns = int(self.value(knob) or 0)
            if turns > 1:
                self.set(knob, turns - 1)
            else:
                self.clear(knob)
        return turns > 0

    def reach(self, boundary: str) -> None:
        """Say that a boundary is reached: the place where a process is killed or stopped."""
        for knob, number in (("crash_at", signal.SIGKILL), ("freeze_at", signal.SIGSTOP)):
            if self._is_set_for(knob, boundary) and self._is_last_turn(knob, boundary):
                os.kill(os.getpid(), number)

    def _is_set_for(self, knob: str, boundary: str) -> bool:
        value = self.value(knob)
        return bool(value) and str(value).split()[0] == boundary

    def _is_last_turn(self, knob: str, boundary: str) -> bool:
        with self._alone():
            if not self._is_set_for(knob, boundary):
                return False
            turns = int([*str(self.value(knob)).split(), "1"][1])
            if turns > 1:
                self.set(knob, f"{boundary} {turns - 1}")
            else:
                self.clear(knob)
        return turns <= 1

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process or thread counts meanwhile; a killed one lets go."""
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
