"""Fetching the row that a verb is about, changing it, and saying what changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, models, transaction

from broker.services.errors import Invalid, Missing

Row = TypeVar("Row", bound=models.Model)


def locked(rows: models.QuerySet[Row], pk: UUID | int, what: str) -> Row:
    """The row, locked until the transaction ends. Raises `Missing`. Call inside a transaction."""
    row = _locked(rows, pk, skip_locked=False)
    if row is None:
        raise Missing(f"There is no such {what}.")
    return row


def held(rows: models.QuerySet[Row], pk: UUID | int) -> Row | None:
    """The row, locked until the transaction ends; None if it is not among them any more, or if somebody else holds it.
    Call inside a transaction."""
    return _locked(rows, pk, skip_locked=True)


def _locked(rows: models.QuerySet[Row], pk: UUID | int, *, skip_locked: bool) -> Row | None:
    """What the row points to is read by another statement, once it is locked.

    Where a row was changed between a statement's snapshot and its lock, PostgreSQL goes on with the row as it is now
    and with the joined rows as they were: a column that has just begun to point to something would come with nothing.
    """
    wanted = rows.filter(pk=pk)
    if not rows.query.select_related:
        return wanted.select_for_update(skip_locked=skip_locked, of=("self",)).first()
    lock = wanted.select_related(None).select_for_update(skip_locked=skip_locked, of=("self",))
    return rows.get(pk=pk) if lock.values_list("pk", flat=True).first() is not None else None


def alter(row: models.Model, values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Set and save what differs, nothing else (workers write other columns of the same rows).

    Returns field -> [before, after] for the audit; empty if nothing changed.
    """
    changes: dict[str, list[Any]] = {}
    for field, after in values.items():
        before = getattr(row, field)
        if before != after:
            setattr(row, field, after)
            changes[field] = [before, after]
    if changes:
        row.save(update_fields=list(changes))
    return changes


@contextmanager
def refusing_duplicates(field: str, message: str) -> Iterator[None]:
    """Two people saved the same name in the same moment: the constraint decides, and the second is told."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        raise Invalid(message, {field: message}) from error
