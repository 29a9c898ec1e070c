"""Headers that every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse


def content_security_policy() -> str:
    """Scripts, styles and streams of our own origin only; the relay's if it runs apart."""
    relay = f" {settings.RELAY_URL}" if settings.RELAY_URL else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data: blob:; "
        f"connect-src 'self'{relay}; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


class SecurityHeaders:
    """Sets the content security policy and, off static files, forbids caching of personal pages."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        answer = self.get_response(request)
        return (
            self._later(answer)
            if not isinstance(answer, HttpResponse) and isinstance(answer, Awaitable)
            else self._sealed(answer)
        )

    async def _later(self, answer: Awaitable[HttpResponse]) -> HttpResponse:
        return self._sealed(await answer)

    def _sealed(self, response: HttpResponse) -> HttpResponse:
        response.setdefault("Content-Security-Policy", content_security_policy())
        response.setdefault("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
        response.setdefault("Cache-Control", "no-store")
        return response
