"""What an administrator fills in."""

from __future__ import annotations

import dataclasses

import pytest

from connectors.errors import Unsupported
from connectors.hypercore.settings import HyperCoreSettings

GOOD = HyperCoreSettings(addresses="10.0.0.1", user="deskyard", password="open sesame", ca_certificate="PEM")


def test_secrets_are_not_shown() -> None:
    settings = dataclasses.replace(GOOD, screen_password="and again")
    assert "sesame" not in repr(settings)
    assert "again" not in repr(settings)
    secret = {field.name for field in dataclasses.fields(HyperCoreSettings) if field.metadata["secret"]}
    assert secret == {"password", "screen_password"}


def test_every_field_has_a_label() -> None:
    assert all(field.metadata["label"] for field in dataclasses.fields(HyperCoreSettings))


def test_complete_settings_are_taken() -> None:
    GOOD.require_complete()
    dataclasses.replace(GOOD, addresses="fd00::5, [fd00::6], node-1.example.net").require_complete()
    dataclasses.replace(GOOD, ca_certificate="", fingerprints="AB:" * 31 + "CD", vlans="10, 20").require_complete()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"addresses": " , "}, "at least one node"),
        ({"addresses": "https://10.0.0.1"}, "without https"),
        ({"addresses": "10.0.0.1:8443"}, "its own field"),
        ({"user": ""}, "user"),
        ({"password": ""}, "password"),
        ({"ca_certificate": " "}, "whom to trust"),
        ({"fingerprints": "ab" * 32}, "not both"),
        ({"ca_certificate": "", "fingerprints": "ab" * 20}, "64 hexadecimal"),
        ({"vlans": "ten"}, "0 to 4094"),
        ({"vlans": "4095"}, "0 to 4094"),
        ({"screen_port": 0}, "65535"),
    ],
)
def test_what_is_missing_or_contradicts_is_named(change: dict[str, object], word: str) -> None:
    with pytest.raises(Unsupported, match=word):
        dataclasses.replace(GOOD, **change).require_complete()  # type: ignore[arg-type]


def test_addresses_are_separated_by_anything_usual() -> None:
    assert HyperCoreSettings(addresses="a, b;c\n d  a").nodes == ("a", "b", "c", "d")
    assert HyperCoreSettings(addresses="a").endpoint == "HyperCore at a"
    assert HyperCoreSettings().endpoint == "HyperCore"
    assert HyperCoreSettings().real_port == 443


@pytest.mark.parametrize("shown", ["AB:" * 31 + "CD", ("ab" * 31 + "cd").upper(), "sha256=" + "ab" * 31 + "cd"])
def test_fingerprints_are_taken_as_tools_print_them(shown: str) -> None:
    assert HyperCoreSettings(fingerprints=f"{shown}\n\n").pins == {"ab" * 31 + "cd"}
