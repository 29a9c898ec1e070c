"""Reaching real hosts over every transport, and what each way of failing is called."""

from __future__ import annotations

import dataclasses
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from connectors.base import CloneMachine, Platform, Receipt, Stage, Surroundings
from connectors.errors import CertificateRejected, ConnectorError, CredentialsRejected, Unreachable
from connectors.kvm import client, names
from connectors.kvm.connector import KvmConnector
from connectors.kvm.settings import KvmSettings
from tests.connectors.contract import OURS, clone, do, new_key, soon, submit
from tests.connectors.kvm.worlds import LibvirtWorld, host_settings
from tests.support.kvm_hosts import KvmHost


@contextmanager
def connector(settings: KvmSettings, workdir: Path) -> Iterator[KvmConnector]:
    made = KvmConnector(settings, Surroundings(installation=OURS, workdir=workdir))
    try:
        yield made
    finally:
        made.close()


def checked(settings: KvmSettings, workdir: Path, limit_s: float = 10) -> Platform:
    with connector(settings, workdir) as trial:
        return trial.check(soon(limit_s))


def ssh_settings(host: KvmHost) -> KvmSettings:
    host.start_ssh()
    return KvmSettings(
        transport="ssh",
        address=host.address,
        user="root",
        ssh_key=host.ssh_key.read_text(),
        known_hosts=host.known_hosts.read_text(),
    )


def refused(settings: KvmSettings, workdir: Path, limit_s: float = 10) -> ConnectorError:
    """The error of a check, and no secret stands in it."""
    began = time.monotonic()
    with pytest.raises(ConnectorError) as caught:
        checked(settings, workdir, limit_s)
    assert time.monotonic() - began < limit_s + 1
    texts = f"{caught.value!r} {caught.value} {caught.value.platform_words}"
    for secret in (settings.password, settings.ssh_key, settings.client_key):
        assert not secret or secret not in texts
    assert not list(workdir.iterdir()), "key files are removed"
    return caught.value


def test_a_host_is_reached_by_tls_with_certificates_and_password(host: KvmHost, tmp_path: Path) -> None:
    platform = checked(host_settings(host), tmp_path)
    assert platform.version.startswith("7.")
    assert not platform.warnings


def test_a_host_is_reached_by_ssh_with_key_and_known_hosts(host: KvmHost, tmp_path: Path) -> None:
    with connector(ssh_settings(host), tmp_path) as trial:
        assert trial.check(soon(20)).product.startswith("QEMU")
        assert trial.inventory(None, soon(20)).complete


def test_plain_tcp_works_in_laboratories_and_is_warned_of(host: KvmHost, tmp_path: Path) -> None:
    platform = checked(KvmSettings(transport="tcp", address=host.address), tmp_path)
    assert any("laboratories" in warning for warning in platform.warnings)


def test_this_machines_own_libvirt_is_reached_by_its_socket(system_libvirt: str, tmp_path: Path) -> None:
    assert checked(KvmSettings(), tmp_path).product.startswith("QEMU")
    socket = KvmSettings(socket="/run/libvirt/libvirt-sock")
    assert checked(socket, tmp_path).product.startswith("QEMU")


def test_key_files_are_private_and_removed_at_the_end(host: KvmHost, tmp_path: Path) -> None:
    with connector(host_settings(host), tmp_path) as trial:
        trial.check(soon())
        files = [Path(folder) / name for folder, _, names in os.walk(tmp_path) for name in names]
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert {stat.S_IMODE(file.parent.stat().st_mode) for file in files} == {0o700}
    assert not list(tmp_path.iterdir())


def test_a_wrong_password_is_a_rejected_credential(host: KvmHost, tmp_path: Path) -> None:
    wrong = dataclasses.replace(host_settings(host), password="wrong horse battery staple")
    assert isinstance(refused(wrong, tmp_path), CredentialsRejected)


def test_an_unknown_user_is_a_rejected_credential(host: KvmHost, tmp_path: Path) -> None:
    wrong = dataclasses.replace(host_settings(host), user="nobody@nowhere")
    assert isinstance(refused(wrong, tmp_path), CredentialsRejected)


def test_a_host_of_an_authority_we_do_not_trust_is_rejected(host: KvmHost, tmp_path: Path) -> None:
    stranger = (host.stranger_pki / "cacert.pem").read_text()
    error = refused(dataclasses.replace(host_settings(host), ca_certificate=stranger), tmp_path)
    assert isinstance(error, CertificateRejected)


def test_a_host_that_shows_the_certificate_of_another_is_rejected(host: KvmHost, tmp_path: Path) -> None:
    """It is of the authority we trust: whoever holds the key of any host could else pretend to be this one."""
    with host.showing_certificate("another-host", "10.77.255.2"):
        error = refused(host_settings(host), tmp_path)
    assert isinstance(error, CertificateRejected), error.platform_words
    assert "for this address" in error.message


