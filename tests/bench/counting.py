"""Counts: what the database was asked, what it read, what processes spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection

CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements sent on this thread's connection while the block lasts, without transaction control."""
    sent: list[str] = []

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if not sql.lstrip().upper().startswith(CONTROL):
            sent.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield sent


def rows_read() -> int:
    """Rows and index entries that PostgreSQL has read in user tables so far. Call outside a transaction.

    Counts what it had to look at, also by foreign-key checks, whether or not it was part of an answer.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(
            "SELECT (SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables)"
            " + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes)"
        )
        return int(cursor.fetchone()[0])


def statements_run() -> int:
    """Statements that PostgreSQL has run for anybody so far, as it counts them: without transaction control and
    foreign-key checks, each of several in one message by itself, these questions not included."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query !~ 'pg_stat_|FROM ONLY'")
        return int(cursor.fetchone()[0])


def children(pid: int) -> list[int]:
    """Ids of the processes that it started and that live."""
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for file in tasks.glob("*/children") for child in file.read_text().split()]


def cpu_s(pid: int) -> float:
    """Time on a core so far of a process, its children and all their threads."""
    spent = 0
    for one in [pid, *children(pid)]:
        for task in Path(f"/proc/{one}/task").glob("*/schedstat"):
            spent += int(task.read_text().split()[0])
    return spent / 1e9
