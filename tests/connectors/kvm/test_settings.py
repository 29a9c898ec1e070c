"""What an administrator fills in."""

from __future__ import annotations

import dataclasses

import pytest

from connectors.errors import Unsupported
from connectors.kvm.settings import KvmSettings


def test_secrets_are_not_shown() -> None:
    settings = KvmSettings(password="open sesame", client_key="KEY PEM", ssh_key="SSH PEM")
    assert not {text for text in ("open sesame", "KEY PEM", "SSH PEM") if text in repr(settings)}
    secret = {field.name for field in dataclasses.fields(KvmSettings) if field.metadata["secret"]}
    assert secret == {"password", "client_key", "ssh_key"}


def test_every_field_has_a_label() -> None:
    assert all(field.metadata["label"] for field in dataclasses.fields(KvmSettings))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (KvmSettings(transport="tls", ca_certificate="x"), "address"),
        (KvmSettings(transport="tls", address="a"), "authority"),
        (KvmSettings(transport="tls", address="a", ca_certificate="x", client_key="y"), "belong together"),
        (KvmSettings(transport="ssh", address="a", ssh_key="x"), "known hosts"),
        (KvmSettings(transport="pigeon"), "pigeon"),
        (KvmSettings(acceleration="turbo"), "turbo"),
    ],
)
def test_what_is_missing_is_named(settings: KvmSettings, word: str) -> None:
    with pytest.raises(Unsupported, match=word):
        settings.require_complete()


def test_this_machine_needs_nothing() -> None:
    KvmSettings().require_complete()


def test_usual_ports_are_known() -> None:
    assert (KvmSettings(transport="tls").real_port, KvmSettings(transport="ssh").real_port) == (16514, 22)
    assert KvmSettings(transport="tls", port=7).real_port == 7
