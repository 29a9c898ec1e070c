"""Headers that every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse

RUN_WASM = frozenset({"portal:viewer"})
"""The page that shows screens: IronRDP, which speaks RDP there, is WebAssembly."""


def content_security_policy(*, runs_wasm: bool = False) -> str:
    """Scripts, styles and streams of our own origin only; the relay's if it runs apart.

    `runs_wasm`: WebAssembly may run, too; ours stands in a script, as a `data:` address.
    """
    relay = f" {settings.RELAY_URL}" if settings.RELAY_URL else ""
    wasm, inlined = (" 'wasm-unsafe-eval'", " data:") if runs_wasm else ("", "")
    return (
        f"default-src 'none'; script-src 'self'{wasm}; style-src 'self'; font-src 'self'; img-src 'self' data: blob:; "
        f"connect-src 'self'{inlined}{relay}; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
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
            self._later(request, answer)
            if not isinstance(answer, HttpResponse) and isinstance(answer, Awaitable)
            else self._sealed(request, answer)
        )

    async def _later(self, request: HttpRequest, answer: Awaitable[HttpResponse]) -> HttpResponse:
        return self._sealed(request, await answer)

    def _sealed(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        page = request.resolver_match.view_name if request.resolver_match else ""
        response.setdefault("Content-Security-Policy", content_security_policy(runs_wasm=page in RUN_WASM))
        response.setdefault("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
        response.setdefault("Cache-Control", "no-store")
        return response
