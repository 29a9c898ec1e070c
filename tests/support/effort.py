"""How hard the tests try: each check once in `make test`, with many seeds in `make test-long`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

IS_LONG = bool(os.environ.get("DESKYARD_LONG"))
"""`make test-long` sets it."""

TRIES = range(5) if IS_LONG else range(1)
"""How often a race is run: chance decides who comes first."""


def examples(short: int) -> int:
    """How many examples Hypothesis tries where a check wants a number of its own; twenty times as many when long."""
    return short * 20 if IS_LONG else short


def load_profile() -> None:
    """Examples are judged by what they do, never by how long a busy machine took over one."""
    settings.register_profile(
        "deskyard", deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("deskyard")
