"""Lists that can be sorted and taken along: by the address alone, so a link to one shows the same.

`?sort=name` orders by a column, `?sort=-name` the other way round; `?format=csv` answers with all rows that fit the
filter, not only one page of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.paginator import Page
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from broker.console.answers import page_of, show, typed

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a cell for a formula, and run it."""
CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a list."""

    name: str
    """Its word in the address and its heading in the file."""
    title: Any
    cell: Callable[[Any], object] | None = None
    """What stands in the file; None: the column is not in it."""
    orders: tuple[str, ...] = ()
    """The fields it is sorted by; none: it cannot be."""
    begins_down: bool = False
    """Whether one click shows the largest or newest first."""


@dataclass(frozen=True, slots=True)
class Sorting:
    """The columns of a list and by which of them it is sorted now."""

    columns: Mapping[str, Column]
    column: Column | None = None
    """None: in the list's own order."""
    is_down: bool = False

    @property
    def word(self) -> str:
        """As it stands in the address."""
        return _word(self.column, is_down=self.is_down) if self.column else ""

    def apply(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Empty values stand last either way."""
        if self.column is None:
            return rows
        fields = [F(name) for name in self.column.orders]
        way = [field.desc(nulls_last=True) if self.is_down else field.asc(nulls_last=True) for field in fields]
        return rows.order_by(*way, "-pk" if self.is_down else "pk")

    @property
    def ways(self) -> list[tuple[str, Column, bool]]:
        """All ways to sort: the word, the column, and whether it goes down."""
        sortable = [column for column in self.columns.values() if column.orders]
        return [(_word(column, is_down=is_down), column, is_down) for column in sortable for is_down in (False, True)]

    def after(self, name: str) -> str:
        """The word that a click on a column's head asks for."""
        column = self.columns[name]
        is_down = not self.is_down if column is self.column else column.begins_down
        return _word(column, is_down=is_down)

    def direction(self, name: str) -> str:
        """As ARIA has it: "ascending", "descending", "none"; empty for what cannot be sorted by."""
        column = self.columns.get(name)
        if column is None or not column.orders:
            return ""
        if column is not self.column:
            return "none"
        return "descending" if self.is_down else "ascending"


def _word(column: Column, *, is_down: bool) -> str:
    return f"-{column.name}" if is_down else column.name


class Listing:
    """A list's columns."""

    def __init__(self, name: str, *columns: Column) -> None:
        """`name`: of the file."""
        self.name = name
        self.columns = {column.name: column for column in columns}

    def sorting(self, request: HttpRequest) -> Sorting:
        """What the address asks for; the list's own order for words that it does not know."""
        word = typed(request, "sort", length=30)
        column = self.columns.get(word.removeprefix("-"))
        if column is None or not column.orders:
            return Sorting(self.columns)
        return Sorting(self.columns, column, is_down=word.startswith("-"))

    def answer(
        self,
        request: HttpRequest,
        template: str,
        rows: QuerySet[Any],
        context: Mapping[str, Any],
        more: Callable[[Page[Any]], Mapping[str, Any]] | None = None,
    ) -> HttpResponse:
        """A page of the list, or its file. `more`: what else the page needs, once its rows are known."""
        sorting = self.sorting(request)
        rows = sorting.apply(rows)
        if request.GET.get("format") == "csv":
            return self.file(rows.iterator(chunk_size=CHUNK))
        page = page_of(request, rows)
        told = {"page": page, "listing": sorting, **context}
        return show(request, template, {**told, **(more(page) if more else {})})

    def file(self, rows: Iterable[Any]) -> HttpResponse:
        """All rows as CSV (RFC 4180, UTF-8 with the mark that spreadsheets look for)."""
        written = io.StringIO()
        writer = csv.writer(written)
        columns = [(column.name, column.cell) for column in self.columns.values() if column.cell]
        writer.writerow([name for name, _cell in columns])
        writer.writerows([as_cell(cell(row)) for _name, cell in columns] for row in rows)
        answer = HttpResponse(written.getvalue().encode("utf-8-sig"), content_type="text/csv; charset=utf-8")
        answer["Content-Disposition"] = f'attachment; filename="deskyard-{self.name}-{timezone.now():%Y-%m-%d}.csv"'
        return answer


def as_cell(value: object) -> str:
    """Times as RFC 3339 in UTC, empty for nothing; what a spreadsheet would run gets an ' before it, numbers do not.

    Names of people may begin with @ and +.
    """
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, bool):
        return "yes" if value else "no"
    words = str(value)
    return f"'{words}" if words.startswith(FORMULA) and not isinstance(value, int | float) else words