def test_a_host_whose_certificate_has_expired_is_rejected(host: KvmHost, tmp_path: Path) -> None:
    with host.showing_certificate(host.name, host.address, lifetime=-timedelta(minutes=5)):
        error = refused(host_settings(host), tmp_path)
    assert isinstance(error, CertificateRejected), error.platform_words
    assert "expired" in error.message


def test_a_certificate_the_host_does_not_trust_is_told_apart_from_a_dead_host(host: KvmHost, tmp_path: Path) -> None:
    stranger = dataclasses.replace(
        host_settings(host),
        client_certificate=(host.stranger_pki / "clientcert.pem").read_text(),
        client_key=(host.stranger_pki / "clientkey.pem").read_text(),
    )
    error = refused(stranger, tmp_path)
    assert isinstance(error, (CertificateRejected, CredentialsRejected)), error.platform_words


def test_certificates_that_are_none_are_told(host: KvmHost, tmp_path: Path) -> None:
    error = refused(dataclasses.replace(host_settings(host), ca_certificate="not a certificate"), tmp_path)
    assert isinstance(error, CertificateRejected)


def test_a_host_with_another_ssh_key_is_rejected(host: KvmHost, tmp_path: Path) -> None:
    settings = ssh_settings(host)
    other = f"{host.address} {(host.folder / 'ssh' / 'id.pub').read_text()}"
    error = refused(dataclasses.replace(settings, known_hosts=other), tmp_path)
    assert isinstance(error, CertificateRejected), error.platform_words


def test_an_ssh_key_the_host_does_not_know_is_a_rejected_credential(host: KvmHost, tmp_path: Path) -> None:
    settings = ssh_settings(host)
    stranger = (host.folder / "ssh" / "hostkey").read_text()
    error = refused(dataclasses.replace(settings, ssh_key=stranger), tmp_path)
    assert isinstance(error, CredentialsRejected), error.platform_words


def test_a_host_without_the_named_pool_or_network_is_warned_of(host: KvmHost, tmp_path: Path) -> None:
    settings = dataclasses.replace(host_settings(host), storage_pool="nowhere", network="nowhere-either")
    warnings = checked(settings, tmp_path).warnings
    assert any("'nowhere'" in warning for warning in warnings)
    assert any("'nowhere-either'" in warning for warning in warnings)


@pytest.mark.parametrize("transport", ["tls", "ssh", "tcp"])
def test_a_closed_port_is_unreachable_at_once(transport: str, host: KvmHost, tmp_path: Path) -> None:
    settings = dataclasses.replace(host_settings(host), transport=transport, port=1, ssh_key="x", known_hosts="x")
    began = time.monotonic()
    assert isinstance(refused(settings, tmp_path), Unreachable)
    assert time.monotonic() - began < 4.5, "refused, not given up"


def test_a_host_that_is_gone_is_unreachable_by_the_deadline(host: KvmHost, tmp_path: Path) -> None:
    host.unplug()
    try:
        assert isinstance(refused(host_settings(host), tmp_path, limit_s=2), Unreachable)
    finally:
        host.plug_in()


def test_a_socket_without_a_daemon_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    settings = KvmSettings(socket=str(tmp_path / "no-such-socket"))
    assert isinstance(refused(settings, tmp_path / "work"), Unreachable)


def test_a_frozen_daemon_holds_up_nobody_beyond_the_deadline(real: LibvirtWorld, host: KvmHost) -> None:
    trial, order = real.connector(), clone(real)
    trial.check(soon())
    host.freeze_libvirtd()
    try:
        began = time.monotonic()
        with pytest.raises(Unreachable):
            trial.inventory(None, soon(1))
        assert time.monotonic() - began < 8, "the deadline was 1 s"
        began = time.monotonic()
        try:
            outcomes = list(trial.submit([order], soon(1)))
        except Unreachable:
            outcomes = []
        assert all(outcome.stage is Stage.RUNNING for outcome in outcomes)
        assert time.monotonic() - began < 8, "the deadline was 1 s"
        trial.close()
    finally:
        host.thaw_libvirtd()
    do(real, real.connector(), order)
    assert len(real.machines()) == 1, "what the frozen daemon was asked before is done once"


