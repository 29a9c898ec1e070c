"""Writes many rows at once: changes in one statement, new rows of several models in one exchange.

Django's `bulk_update` sends a CASE for every row and field: for 500 operations a statement that takes the worker longer
to compose than the database to carry out. A join with a list of values says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import get_connection

if TYPE_CHECKING:
    Column = models.Field[Any, Any]


def update_each(rows: Sequence[models.Model], fields: Sequence[str]) -> int:
    """Write these fields of all these rows of one model, as they stand on the objects; returns how many it found.

    Rows that are gone are passed over. One statement, or several where the database limits the parameters of one.
    """
    if not rows:
        return 0
    # The connection itself, not `django.db.connection`: that looks it up anew for every value.
    database = get_connection()
    columns: list[Column] = [rows[0]._meta.pk, *(rows[0]._meta.get_field(name) for name in fields)]  # type: ignore[list-item]
    limit = database.features.max_query_params
    size = limit // len(columns) if limit else len(rows)
    return sum(_update(database, rows[at : at + size], columns) for at in range(0, len(rows), size))


def _update(database: BaseDatabaseWrapper, rows: Sequence[models.Model], columns: Sequence[Column]) -> int:
    quote = database.ops.quote_name
    table = quote(rows[0]._meta.db_table)
    key, *changed = (quote(str(column.column)) for column in columns)
    settings = ", ".join(f"{name} = v.column{number}" for number, name in enumerate(changed, 2))
    # The first row tells PostgreSQL the types of all; SQLite takes values as they are.
    first = ", ".join(_typed(database, column) for column in columns)
    others = ", (" + ", ".join(["%s"] * len(columns)) + ")"
    values = [column.get_db_prep_save(getattr(row, column.attname), database) for row in rows for column in columns]
    new = f"(VALUES ({first}){others * (len(rows) - 1)}) AS v"
    with database.cursor() as cursor:
        # Names are the models' own; values are parameters.
        cursor.execute(f"UPDATE {table} SET {settings} FROM {new} WHERE {table}.{key} = v.column1", values)  # noqa: S608
        return int(cursor.rowcount)


def _typed(database: BaseDatabaseWrapper, column: Column) -> str:
    return f"%s::{column.cast_db_type(database)}" if database.vendor == "postgresql" else "%s"


def insert_together(rows: Sequence[models.Model]) -> None:
    """Insert these rows, of any models, in this order; in one exchange where a message may hold several statements.

    Automatic keys are made by the database and not read back. Raises IntegrityError. Call in a transaction.
    """
    database = get_connection()
    statements = [_insert(database, row) for row in rows]
    features: Any = database.features
    if database.vendor == "postgresql" and not features.uses_server_side_binding:
        values = [value for _, values in statements for value in values]
        statements = [("; ".join(sql for sql, _ in statements), values)]
    with database.cursor() as cursor:
        for sql, values in statements:
            cursor.execute(sql, values)
    for row in rows:
        row._state.adding, row._state.db = False, database.alias


def _insert(database: BaseDatabaseWrapper, row: models.Model) -> tuple[str, list[Any]]:
    sql, columns = _insertion(type(row))
    return sql, [column.get_db_prep_save(column.pre_save(row, add=True), database) for column in columns]


@cache
def _insertion(model: type[models.Model]) -> tuple[str, list[Column]]:
    columns = [column for column in model._meta.local_concrete_fields if not isinstance(column, models.AutoField)]
    quote = get_connection().ops.quote_name
    names = ", ".join(quote(str(column.column)) for column in columns)
    values = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({values})", columns  # noqa: S608
