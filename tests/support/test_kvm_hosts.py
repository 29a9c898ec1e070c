from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import libvirt
import pytest

from tests.support.guests import (
    clone_tiny,
    run_in_guest,
    screen_port,
    screenshot,
    wait_for_agent,
)
from tests.support.kvm_hosts import KvmHost, KvmHosts
from tests.support.screen import see, type_line


@pytest.fixture
def two_hosts(kvm_hosts: KvmHosts) -> Iterator[list[KvmHost]]:
    """Two hosts with nothing on them but the template, before and after."""
    hosts = kvm_hosts.take(2)
    for host in hosts:
        host.wipe()
    yield hosts
    for host in kvm_hosts.take(2):  # anew: the test may have killed a daemon
        host.wipe()


@pytest.fixture
def guest(two_hosts: list[KvmHost]) -> Iterator[Any]:
    """A running clone on the first host whose screen can be reached from outside."""
    conn = two_hosts[0].connect()
    domain = clone_tiny(conn, "witness", listen="0.0.0.0")  # noqa: S104 - inside the host's own network namespace
    wait_for_agent(domain)
    yield domain
    conn.close()


def test_two_hosts_answer_and_are_not_one(two_hosts: list[KvmHost]) -> None:
    seen = []
    for host in two_hosts:
        conn = host.connect()
        seen.append((conn.getHostname(), [domain.name() for domain in conn.listAllDomains()]))
        conn.networkLookupByName("default").DHCPLeases()
        conn.close()
    assert seen == [("kvm-a", ["tiny"]), ("kvm-b", ["tiny"])]


def test_a_tiny_guest_answers_by_its_agent_and_gets_an_address(guest: Any) -> None:
    assert run_in_guest(guest, "/bin/cat", "/mnt/count").strip() == "1"
    deadline = time.monotonic() + 60
    while not (leases := guest.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)):
        assert time.monotonic() < deadline, "no lease"
        time.sleep(0.2)
    (card,) = leases.values()
    assert card["addrs"][0]["addr"].startswith("192.168.122.")


async def test_typing_at_the_screen_reaches_the_shell(guest: Any, two_hosts: list[KvmHost]) -> None:
    address, port = two_hosts[0].address, screen_port(guest)
    before = await see(address, port)

    await type_line(address, port, "echo typed-at-the-screen > /mnt/nonce")

    for _ in range(100):
        if "typed" in run_in_guest(guest, "/bin/sh", "-c", "cat /mnt/nonce || true"):
            break
        await asyncio.sleep(0.1)
    assert run_in_guest(guest, "/bin/cat", "/mnt/nonce") == "typed-at-the-screen\n"
    assert ((await see(address, port)) != before).any(), "the screen shows what was typed"
    assert screenshot(guest).startswith(b"\x89PNG")


def test_a_guest_outlives_its_libvirtd_and_is_found_again(guest: Any, two_hosts: list[KvmHost]) -> None:
    host, other = two_hosts
    pids = host.guest_pids()
    assert len(pids) == 1
    run_in_guest(guest, "/bin/sh", "-c", "echo alive > /tmp/mark")

    host.kill_libvirtd()
    with pytest.raises(libvirt.libvirtError, match="refused"):
        host.connect()
    assert host.guest_pids() == pids
    other.connect().close()

    host.start_libvirtd()
    conn = host.connect()
    again = conn.lookupByName("witness")
    wait_for_agent(again)
    assert run_in_guest(again, "/bin/cat", "/tmp/mark") == "alive\n"
    conn.close()


def test_the_golden_image_is_left_as_it_was_by_its_clones(guest: Any, two_hosts: list[KvmHost]) -> None:
    (golden,) = two_hosts[0].images.glob("tiny-*.qcow2")
    before = hashlib.sha256(golden.read_bytes()).hexdigest()
    run_in_guest(guest, "/bin/sh", "-c", "dd if=/dev/urandom of=/mnt/data bs=1M count=4; sync")
    assert hashlib.sha256(golden.read_bytes()).hexdigest() == before


def test_tls_takes_the_right_password_and_certificate_only(two_hosts: list[KvmHost]) -> None:
    host = two_hosts[0]
    conn = _open_tls(host, host.tls_user_password)
    assert conn.getHostname() == "kvm-a"
    conn.close()
    with pytest.raises(libvirt.libvirtError, match="authentication failed"):
        _open_tls(host, "wrong")
    with pytest.raises(libvirt.libvirtError, match="certificate"):
        libvirt.open(f"{host.tls_uri}?pkipath={host.stranger_pki}")


@pytest.mark.parametrize("library", ["libssh2", "libssh"])
def test_ssh_wants_the_known_host_key(two_hosts: list[KvmHost], library: str) -> None:
    host, other = two_hosts
    host.start_ssh()
    uri = f"qemu+{library}://root@{host.address}/system?keyfile={host.ssh_key}&sshauth=privkey&known_hosts="
    conn = libvirt.open(f"{uri}{host.known_hosts}")
    assert conn.getHostname() == "kvm-a"
    conn.close()
    with pytest.raises(libvirt.libvirtError, match="host key"):
        libvirt.open(f"{uri}{other.known_hosts}")


def test_a_frozen_or_unplugged_host_is_back_for_the_next_test(kvm_hosts: KvmHosts) -> None:
    host = kvm_hosts.take(1)[0]
    host.freeze_libvirtd()
    host.unplug()
    with pytest.raises(TimeoutError):
        socket.create_connection((host.address, 16509), timeout=0.5)
    kvm_hosts.take(1)
    host.connect().close()


def test_a_frozen_libvirtd_takes_connections_and_says_nothing(kvm_hosts: KvmHosts) -> None:
    host = kvm_hosts.take(1)[0]
    host.freeze_libvirtd()
    with socket.create_connection((host.address, 16509), timeout=5) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    host.thaw_libvirtd()
    host.connect().close()


def _open_tls(host: KvmHost, password: str) -> libvirt.virConnect:
    def answer(credentials: list[list[Any]], _opaque: object) -> int:
        for credential in credentials:
            is_name = credential[0] == libvirt.VIR_CRED_AUTHNAME
            credential[4] = host.tls_user if is_name else password
        return 0

    kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
    return libvirt.openAuth(f"{host.tls_uri}?pkipath={host.client_pki}", [kinds, answer, None], 0)
