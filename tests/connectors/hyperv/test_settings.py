"""What an administrator may fill in for Hyper-V, and what is said about the rest."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pytest

from connectors.errors import Unsupported
from connectors.hyperv.settings import HypervSettings
from lab.certificates import make

with tempfile.TemporaryDirectory() as _folder:
    PEM = make("127.0.0.3", Path(_folder)).pem
GARBAGE = "-----BEGIN CERTIFICATE-----\nxxx\n-----END CERTIFICATE-----\n"
GOOD = HypervSettings(hosts="hv1.corp.example", user="CORP\\svc", password="s3cret-value", ca_certificate=PEM)


def test_complete_settings_are_taken() -> None:
    dataclasses.replace(GOOD, ca_certificate=(PEM + PEM).replace("\n", "\r\n")).require_complete()
    GOOD.require_complete()
    dataclasses.replace(GOOD, transport="http", ca_certificate="").require_complete()
    dataclasses.replace(GOOD, ca_certificate="", fingerprints="AB:" * 31 + "AB").require_complete()
    dataclasses.replace(GOOD, sign_in="kerberos", password="").require_complete()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"hosts": " \n"}, "No host"),
        ({"hosts": "hv1:5986"}, "no host name"),
        ({"hosts": "https://hv1"}, "no host name"),
        ({"hosts": "hv1\n-bad-"}, "no host name"),
        ({"transport": "ftp"}, "no transport"),
        ({"sign_in": "basic"}, "Choose ntlm or kerberos"),
        ({"sign_in": "plaintext"}, "Choose ntlm or kerberos"),
        ({"port": 70_000}, "Ports"),
        ({"screen_port": 0}, "Ports"),
        ({"user": ""}, "user is missing"),
        ({"password": ""}, "NTLM needs"),
        ({"ca_certificate": ""}, "either a CA certificate or fingerprints"),
        ({"fingerprints": "a" * 64}, "either a CA certificate or fingerprints"),
        ({"ca_certificate": "hello"}, "PEM"),
        ({"ca_certificate": GARBAGE}, "PEM"),
        ({"ca_certificate": "Gr\u00fc\u00dfe " + PEM}, "PEM"),
        ({"ca_certificate": "", "fingerprints": "abc"}, "fingerprint"),
        ({"folder": "Desktops"}, "no folder"),
        ({"folder": "\\\\server\\share"}, "no folder"),
        ({"folder": "D:\\bad|name"}, "no folder"),
        ({"vlans": "20"}, "VLANs"),
        ({"vlans": "Office: twenty"}, "VLANs"),
        ({"vlans": "Office: 5000"}, "VLANs"),
    ],
)
def test_what_is_missing_or_wrong_is_named(changed: dict[str, object], words: str) -> None:
    with pytest.raises(Unsupported) as caught:
        dataclasses.replace(GOOD, **changed).require_complete()  # type: ignore[arg-type]
    assert words in caught.value.message
    assert "s3cret-value" not in caught.value.message


def test_ports_are_the_usual_ones_unless_given() -> None:
    assert GOOD.endpoint("hv1") == "https://hv1:5986/wsman"
    assert dataclasses.replace(GOOD, transport="http").endpoint("hv1") == "http://hv1:5985/wsman"
    assert dataclasses.replace(GOOD, port=443).endpoint("hv1") == "https://hv1:443/wsman"


def test_an_ipv6_address_is_put_in_brackets() -> None:
    six = dataclasses.replace(GOOD, hosts="fd00::5")
    six.require_complete()
    assert six.endpoint(six.addresses[0]) == "https://[fd00::5]:5986/wsman"


def test_hosts_are_named_once_each() -> None:
    assert dataclasses.replace(GOOD, hosts=" hv1 \n\nhv2\nhv1\n").addresses == ("hv1", "hv2")


def test_pins_are_read_as_people_copy_them() -> None:
    pins = dataclasses.replace(GOOD, fingerprints=f"{'AB:' * 31}AB\n{'c' * 64}\n\n").pins
    assert pins == ("ab" * 32, "c" * 64)


def test_vlans_are_read_a_switch_a_line() -> None:
    settings = dataclasses.replace(GOOD, vlans="Office: 20, 30\n\nLab: east: 7")
    assert settings.vlans_of_switches == (("Office", 20), ("Office", 30), ("Lab: east", 7))


def test_the_password_is_a_secret_and_stands_in_no_text() -> None:
    assert "s3cret-value" not in repr(GOOD)
    secrets = {field.name for field in dataclasses.fields(HypervSettings) if field.metadata["secret"]}
    assert secrets == {"password"}
