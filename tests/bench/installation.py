"""A whole installation on the ground of a bench: worker and beat as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.ground import Ground
from tests.support.stack import Stack


@contextmanager
def installation(ground: Ground) -> Iterator[Stack]:
    """Nothing runs yet: `start("worker")`, `start("beat")`. Everything it started has ended afterwards."""
    made = Stack(ground.folder, ground.database_url, ground.redis, "tests.settings", {})
    try:
        yield made
    finally:
        made.stop()
