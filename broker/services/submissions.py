"""A form that comes twice is worked on once: after a double click, an impatient second try, an answer that got lost.

Rows are hints that pass: what must never be twice is a constraint of its own table besides. Without its row a second
sending is worked on like the first, and refused in words where that finds the thing made already.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.utils import timezone

from broker.models import Submission

AT_WORK = timedelta(minutes=2)
"""No request lasts longer: whoever was at it until then has died."""
WAIT_S = 60.0
LOOK_S = 0.05


def take_up(key: str) -> bool:
    """Whether this sending is the caller's to work on; then `note` or `forget` must follow."""
    now = timezone.now()
    _row, is_new = Submission.objects.get_or_create(key=key, defaults={"until": now + AT_WORK})
    return is_new or bool(Submission.objects.filter(key=key, until__lt=now).update(answer=None, until=now + AT_WORK))


def answer_to(key: str) -> dict[str, Any] | None:
    """What was said to the sending that somebody else took up; None: nothing within a minute, or it was forgotten."""
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends:
        row = Submission.objects.filter(key=key).first()
        if row is None or row.answer is not None:
            return row.answer if row else None
        time.sleep(LOOK_S)
    return None


def note(key: str, answer: Mapping[str, Any], keep: timedelta) -> None:
    """What is said to the same sending for so long."""
    Submission.objects.filter(key=key).update(answer=dict(answer), until=timezone.now() + keep)


def forget(key: str) -> None:
    """Nothing was done: sent again, it is worked on again."""
    Submission.objects.filter(key=key).delete()
