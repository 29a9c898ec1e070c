"""What rows have in common that are carried out step by step (ADR 8): how a step ends badly, and the report."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from broker.models import ReplicationRun
from broker.services import replication


class Stepped(Protocol):
    """A row with a step and a report."""

    step: Any
    report: Any


class StepFailed(Exception):
    """A step that ended badly, in words."""

    def __init__(self, words: str, *, is_cancelled: bool = False) -> None:
        super().__init__(words)
        self.words, self.is_cancelled = words, is_cancelled


def note(row: Stepped, words: str, now: datetime, *, is_good: bool = True) -> None:
    """Another line of the report, of the step at which the row stands."""
    row.report = [*row.report, {"at": now.isoformat(), "step": row.step, "words": words, "is_good": is_good}]


def is_run_done(run: ReplicationRun) -> bool:
    """False while it goes on. Raises `StepFailed` if it ended badly."""
    if run.state in replication.UNFINISHED:
        return False
    if run.state != ReplicationRun.State.DONE:
        raise StepFailed(run.error or "The run was cancelled.")
    return True
