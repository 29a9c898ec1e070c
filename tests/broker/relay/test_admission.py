"""Which page may ask."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from broker.relay import admission
from broker.services.errors import Forbidden


def scope(origin: str | None, host: str = "desk.example", scheme: str = "ws") -> dict[str, Any]:
    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin is not None else [])
    return {"headers": headers, "scheme": scheme}


@pytest.fixture(autouse=True)
def _our_hosts(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["desk.example"]
    settings.ORIGINS = ["https://portal.example"]
    settings.HTTPS = False


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://desk.example", "desk.example", "ws"),
        ("http://desk.example:8000", "desk.example:8000", "ws"),
        ("https://desk.example", "desk.example", "wss"),
        ("https://portal.example", "relay.example", "ws"),
    ],
)
def test_our_own_pages_may_ask(origin: str, host: str, scheme: str) -> None:
    admission.refuse_foreign_origin(scope(origin, host, scheme))


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        (None, "desk.example", "ws"),
        ("", "desk.example", "ws"),
        ("null", "desk.example", "ws"),
        ("http://desk.example", "desk.example", "wss"),
        ("https://desk.example", "desk.example", "ws"),
        ("http://desk.example.evil.example", "desk.example", "ws"),
        ("http://desk.example:8001", "desk.example:8000", "ws"),
        ("http://evil.example", "evil.example", "ws"),
        ("http://portal.example", "desk.example", "ws"),
        ("https://portal.example.evil.example", "desk.example", "ws"),
    ],
)
def test_other_pages_may_not(origin: str | None, host: str, scheme: str) -> None:
    with pytest.raises(Forbidden):
        admission.refuse_foreign_origin(scope(origin, host, scheme))


def test_two_origins_are_none() -> None:
    twice = scope("http://desk.example")
    twice["headers"].append((b"origin", b"http://desk.example"))
    with pytest.raises(Forbidden):
        admission.refuse_foreign_origin(twice)


def test_behind_tls_only_secure_pages_may_ask(settings: Settings) -> None:
    settings.HTTPS = True
    admission.refuse_foreign_origin(scope("https://desk.example"))
    with pytest.raises(Forbidden):
        admission.refuse_foreign_origin(scope("http://desk.example"))


@pytest.mark.parametrize("offered", [[], ["binary"], ["binary", "ticket.a", "ticket.b"]])
def test_exactly_one_ticket_must_be_offered(offered: list[str]) -> None:
    with pytest.raises(Forbidden):
        admission.offered_ticket({"subprotocols": offered})
