"""Who may come in: the request's origin, its ticket and its cookie. All is decided before the WebSocket opens."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings
from django.http.cookie import parse_cookie
from django.http.request import split_domain_port, validate_host

from broker.relay.browser import Scope
from broker.relay.rows import ask
from broker.services import screens
from broker.services.errors import Forbidden

Headers = Sequence[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> str | None:
    """The header's value; None if it is missing, or there more than once (then somebody plays games)."""
    found = [value for key, value in headers if key.lower() == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def refuse_foreign_origin(scope: Scope) -> None:
    """Raises `Forbidden` unless the page that asks is ours: same scheme, host and port, or listed in DESKYARD_ORIGINS.

    Browsers always send `Origin` with a WebSocket and pages cannot forge it; a missing one is refused.
    """
    headers = scope["headers"]
    origin, host = header(headers, b"origin"), header(headers, b"host")
    if not origin:
        raise Forbidden("The request does not say which page it comes from (Origin).")
    if origin in settings.ORIGINS:
        return
    allowed = settings.ALLOWED_HOSTS or ["localhost", "127.0.0.1", "[::1]"]
    if not host or not validate_host(split_domain_port(host)[0], allowed):
        raise Forbidden("The request names a host that is not ours.")
    scheme = "https" if settings.HTTPS or scope.get("scheme") == "wss" else "http"
    if origin.lower() != f"{scheme}://{host.lower()}":
        raise Forbidden("The request comes from a page that is not ours (Origin).")


def offered_ticket(scope: Scope) -> str:
    """The ticket among the offered subprotocols. Raises `Forbidden` unless there is exactly one."""
    tickets = [name for name in scope.get("subprotocols", []) if name.startswith(screens.TICKET_PREFIX)]
    if len(tickets) != 1:
        raise Forbidden("The request carries no ticket.")
    return str(tickets[0].removeprefix(screens.TICKET_PREFIX))


def session_key(scope: Scope) -> str:
    """What the browser's session cookie holds; empty without one."""
    cookies = parse_cookie(header(scope["headers"], b"cookie") or "")
    return cookies.get(settings.SESSION_COOKIE_NAME, "")


async def admit(scope: Scope) -> screens.Admission:
    """Burn the ticket of a request that is fit to be let in. Raises `Forbidden`."""
    refuse_foreign_origin(scope)
    return await ask(screens.admit, ticket=offered_ticket(scope), session_key=session_key(scope))
