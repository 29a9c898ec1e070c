"""Where a vault lies: named objects, and nothing that a folder and an object store do not both have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Protocol

PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
"""Lower case, since some file systems take no notice of it; no leading dot, no blanks, nothing that is a path."""


class Store(Protocol):
    """Objects of at most a few MiB under names like `chunks/ab/abcd`. Safe among threads, processes and machines.

    What one has put, all others see at once. All methods raise `StoreLost` if it does not answer and `Refused` if the
    account may not; those that write `SinkRefused` if it is read-only and `OutOfSpace` if it is full.
    """

    def put(self, name: str, content: bytes) -> None:
        """Durable on return. Never half an object under its name, whatever dies; replaces what is there."""
        ...

    def get(self, name: str) -> bytes:
        """Raises `NotFound`."""
        ...

    def exists(self, name: str) -> bool: ...

    def present(self, names: Collection[str]) -> set[str]:
        """Those of them that are there: `exists` for many."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Names that begin so, in any order; the prefix ends with `/`. What comes or goes meanwhile may be missed."""
        ...

    def delete(self, name: str) -> None:
        """What is not there is deleted already."""
        ...

    def move(self, name: str, new_name: str) -> None:
        """Replaces what is there. For a moment both may be there, never neither. Raises `NotFound`."""
        ...

    def tidy(self) -> None:
        """Remove what writers that died left half-written."""
        ...

    def close(self) -> None:
        """Idempotent; never raises."""
        ...


def require_name(name: str) -> str:
    """Raises ValueError for what must not become a path or key: names are made of ids and digests, never by people."""
    if not all(PART.fullmatch(part) for part in name.split("/")):
        raise ValueError(f"not a name of an object: {name!r}")
    return name
