"""The life of a desktop: one table `(state, event) -> state`. What is not in the table raises.

Power, session and *answering* are observed and live on axes of their own; maintenance and drain are flags.
The diagram in `docs/lifecycle.md` is drawn from this table by `diagram` and checked by a test.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    PLANNED = "planned"
    """Decided, capacity reserved; nothing exists at the hypervisor yet as far as we know."""
    BUILDING = "building"
    """The clone order was sent."""
    PREPARING = "preparing"
    """The machine stands; its guest has not answered yet."""
    READY = "ready"
    """Prepared, clean, nobody's."""
    ASSIGNED = "assigned"
    """One user's, until release or reclaim; a session host is its users', until the last of them has left."""
    RECYCLING = "recycling"
    """Given back; getting a fresh disk before anybody else may have it."""
    RETIRING = "retiring"
    """Being deleted at the hypervisor."""
    GONE = "gone"
    """Deleted, evidence seen. The row stays for history."""
    FAILED = "failed"
    """A build or a recycle failed for good; a person or the reconciler decides."""
    MISSING = "missing"
    """Two complete listings did not show its machine."""


class Event(StrEnum):
    SUBMITTED = "submitted"
    """The clone order went out."""
    BUILT = "built"
    """The platform says that the machine stands."""
    PREPARED = "prepared"
    """The guest answered for itself."""
    CLAIMED = "claimed"
    """By its user, or a session host by the first of them; those who join them move nothing."""
    RELEASED = "released"
    """By its user, or reclaimed by the broker; a session host when the last of its users has left."""
    RECYCLED = "recycled"
    """A fresh disk is in place; evidence kept."""
    FAULTED = "faulted"
    """Building, preparing or recycling failed for good."""
    RETIRED = "retired"
    """It shall go: too many, drained, failed, or an administrator's word."""
    DELETED = "deleted"
    FORGOTTEN = "forgotten"
    """An administrator's word that its machine is out of reach for good."""
    LOST = "lost"
    """Believed absent."""
    FOUND_FREE = "found_free"
    """A missing machine came back and belongs to nobody."""
    FOUND_OWNED = "found_owned"
    """A missing machine came back and is still assigned."""
    RETRIED = "retried"
    """A fresh disk is wanted though nobody gave it back: a failed desktop's next try, or an administrator's word."""


S, E = State, Event

TRANSITIONS: dict[tuple[State, Event], State] = {
    (S.PLANNED, E.SUBMITTED): S.BUILDING,
    (S.PLANNED, E.BUILT): S.PREPARING,
    (S.PLANNED, E.FAULTED): S.FAILED,
    (S.PLANNED, E.RETIRED): S.RETIRING,
    (S.BUILDING, E.SUBMITTED): S.BUILDING,
    (S.BUILDING, E.BUILT): S.PREPARING,
    (S.BUILDING, E.FAULTED): S.FAILED,
    (S.BUILDING, E.RETIRED): S.RETIRING,
    (S.PREPARING, E.PREPARED): S.READY,
    (S.PREPARING, E.FAULTED): S.FAILED,
    (S.PREPARING, E.RETIRED): S.RETIRING,
    (S.PREPARING, E.RETRIED): S.RECYCLING,
    (S.PREPARING, E.LOST): S.MISSING,
    (S.READY, E.CLAIMED): S.ASSIGNED,
    (S.READY, E.RETIRED): S.RETIRING,
    (S.READY, E.RETRIED): S.RECYCLING,
    (S.READY, E.LOST): S.MISSING,
    (S.ASSIGNED, E.RELEASED): S.RECYCLING,
    (S.ASSIGNED, E.LOST): S.MISSING,
    (S.RECYCLING, E.RECYCLED): S.PREPARING,
    (S.RECYCLING, E.FAULTED): S.FAILED,
    (S.RECYCLING, E.RETIRED): S.RETIRING,
    (S.RECYCLING, E.LOST): S.MISSING,
    (S.FAILED, E.RETRIED): S.RECYCLING,
    (S.FAILED, E.RETIRED): S.RETIRING,
    (S.FAILED, E.LOST): S.MISSING,
    (S.MISSING, E.FOUND_FREE): S.RECYCLING,
    (S.MISSING, E.FOUND_OWNED): S.ASSIGNED,
    (S.MISSING, E.RELEASED): S.RECYCLING,
    (S.MISSING, E.RETIRED): S.RETIRING,
    (S.MISSING, E.FORGOTTEN): S.GONE,
    (S.RETIRING, E.RETIRED): S.RETIRING,
    (S.RETIRING, E.DELETED): S.GONE,
    (S.RETIRING, E.FORGOTTEN): S.GONE,
}

