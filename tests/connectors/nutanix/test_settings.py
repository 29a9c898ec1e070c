"""What an administrator fills in."""

from __future__ import annotations

import dataclasses

import pytest

from connectors.errors import Unsupported
from connectors.nutanix.settings import NutanixSettings

GOOD = NutanixSettings(address="prism.example.net", user="deskyard", password="geheim")
PEM = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ca_certificate": PEM},
        {"fingerprint": "AB:" * 31 + "ab"},
        {"sign_in": "api_key", "user": "", "password": "", "api_key": "key"},
        {"template_category": "Deskyard:Template"},
        {"screen_port": 0},
    ],
    ids=str,
)
def test_what_is_enough_is_accepted(changes: dict[str, object]) -> None:
    dataclasses.replace(GOOD, **changes).require_complete()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"address": " "}, "address"),
        ({"address": "https://prism.example.net"}, "no https"),
        ({"address": "user@prism"}, "no user"),
        ({"port": 0}, "port"),
        ({"screen_port": 70_000}, "port"),
        ({"sign_in": "magic"}, "magic"),
        ({"user": ""}, "user"),
        ({"password": ""}, "password"),
        ({"sign_in": "api_key"}, "API key"),
        ({"fingerprint": "ab" * 20}, "SHA-256"),
        ({"ca_certificate": "MII"}, "PEM"),
        ({"template_category": "Deskyard"}, "category"),
    ],
    ids=str,
)
def test_the_first_thing_that_is_wrong_is_named(changes: dict[str, object], word: str) -> None:
    with pytest.raises(Unsupported, match=word):
        dataclasses.replace(GOOD, **changes).require_complete()  # type: ignore[arg-type]


def test_secrets_are_declared_and_never_shown() -> None:
    secret = {field.name for field in dataclasses.fields(NutanixSettings) if field.metadata["secret"]}
    assert secret == {"password", "api_key"}
    assert "geheim" not in repr(GOOD)
    assert GOOD.endpoint == "prism.example.net:9440"
