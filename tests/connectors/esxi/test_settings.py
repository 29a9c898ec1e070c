"""What an administrator fills in."""

from __future__ import annotations

import dataclasses

import pytest

from connectors.errors import Unsupported
from connectors.esxi.settings import EsxiSettings

GOOD = EsxiSettings(address="vc", user="u", password="p")
SHA256 = "ab" * 32


def test_secrets_are_not_shown() -> None:
    settings = EsxiSettings(password="open sesame", screen_password="seen")
    assert "sesame" not in repr(settings)
    assert "seen" not in repr(settings)
    secret = {field.name for field in dataclasses.fields(EsxiSettings) if field.metadata["secret"]}
    assert secret == {"password", "screen_password"}


def test_every_field_has_a_label() -> None:
    assert all(field.metadata["label"] for field in dataclasses.fields(EsxiSettings))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"address": ""}, "address"),
        ({"user": ""}, "User and password"),
        ({"password": ""}, "User and password"),
        ({"fingerprint": "ab:cd"}, "SHA-256"),
        ({"fingerprint": "ab" * 20}, "SHA-1 is not enough"),
        ({"ca_certificate": "not a certificate"}, "PEM"),
        ({"port": 70000}, "70000"),
        ({"screen_port": -1}, "VNC port"),
    ],
)
def test_what_is_missing_or_wrong_is_named(change: dict[str, object], word: str) -> None:
    with pytest.raises(Unsupported, match=word):
        dataclasses.replace(GOOD, **change).require_complete()  # type: ignore[arg-type]


def test_address_and_account_are_enough() -> None:
    GOOD.require_complete()
    assert (GOOD.real_port, GOOD.real_screen_port) == (443, 5900)


@pytest.mark.parametrize(
    "written",
    [
        SHA256,
        SHA256.upper(),
        ":".join(["AB"] * 32),
        f"sha256:{SHA256}",
        f"SHA256 {' '.join(['ab'] * 32)}",
        "AB-" * 31 + "AB",
    ],
)
def test_a_fingerprint_is_taken_as_people_write_it(written: str) -> None:
    settings = dataclasses.replace(GOOD, fingerprint=written)
    settings.require_complete()
    assert settings.pin == SHA256
