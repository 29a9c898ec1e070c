"""What a service may refuse, by what its caller does next. Doors make pages or problems (RFC 9457) of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.models import Operation


class Refusal(Exception):
    """Base: `message` is for the person who asked (what, on what, what to do); nothing was changed."""

    code = "refused"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Missing(Refusal):
    """There is no such thing, or not for this person: 404. Never says which."""

    code = "not_found"


class Forbidden(Refusal):
    """The thing may be known, the act is not allowed: 403."""

    code = "forbidden"


class Invalid(Refusal):
    """The input is wrong: 422, with a message per field."""

    code = "invalid"

    def __init__(self, message: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.fields = dict(fields or {})


class Clash(Refusal):
    """Right in itself, but not now: 409. `operation` is what stands in the way or is on its way."""

    code = "conflict"

    def __init__(self, message: str, operation: Operation | None = None) -> None:
        super().__init__(message)
        self.operation = operation
