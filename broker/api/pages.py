"""Lists: `{"items", "total"}`, newest first, `limit` (50, at most 500) and `offset`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from django.db import models
from ninja import Field

from broker.api.shapes import In, Out
from broker.services.errors import Missing

Row = TypeVar("Row", bound=models.Model)
Item = TypeVar("Item")

LIMIT, LIMIT_HIGHEST = 50, 500
OFFSET_HIGHEST = 2**31 - 1


class Window(In):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=LIMIT_HIGHEST)] = LIMIT
    offset: Annotated[int, Field(ge=0, le=OFFSET_HIGHEST)] = 0


class Page(Out, Generic[Item]):
    items: list[Item]
    total: int
    """How many there are in all, whatever the window."""


def page(rows: models.QuerySet[Row], window: Window, show: Callable[[Row], Item]) -> Page[Item]:
    """The window of the rows, newest first, each shown. Two statements beside what `rows` prefetches."""
    return page_of(rows, window, lambda found: [show(row) for row in found])


def page_of(rows: models.QuerySet[Row], window: Window, show_all: Callable[[list[Row]], Iterable[Item]]) -> Page[Item]:
    """The same where the items of a page are shown together, with facts read for all of them at once."""
    return _page(rows.order_by("-created_at", "-pk"), window, show_all)


def page_by_name(rows: models.QuerySet[Row], window: Window, show: Callable[[Row], Item]) -> Page[Item]:
    """The same by name, for what a platform lists: there is no newest."""
    return _page(rows.order_by("name", "pk"), window, lambda found: [show(row) for row in found])


def page_as_ordered(rows: models.QuerySet[Row], window: Window, show: Callable[[Row], Item]) -> Page[Item]:
    """The same in the order that the rows have."""
    return _page(rows, window, lambda found: [show(row) for row in found])


def _page(rows: models.QuerySet[Row], window: Window, show_all: Callable[[list[Row]], Iterable[Item]]) -> Page[Item]:
    found = list(rows[window.offset : window.offset + window.limit])
    return Page(items=list(show_all(found)), total=rows.order_by().count())


def one(rows: models.QuerySet[Row], pk: UUID, what: str) -> Row:
    """The row, if the caller may see it. Raises `Missing` in the same words for a foreign and an unknown id."""
    row = rows.filter(pk=pk).first()
    if row is None:
        raise Missing(f"There is no such {what}.")
    return row