LIVE = frozenset(State) - {S.GONE}
"""Every state whose name, capacity and machine still count."""

COMING = frozenset({S.PLANNED, S.BUILDING, S.PREPARING, S.RECYCLING})
"""On its way to ready: counts towards the spare that is already ordered."""

HOLDS_MACHINE = frozenset({S.PREPARING, S.READY, S.ASSIGNED, S.RECYCLING, S.FAILED})
"""A machine is expected in a complete listing (a failed one only if it has a machine id)."""

NEEDS_ORDER = {S.PLANNED: "clone", S.BUILDING: "clone", S.RECYCLING: "recycle", S.RETIRING: "delete"}
"""States that only an operation can end: the reconciler writes it where none is unfinished."""


RAISES_EPOCH = frozenset({E.CLAIMED, E.RELEASED})
"""What was asked, ticketed or opened before one of these dies with the old epoch."""

CLEANS = frozenset({E.BUILT, E.RECYCLED})
"""There is evidence of a disk that no user ever had: `clean_epoch` becomes the epoch."""


class IllegalMove(ValueError):
    """The event does not happen in that state."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"A desktop that is {state} cannot be {event}.")
        self.state, self.event = state, event


def move(state: State | str, event: Event) -> State:
    """The state after the event. Raises `IllegalMove` for what the table does not hold."""
    try:
        return TRANSITIONS[State(state), event]
    except KeyError:
        raise IllegalMove(State(state), event) from None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a desktop's row says of whose it may be. Ready means that `clean_epoch` is the epoch, always."""

    state: State = State.PLANNED
    epoch: int = 1
    clean_epoch: int = 0


def step(standing: Standing, event: Event) -> Standing:
    """The standing after the event. Raises `IllegalMove`."""
    state = move(standing.state, event)
    epoch = standing.epoch + (event in RAISES_EPOCH)
    return Standing(state, epoch, epoch if event in CLEANS else standing.clean_epoch)


def sources(event: Event) -> frozenset[State]:
    """Every state in which the event may happen: the WHERE of a compare-and-swap."""
    return frozenset(state for state, happening in TRANSITIONS if happening == event)


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> planned"]
    lines += [f"    {state} --> {after}: {event}" for (state, event), after in TRANSITIONS.items() if state != after]
    return "\n".join([*lines, "    gone --> [*]"]) + "\n"


def document() -> str:
    """`docs/lifecycle.md`: the diagram and the table, for people."""
    rows = "\n".join(f"| {state} | {event} | {after} |" for (state, event), after in TRANSITIONS.items())
    return f"""# The life of a desktop

Drawn from `broker/domain/lifecycle.py`, where the words are explained; do not edit. To draw it anew:
`.venv/bin/python -m broker.domain.lifecycle > docs/lifecycle.md`

Power, session and answering are observed beside it; maintenance and drain are flags. What is not in the table raises.

```mermaid
{diagram()}```

| from | event | to |
|---|---|---|
{rows}

The epoch of a desktop is raised when it is {_list(RAISES_EPOCH)}. It is clean for its epoch once it is {_list(CLEANS)};
the database lets no desktop be ready that is not (`desktop_ready_is_clean`). On its way to ready: {_list(COMING)}.
"""


def _list(words: Iterable[StrEnum]) -> str:
    *first, last = sorted(words)
    return f"{', '.join(first)} or {last}"


if __name__ == "__main__":
    sys.stdout.write(document())
