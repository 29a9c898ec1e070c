"""One ASGI application for web and relay: WebSockets go to the relay, the rest to Django.

Both share one address, so that a newcomer opens one port; `broker.config.asgi_relay` serves the relay alone.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.config.settings")

from django.core.asgi import get_asgi_application

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

web = get_asgi_application()

from broker.relay.app import relay  # noqa: E402 - needs Django's apps


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await relay(scope, receive, send)
    elif scope["type"] == "http":
        await web(scope, receive, send)  # type: ignore[arg-type]
