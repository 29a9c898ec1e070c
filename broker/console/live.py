"""The stream that tells open pages what changed."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, StreamingHttpResponse

from broker.console.access import is_staff
from broker.selectors import live as changes
from broker.services import nudges

NOUNS = frozenset(
    {
        "hypervisors", "templates", "networks", "pools", "desktops", "replication", "operations", "requests", "audit",
        "sessions",
    }
)  # fmt: skip


async def live(request: HttpRequest) -> StreamingHttpResponse:
    """Server-sent events named after the nouns; ends after some minutes, and the browser comes back."""
    if not is_staff(await request.auser()):
        raise PermissionDenied
    stream = changes.events(nudges.LIVE_CHANNEL, NOUNS, lambda change: True)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(stream, content_type="text/event-stream", headers=headers)
