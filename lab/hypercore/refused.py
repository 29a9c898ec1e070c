"""How a cluster says no at once, and what it looks at first in every request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Body = Mapping[str, Any]


class Refused(Exception):
    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


def mapping(body: Body, name: str) -> Body:
    found = body.get(name)
    if not isinstance(found, Mapping):
        raise Refused(400, f"Missing property {name}")
    return found


def require_known(body: Any, known: set[str]) -> None:
    if not isinstance(body, Mapping):
        raise Refused(400, "Expected an object")
    if unknown := sorted(set(body) - known):
        raise Refused(400, f"Property not allowed: {unknown[0]}")
