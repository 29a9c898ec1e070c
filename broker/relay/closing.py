"""Why a stream ends: a close code for the page's next step, and words for the person."""

from __future__ import annotations

from enum import IntEnum

REASON_BYTES = 123
"""What fits into a close frame (RFC 6455 §5.5.1)."""


class Code(IntEnum):
    ENDED = 4000
    """The screen itself closed: the desktop was switched off, or somebody else took the screen over."""
    NOT_ALLOWED = 4401
    """The right to it ended: released, signed out, entitlement withdrawn."""
    REFUSED = 4403
    """The guest lets nobody in, or is not the one it was. Trying again changes nothing."""
    UNREACHABLE = 4404
    """The order was carried out, but nobody answers at the screen's address."""
    NOT_READY = 4408
    """No address came in time."""
    FAILED = 4409
    """The order failed; the reason says why."""
    IDLE = 4410
    """No key or mouse for too long."""
    BAD_BROWSER = 4422
    """The browser's side did not speak its protocol."""
    AWAY = 1012
    """The relay itself is stopping: come again."""


class Closing(Exception):
    """Ends a stream with a code and words."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class BrowserGone(Exception):
    """The browser closed its side; there is nobody left to tell."""


def fitting(reason: str) -> str:
    """The reason cut to what a close frame holds, never in the middle of a character."""
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")
