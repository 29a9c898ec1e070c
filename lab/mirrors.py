"""What a platform replicates by itself: a machine's state goes elsewhere every so often, in virtual time.

Each platform tells it in words of its own. It stands in the machine's marks as plain data, so it outlives the process.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from lab.nouns import Machine
from lab.world import World

MARK = "mirror"


class Course(StrEnum):
    """How it goes from now on."""

    WELL = "well"
    LAGGING = "lagging"
    """What arrives is ten times as old as it should be."""
    BROKEN = "broken"
    """Nothing arrives any more."""
    PAUSED = "paused"
    """Somebody has stopped it."""


LAGS = 10


def begin(world: World, machine: str, to: str, *, every_s: float = 300.0, first_s: float = 20.0) -> None:
    """Replicate the machine to a place of that name; the first copy takes `first_s`. Wants the world's lock."""
    world.machine(machine).marks[MARK] = {
        "to": to, "every_s": every_s, "since": world.now, "first_s": first_s, "course": Course.WELL.value, "held": None
    }  # fmt: skip


def turn(world: World, machine: str, course: Course) -> None:
    """From now on it goes so. What has arrived stays. Wants the world's lock."""
    found = world.machine(machine)
    mark = found.marks[MARK]
    mark["held"] = newest_at(world, found) if course is not Course.WELL else None
    mark["course"] = course.value


def end(world: World, machine: str) -> None:
    """Replicate it no more. Wants the world's lock."""
    world.machine(machine).marks.pop(MARK, None)


def of(machine: Machine) -> dict[str, Any] | None:
    found: dict[str, Any] | None = machine.marks.get(MARK)
    return found


def newest_at(world: World, machine: Machine) -> float | None:
    """When the state was current that has arrived, in virtual seconds; None while the first copy is under way."""
    mark = machine.marks[MARK]
    course, held = Course(mark["course"]), mark["held"]
    if course in (Course.BROKEN, Course.PAUSED):
        return None if held is None else float(held)
    every_s = float(mark["every_s"])
    begun = world.now - float(mark["since"]) - float(mark["first_s"])
    if begun < 0:
        return None
    on_time = float(mark["since"]) + every_s * (begun // every_s)
    if course is Course.LAGGING:
        return max(float(held or mark["since"]), on_time - LAGS * every_s)
    return on_time


def moment(world: World, at: float) -> datetime:
    """A virtual second on the calendar: as long before now as it is in virtual time."""
    return datetime.now(UTC) - timedelta(seconds=world.now - at)
