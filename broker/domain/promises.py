"""What a replication policy promises, in words and figures: how often, how old, kept how long, and whether it can."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time

from broker.domain.schedules import NAMES
from broker.domain.spans import roughly, span_in_words

KEPT = {"keep_last": "", "keep_hourly": "hour", "keep_daily": "day", "keep_weekly": "week", "keep_monthly": "month"}
"""Retention's fields, and of what each keeps one."""
SINGLE = {60: "minute", 3600: "hour", 86_400: "day"}


def rhythm_in_words(interval_s: int | None, cron: str, zone: str) -> str:
    """ "every 15 min"; "at 02:30 from Monday to Friday (Europe/Berlin)"."""
    if interval_s:
        return f"every {SINGLE.get(interval_s) or span_in_words(interval_s)}"
    return f"{_cron_in_words(cron)} ({zone})"


def _cron_in_words(cron: str) -> str:
    """The commonest shape in words, everything else as it is written."""
    fields = cron.split()
    if len(fields) == 5 and fields[2:4] == ["*", "*"] and fields[0].isdecimal() and fields[1].isdecimal():
        at = f"at {int(fields[1]):02}:{int(fields[0]):02}"
        match fields[4].split("-"):
            case ["*"]:
                return f"every day {at}"
            case [day] if _is_weekday(day):
                return f"on {_weekday(day)}s {at}"
            case [first, last] if _is_weekday(first) and _is_weekday(last):
                return f"{at} from {_weekday(first)} to {_weekday(last)}"
    return f"by the schedule {cron}"


def _is_weekday(text: str) -> bool:
    return text.isdecimal() and int(text) <= 7


def _weekday(text: str) -> str:
    """Cron's 0 and 7 are both Sunday."""
    return NAMES[(int(text) - 1) % 7]


def retention_in_words(kept: Mapping[str, int]) -> str:
    """ "the last 3, and one a day for 7 days"."""
    said = [f"the last {kept['keep_last']}" if kept["keep_last"] > 1 else "the last one"]
    for name, unit in KEPT.items():
        number = kept[name]
        if unit and number:
            said.append(f"one {'an' if unit == 'hour' else 'a'} {unit} for {number} {unit}{'s' if number > 1 else ''}")
    *first, last = said
    return f"{', '.join(first)}, and {last}" if first else last


def limit_in_words(bytes_a_second: int | None, begins: time | None, ends: time | None, zone: str) -> str:
    """How fast it may read; empty: as fast as it goes."""
    if not bytes_a_second:
        return ""
    speed = f"at most {bytes_a_second / 1e6:g} MB/s"
    if begins is None or ends is None:
        return speed
    return f"{speed} between {begins:%H:%M} and {ends:%H:%M} ({zone})"


def smallest_rpo_s(took_s: float | None) -> float | None:
    """The smallest promise that can be kept if runs follow each other without a pause, as the last good one went.

    A point is as old as its run took when it is committed, and serves until the next one has been read as well.
    """
    return None if took_s is None else 2 * took_s


def why_not_kept(*, rpo_s: int, interval_s: int | None, took_s: float | None) -> str:
    """Why the promise breaks even while all goes well, in a sentence and what to do; empty if it does not.

    `took_s`: of the slowest machine; None while nothing is known.
    """
    if not interval_s or interval_s + (took_s or 0) <= rpo_s:
        return ""
    if interval_s > rpo_s:
        return (
            f"It runs {rhythm_in_words(interval_s, '', '')} and promises points no older than {span_in_words(rpo_s)}: "
            f"that cannot be kept. Choose a shorter interval or a longer RPO."
        )
    return (
        f"It runs {rhythm_in_words(interval_s, '', '')}, and the last run of its slowest machine took "
        f"{roughly(took_s or 0)}: together that is more than the RPO of {span_in_words(rpo_s)}. Choose a shorter "
        f"interval or a longer RPO."
    )


def why_not_mirrored(*, rpo_s: int, interval_s: int | None) -> str:
    """Why the promise breaks although the platform replicates as it is set up to, and what to do; empty if it does not.

    `interval_s`: how often the platform does; None: it does not tell.
    """
    if interval_s is None or interval_s < rpo_s:
        return ""
    return (
        f"The platform replicates it {rhythm_in_words(interval_s, '', '')}: an RPO of {span_in_words(rpo_s)} cannot be "
        f"kept so. Let it replicate more often there, or choose a longer RPO."
    )
