"""Reports of what is carried out step by step: of failovers and of publications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.domain.labels import Tone


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the report."""

    at: datetime
    step: str
    """In words."""
    words: str
    is_good: bool

    @property
    def tone(self) -> Tone:
        return Tone.GOOD if self.is_good else Tone.BAD


def entries_of(report: Iterable[Mapping[str, Any]], words: Mapping[Any, str]) -> list[Entry]:
    """The lines of a row's report, in order; `words`: what each step is called."""
    return [
        Entry(datetime.fromisoformat(line["at"]), words[line["step"]], line["words"], line["is_good"])
        for line in report
    ]
