"""What changes, told to open pages as it happens. Carries no contents: the page asks for them itself."""

from __future__ import annotations

from django.contrib.auth import aget_user
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_GET

from broker.selectors import live
from broker.services import nudges

NOUNS = frozenset({"desktops", "notices", "requests", "operations", "pools", "hypervisors", "sessions"})
PAUSE_S = 2.0


@require_GET
async def events(request: HttpRequest) -> HttpResponseBase:
    """Server-sent events for the portal: those of other people do not come."""
    user = await aget_user(request)
    if not user.is_authenticated:
        return HttpResponse("You are signed out.", status=401)
    me = str(user.pk)

    def concerns(change: live.Change) -> bool:
        return change.get("user", me) == me

    stream = live.events(nudges.LIVE_CHANNEL, NOUNS, concerns, pause_s=PAUSE_S)
    return StreamingHttpResponse(
        stream, content_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
