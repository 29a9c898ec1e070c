"""How a mover is started: by `make run`, by systemd, and by the tests and benches that speak for both."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.prerequisites import REPOSITORY
from tests.support.stack import COMMANDS


def supervised() -> str:
    return (REPOSITORY / "deploy" / "supervisord.conf").read_text().partition("[program:mover]")[2].partition("[")[0]


def unit() -> str:
    return (REPOSITORY / "deploy" / "systemd" / "deskyard-mover.service").read_text()


def by_tests() -> str:
    return " ".join(COMMANDS["mover"])


def concurrency(command: str) -> int:
    (found,) = re.findall(r"--queues movers .*--pool threads --concurrency (\d+)", command)
    return int(found)


@pytest.mark.parametrize("started", [supervised, unit, by_tests])
def test_a_mover_carries_sixteen_runs_at_once_whoever_starts_it(started: Callable[[], str]) -> None:
    """Most of a run is waiting for a platform: with half as many, runs that are due every five minutes wait in line."""
    assert concurrency(started()) == 16


@pytest.mark.parametrize("started", [supervised, unit])
def test_a_movers_threads_share_two_memory_arenas(started: Callable[[], str]) -> None:
    """Else each thread keeps the largest blocks that it ever held."""
    assert re.search(r"MALLOC_ARENA_MAX=\"?2\b", started())
