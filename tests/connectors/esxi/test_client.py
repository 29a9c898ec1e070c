"""Certificates, sessions, deadlines: the wire to a vCenter."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from connectors.errors import CertificateRejected, ConnectorError, CredentialsRejected, Unreachable, Unsupported
from connectors.esxi.api import vim
from connectors.esxi.client import Client
from connectors.esxi.settings import EsxiSettings
from tests.connectors.contract import clone, listing, made, soon
from tests.connectors.esxi.worlds import PASSWORD, EsxiWorld


def pinned(world: EsxiWorld, pin: str = "") -> EsxiSettings:
    assert world.server.certificate is not None
    return dataclasses.replace(world.settings, ca_certificate="", fingerprint=pin or world.server.certificate.sha256)


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_pinned_certificate_is_trusted_and_no_other_is(vcenter: EsxiWorld) -> None:
    assert vcenter.connector(settings=pinned(vcenter)).check(soon()).product
    before = len(vcenter.server.requests)
    with pytest.raises(CertificateRejected):
        vcenter.connector(settings=pinned(vcenter, "ab" * 32)).check(soon())
    assert len(vcenter.server.requests) == before, "nothing was sent"


def test_a_wrong_pin_is_refused_though_the_authority_is_trusted(vcenter: EsxiWorld) -> None:
    """pyvmomi 9.1.1 compares a thumbprint only where ordinary verification has failed."""
    both = dataclasses.replace(vcenter.settings, fingerprint="ab" * 32)
    with pytest.raises(CertificateRejected):
        vcenter.connector(settings=both).check(soon())


@pytest.mark.parametrize("way", ["pin", "authority"])
def test_a_certificate_that_changes_is_refused_on_later_connections_too(way: str, vcenter: EsxiWorld) -> None:
    """pyvmomi 9.1.1 turns verification off in the shared context once the first connection has been checked."""
    connector = vcenter.connector(settings=pinned(vcenter) if way == "pin" else None)
    connector.check(soon())
    vcenter.server.cut_off()
    vcenter.server.change_certificate()
    vcenter.server.come_back()
    seen = len(vcenter.server.requests)
    for _ in range(2):
        with pytest.raises(CertificateRejected) as told:
            connector.inventory(None, soon())
        assert "console" in told.value.message
    assert len(vcenter.server.requests) == seen, "nothing was sent"


def test_a_stranger_is_refused_without_a_pin_or_an_authority(vcenter: EsxiWorld) -> None:
    with pytest.raises(CertificateRejected):
        vcenter.connector(settings=dataclasses.replace(vcenter.settings, ca_certificate="")).check(soon())


def test_an_authority_that_cannot_be_read_is_told(vcenter: EsxiWorld) -> None:
    junk = "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----"
    with pytest.raises(CertificateRejected, match="cannot be read"):
        vcenter.connector(settings=dataclasses.replace(vcenter.settings, ca_certificate=junk)).check(soon())


# --- sessions --------------------------------------------------------------------------------------------------------


def test_one_session_serves_everything_and_ends_with_the_connector(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    listing(connector)
    made(vcenter, connector, clone(vcenter))
    listing(connector)
    assert vcenter.server.logins == 1
    connector.close()
    assert vcenter.sent("Logout")


def test_a_session_that_has_run_out_is_renewed_once(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    listing(connector)
    vcenter.server.expire_sessions()
    machine = made(vcenter, connector, clone(vcenter))
    assert list(vcenter.machines()) == [machine.machine_id]
    assert vcenter.server.logins == 2


def test_many_orders_renew_a_session_once(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    connector.check(soon())
    vcenter.server.expire_sessions()
    outcomes = list(connector.submit([clone(vcenter) for _ in range(6)], soon()))
    assert len(outcomes) == 6
    assert vcenter.server.logins == 2


def test_a_refused_account_is_not_hammered(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector(settings=dataclasses.replace(vcenter.settings, password="wrong one"))
    orders = [clone(vcenter) for _ in range(4)]
    for call in (lambda: connector.check(soon()), lambda: list(connector.submit(orders, soon())),
                 lambda: connector.inventory(None, soon())):  # fmt: skip
        with pytest.raises(CredentialsRejected) as told:
            call()
        assert "wrong one" not in repr(told.value) + told.value.message + told.value.platform_words
    assert vcenter.server.logins == 1


def test_a_cookie_is_never_sent_without_its_session(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    connector.check(soon())
    vcenter.server.expire_sessions()
    connector.check(soon())
    login = [seen for seen in vcenter.server.requests if seen.label == "Login"][-1]
    assert "Cookie" not in login.headers


def test_incomplete_settings_are_told_before_anybody_is_asked(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector(settings=dataclasses.replace(vcenter.settings, user=""))
    with pytest.raises(Unsupported):
        connector.check(soon())
    assert not vcenter.server.requests


# --- properties ------------------------------------------------------------------------------------------------------


def test_no_property_can_be_read_lazily(vcenter: EsxiWorld) -> None:
    client = Client(vcenter.settings)
    machine = client.object(vim.VirtualMachine, "vm-1", soon())
    for path in ("name", "runtime", "snapshot"):
        with pytest.raises((TypeError, AttributeError)):
            getattr(machine, path)
    client.close()
    assert "Fetch" not in vcenter.methods()


def test_objects_that_are_gone_are_left_out_and_the_rest_is_read(vcenter: EsxiWorld) -> None:
    """A server refuses a whole call over one of them."""
    client = Client(vcenter.settings)
    with vcenter.world:
        there = [vcenter.server.things.vm_id(vcenter.world.create(f"m{n}")) for n in range(5)]
    asked = ["vm-901", *there[:2], "vm-902", *there[2:], "vm-903"]
    assert set(client.objects("VirtualMachine", asked, ("name",), soon())) == set(there)
    assert client.object_seen("VirtualMachine", "vm-901", ("name",), soon()) is None
    client.close()


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_an_answer_that_drips_ends_at_the_deadline(vcenter: EsxiWorld) -> None:
    """Each byte comes in time, and the whole never would."""
    dripping = Dripping()
    settings = EsxiSettings(address="127.0.0.2", port=dripping.port, user="u", password=PASSWORD, fingerprint="0" * 64)
    settings = dataclasses.replace(settings, fingerprint=dripping.pin(vcenter))
    began = time.monotonic()
    with pytest.raises(Unreachable):
        vcenter.connector(settings=settings).check(soon(1.5))
    assert time.monotonic() - began < 3
    dripping.close()


class Dripping:
    """Takes a request and answers a byte at a time."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.2", 0))
        self.port: int = self._server.getsockname()[1]
        self._over = threading.Event()
        self._context: Any = None

    def pin(self, world: EsxiWorld) -> str:
        assert world.server.certificate is not None
        self._context = world.server.certificate.context()
        threading.Thread(target=self._serve, daemon=True).start()
        return world.server.certificate.sha256

    def _serve(self) -> None:
        try:
            raw, _ = self._server.accept()
            with self._context.wrap_socket(raw, server_side=True) as connection:
                connection.recv(65536)
                for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 1000:
                    if self._over.wait(0.05):
                        return
                    connection.sendall(bytes([byte]))
        except OSError:
            return

    def close(self) -> None:
        self._over.set()
        self._server.close()


@pytest.mark.parametrize("call", ["check", "inventory", "submit"])
def test_nobody_at_the_address_is_unreachable_with_advice(call: str, vcenter: EsxiWorld) -> None:
    vcenter.server.cut_off()
    connector = vcenter.connector()
    calls: dict[str, Callable[[], object]] = {
        "check": lambda: connector.check(soon()),
        "inventory": lambda: connector.inventory(None, soon()),
        "submit": lambda: list(connector.submit([clone(vcenter)], soon())),
    }
    with pytest.raises(Unreachable) as told:
        calls[call]()
    assert not isinstance(told.value, CertificateRejected)
    assert str(vcenter.server.port) in told.value.message


def test_a_kept_connection_that_has_died_is_not_trusted(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    listing(connector)
    vcenter.server.cut_off()
    vcenter.server.come_back()
    try:
        assert listing(connector).complete
    except ConnectorError as error:
        raise AssertionError("one stale connection is no lost endpoint") from error
