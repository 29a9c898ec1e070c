"""Charts: a span of samples, thinned to what a screen can show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from broker.models import Sample

SPANS: dict[str, tuple[Any, timedelta]] = {
    "day": (_("24 hours"), timedelta(days=1)),
    "week": (_("7 days"), timedelta(days=7)),
    "month": (_("30 days"), timedelta(days=30)),
}
WORDS = [(span, words) for span, (words, _length) in SPANS.items()]
POINTS = 400
"""At most; more would be drawn on top of each other."""


@dataclass(frozen=True, slots=True)
class Line:
    name: Any
    tone: str
    """Which of the page's colours it has."""
    field: str
    of: str = ""
    """The field that is its whole: the line is a share in per cent then."""


CHARTS: dict[str, tuple[Line, ...]] = {
    "desktops": (
        Line(_("Assigned"), "brand", "assigned"),
        Line(_("In use"), "busy", "in_use"),
        Line(_("Ready"), "good", "ready"),
        Line(_("Failed or missing"), "bad", "broken"),
    ),
    "capacity": (
        Line(_("Memory"), "brand", "taken_memory_mib", "memory_mib"),
        Line(_("Processors"), "busy", "taken_vcpus", "vcpus"),
        Line(_("Storage"), "attention", "taken_storage_mib", "storage_mib"),
    ),
}


@dataclass(frozen=True, slots=True)
class Chart:
    times: list[int]
    """Seconds since 1970."""
    lines: list[tuple[Line, list[float | None]]]
    """None: nothing is known of that moment."""
    is_share: bool


def chart(name: str, span: str, now: datetime, hypervisor: UUID | None = None) -> Chart:
    """One statement. Of several samples that fall together on the screen the first is shown."""
    lines = CHARTS[name]
    since = now - SPANS[span][1]
    rows: Iterable[Mapping[str, Any]] = Sample.objects.filter(hypervisor=hypervisor, at__gte=since).values()
    step = max(1, int((now - since).total_seconds()) // POINTS)
    times: list[int] = []
    values: list[list[float | None]] = [[] for _line in lines]
    for row in rows:
        at = int(row["at"].timestamp())
        if times and at // step == times[-1] // step:
            continue
        times.append(at)
        for line, known in zip(lines, values, strict=True):
            known.append(_value(row, line))
    return Chart(times, list(zip(lines, values, strict=True)), is_share=any(line.of for line in lines))


def _value(row: Mapping[str, Any], line: Line) -> float | None:
    if not line.of:
        return float(row[line.field])
    return round(100 * row[line.field] / row[line.of], 1) if row[line.of] else None