def test_a_silent_line_is_given_up_and_holds_up_nobody(
    real: LibvirtWorld, host: KvmHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the other kernel answers, and none of ours would give the line up for minutes: keepalive does."""
    monkeypatch.setattr(client, "KEEPALIVE_S", 1)
    trial, order, threads = real.connector(), clone(real), set(threading.enumerate())
    trial.check(soon())
    line = trial._endpoint.line(soon())
    with line.using(), line.using():
        pass  # so that both calls below wait for an answer, and not for a connection
    host.unplug()
    try:
        began = time.monotonic()
        with suppress(Unreachable):
            assert [outcome.stage for outcome in trial.submit([order], soon(1))] == [Stage.RUNNING]
        with pytest.raises(Unreachable):
            trial.inventory(None, soon(1))
        with pytest.raises(Unreachable):
            list(trial.poll([Receipt(order)], soon(1)))
        assert time.monotonic() - began < 4
        trial.close()
        until = time.monotonic() + 60
        while left := left_in_libvirt(threads):
            assert time.monotonic() < until, f"{left} still wait for the silent host"
            time.sleep(0.1)
    finally:
        host.plug_in()
    real.reconnect()
    do(real, real.connector(), order)
    assert len(real.machines()) == 1, "what the silent host was asked before is done once"


def test_calls_under_way_at_once_have_connections_of_their_own(real: LibvirtWorld) -> None:
    """Or those beside the first would never return once the line is given up."""
    line = real.connector()._endpoint.line(soon())
    with line.using() as first, line.using() as second:
        assert first is not second
        assert line.is_alive
    with line.using() as again:
        assert again in (first, second)
        line.retire()
        assert again.isAlive(), "not closed under the feet of whoever is in it"
        with pytest.raises(Unreachable), line.using():
            pass
    assert not line.is_alive


def left_in_libvirt(before: set[threading.Thread]) -> list[threading.Thread]:
    """The connectors' threads beside those, but for the event loop, which lives as long as the process."""
    begun = set(threading.enumerate()) - before
    return [thread for thread in begun if thread.name.startswith("libvirt-") and thread.name != "libvirt-events"]


def test_many_tries_at_a_frozen_daemon_leave_one_thread(host: KvmHost, tmp_path: Path) -> None:
    with connector(host_settings(host), tmp_path) as trial:
        host.freeze_libvirtd()
        try:
            for _ in range(5):
                with pytest.raises(Unreachable):
                    trial.check(soon(0.2))
            opening = [thread for thread in threading.enumerate() if thread.name == "libvirt-open"]
            assert len(opening) <= 1
        finally:
            host.thaw_libvirtd()
        trial.check(soon(20))


def test_a_lost_line_is_told_and_the_next_call_opens_another(real: LibvirtWorld, host: KvmHost) -> None:
    trial = real.connector()
    machine_order = clone(real)
    do(real, trial, machine_order)
    host.kill_libvirtd()
    with pytest.raises(Unreachable):
        list(trial.submit([clone(real)], soon(3)))
    with pytest.raises(Unreachable):
        list(trial.poll([Receipt(machine_order)], soon(3)))
    host.start_libvirtd()
    real.reconnect()
    do(real, trial, CloneMachine(key=new_key(), name="afterwards", template=real.template, power_on=False))
    assert len(real.machines()) == 2


def test_a_daemon_that_dies_in_the_middle_makes_the_order_unknown_not_failed(real: LibvirtWorld, host: KvmHost) -> None:
    trial, orders = real.connector(), [clone(real, power_on=True) for _ in range(3)]
    submit(trial, orders)
    host.kill_libvirtd()
    failed = {}
    with suppress(Unreachable):
        told = trial.poll([Receipt(order) for order in orders], soon(3))
        failed = {names.uuid_of(o.key): o.error for o in told if o.stage is Stage.FAILED}
    host.start_libvirtd()
    real.reconnect()
    left = failed.keys() & real.machines().keys()
    assert not left, [str(failed[uuid]) for uuid in left]
    fresh = real.connector()
    for order in orders:
        do(real, fresh, order)
    assert len(real.machines()) == 3


def test_a_password_never_stands_in_the_uri(host: KvmHost, tmp_path: Path) -> None:
    with connector(host_settings(host), tmp_path) as trial:
        uri = trial._endpoint.uri()
    assert host.tls_user_password not in uri
    assert "pkipath=" in uri


def test_a_host_that_wants_a_client_certificate_is_not_called_dead(host: KvmHost, tmp_path: Path) -> None:
    bare = dataclasses.replace(host_settings(host), client_certificate="", client_key="")
    error = refused(bare, tmp_path)
    assert isinstance(error, (CertificateRejected, CredentialsRejected)), error.platform_words


def test_a_connection_that_comes_after_its_caller_has_left_is_closed() -> None:
    class Late:
        def __init__(self) -> None:
            self.is_closed = threading.Event()

        def close(self) -> None:
            self.is_closed.set()

    late, may_come = Late(), threading.Event()

    def open_it(_deadline: float) -> Late:
        may_come.wait(30)
        return late

    attempt = client._Attempt(open_it, soon())
    attempt.abandon()
    may_come.set()
    assert late.is_closed.wait(30)
    assert attempt.connection is None
