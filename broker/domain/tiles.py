"""What a user reads about a desktop of theirs: no administrator's words, nothing of the platform."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median

from broker.domain.labels import WAITS, Label, Tone, Wait
from broker.domain.lifecycle import State

_DOING: dict[str, Label] = {
    "on": Label("Starting", Tone.BUSY, "spinner"),
    "resume": Label("Waking up", Tone.BUSY, "spinner"),
    "reboot": Label("Restarting", Tone.BUSY, "spinner"),
    "reset": Label("Restarting", Tone.BUSY, "spinner"),
    "shutdown": Label("Shutting down", Tone.BUSY, "spinner"),
    "off": Label("Switching off", Tone.BUSY, "spinner"),
    "suspend": Label("Going to sleep", Tone.BUSY, "spinner"),
    "move": Label("Being moved", Tone.BUSY, "spinner"),
}
WAKING = frozenset({"on", "resume", "reboot", "reset"})
"""Power actions after which a desktop can be used."""


def tile_label(
    *,
    state: State | str,
    power: str,
    is_answering: bool,
    waits_for_guest: bool,
    has_session: bool,
    doing: str,
    is_host_lost: bool = False,
) -> Label:
    """One label for all axes. `doing`: the power action under way, another operation's kind, "move", or empty.

    While it is moved nobody can do anything to it, whether its old host can be reached or not. While its host cannot be
    reached nothing is known of a desktop and nothing can be done to it, but a screen that is open goes on.
    """
    if state != State.ASSIGNED:
        return Label("Cannot be found", Tone.BAD, "question")
    if doing == "move":
        return _DOING[doing]
    if is_host_lost:
        return Label("In use", Tone.GOOD, "screen") if has_session else Label("Out of reach", Tone.ATTENTION, "warning")
    if doing:
        return _DOING.get(doing, Label("Being changed", Tone.BUSY, "spinner"))
    if power == "off":
        return Label("Switched off", Tone.OFF, "power")
    if power == "suspended":
        return Label("Asleep", Tone.OFF, "pause")
    if waits_for_guest and not is_answering:
        return Label("Preparing", Tone.BUSY, "spinner")
    if has_session:
        return Label("In use", Tone.GOOD, "screen")
    return Label("Ready", Tone.GOOD, "check")


def main_button(*, power: str, doing: str, has_session: bool = False) -> str:
    """The one main button's word. All of them lead to the screen; what is off is started on the way, and where work was
    left open it goes on."""
    if doing:
        return "Open"
    if power == "off":
        return "Start"
    return "Resume" if power == "suspended" or has_session else "Open"


def time_left(builds: Sequence[float], begun: Sequence[datetime], place: int, now: datetime) -> float | None:
    """Seconds until whoever is at this place of the queue gets a desktop; None if nobody can say.

    `builds`: how long the pool's last ones took, in seconds. `begun`: since when those that are coming are under way.
    """
    coming = sorted(begun)
    if not builds or not 1 <= place <= len(coming):
        return None
    return max(median(builds) - (now - coming[place - 1]).total_seconds(), 0.0)


def power_choices(*, power: str, doing: str) -> tuple[str, ...]:
    """The power actions that make sense now, the mildest first."""
    if doing:
        return ()
    if power == "off":
        return ("on",)
    if power == "suspended":
        return ("resume", "off")
    return ("reboot", "shutdown", "reset", "off")


def wait_steps(now: Wait) -> list[tuple[str, str]]:
    """The four words of a wait with their state: done, now, later."""
    here = WAITS.index(now)
    return [(word.value, "done" if i < here else "now" if i == here else "later") for i, word in enumerate(WAITS)]


APPROVAL_STEPS = [("Asked", "done"), ("Approved", "now"), ("Building", "later"), ("Ready", "later")]
"""The way of a request that waits for somebody's word."""


def closed(why: str, pool: str = "") -> str:
    """What users are told of a pool that is disabled. `why`: the administrator's own words, if there are any."""
    said = f"{pool} is closed at the moment." if pool else "Closed at the moment."
    return f"{said} {why or 'Ask your administrator when it opens again.'}"


def offer_words(
    *, is_enabled: bool, why_closed: str, has_ready: bool, has_coming: bool, has_host: bool, desktops: int, maximum: int
) -> tuple[str, Tone]:
    """What happens if one asks this pool for a desktop now, and how good that news is."""
    if not is_enabled:
        return closed(why_closed), Tone.OFF
    if has_ready:
        return "A desktop is ready for you.", Tone.GOOD
    if has_coming:
        return "None is free at the moment, but one is being prepared.", Tone.BUSY
    if desktops >= maximum:
        return "All of its desktops are in use. You get the next one that is given back.", Tone.ATTENTION
    if not has_host:
        return "None is free, and no new one can be built: its hosts cannot be reached at the moment.", Tone.ATTENTION
    return "None is free at the moment. One is built when you ask.", Tone.BUSY
