"""What an administrator fills in."""

from __future__ import annotations

import dataclasses

import pytest

from connectors.errors import Unsupported
from connectors.hypercore.settings import HyperCoreSettings

GOOD = HyperCoreSettings(addresses="10.0.0.1", user="deskyard", password="open sesame", ca_certificate="PEM")


def test_secrets_are_not_shown() -> None:
    settings = dataclasses.replace(GOOD, screen_password="and again", share_password="a third")
    assert "sesame" not in repr(settings)
    assert "again" not in repr(settings)
    assert "third" not in repr(settings)
    secret = {field.name for field in dataclasses.fields(HyperCoreSettings) if field.metadata["secret"]}
    assert secret == {"password", "screen_password", "share_password"}


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
        ({"share": "nas"}, "is no share"),
        ({"share": "smb://user:word@nas/share"}, "is no share"),
        ({"share": "//nas/share/../other", "share_user": "u", "share_password": "p"}, "is no share"),
        ({"share": "//nas/share"}, "account on the share"),
        ({"share": "//nas/share", "share_user": "u"}, "account on the share"),
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


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("//nas.example/vms", ("nas.example", 445, "vms", ())),
        ("\\\\nas\\vm store\\of us\\", ("nas", 445, "vm store", ("of us",))),
        ("smb://nas:4450/vms/a/b", ("nas", 4450, "vms", ("a", "b"))),
        ("[fd00::1]/vms", ("fd00::1", 445, "vms", ())),
    ],
)
def test_a_share_is_read_as_people_write_it(written: str, read: tuple[object, ...]) -> None:
    place = dataclasses.replace(GOOD, share=written, share_user="u", share_password="p").place
    assert place is not None
    assert (place.host, place.port, place.share, place.folders) == read


def test_what_the_platform_says_is_told_without_the_shares_password() -> None:
    settings = dataclasses.replace(GOOD, share_password="p@ss/w")
    assert settings.redacted("smb://u:p%40ss%2Fw@nas or p@ss/w or p%40ss/w") == "smb://u:•••@nas or ••• or •••"
    assert GOOD.redacted("nothing to hide") == "nothing to hide"
