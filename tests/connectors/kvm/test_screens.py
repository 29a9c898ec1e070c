"""One-time VNC passwords on real guests, seen by an independent VNC client."""

from __future__ import annotations

import time

import pytest

from connectors.base import MachineRef, OpenScreen, ScreenOpened
from connectors.errors import Conflict, Unsupported
from connectors.kvm.screens import PASSWORD_LENGTH, new_password, reachable_host
from connectors.kvm.settings import KvmSettings
from tests.connectors.contract import clone, do, made, new_key, ref, refuse
from tests.connectors.kvm.rfb import lets_in, viewer
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.guests import screen_port
from tests.support.kvm_hosts import KvmHost


@pytest.fixture
def running(real: LibvirtWorld) -> MachineRef:
    return ref(real, made(real, real.connector(), clone(real, power_on=True)))


def opened(real: LibvirtWorld, machine: MachineRef, valid_s: int = 30) -> ScreenOpened:
    result = do(real, real.connector(), OpenScreen(key=new_key(), machine=machine, valid_s=valid_s)).result
    assert isinstance(result, ScreenOpened)
    return result


def test_nobody_sees_a_screen_that_was_not_asked_for(real: LibvirtWorld, running: MachineRef, host: KvmHost) -> None:
    port = screen_port(real.conn.lookupByUUIDString(running.id))
    for password in ("", "password"):
        assert not lets_in(host.address, port, password)


def test_the_password_opens_the_screen_and_no_other_does(
    real: LibvirtWorld, running: MachineRef, host: KvmHost
) -> None:
    screen = opened(real, running)
    assert (screen.protocol, screen.host) == ("vnc", host.address)
    assert not lets_in(screen.host, screen.port, "password")
    assert lets_in(screen.host, screen.port, screen.password)


def test_a_password_ends_with_its_time_and_with_the_next_one(real: LibvirtWorld, running: MachineRef) -> None:
    first = opened(real, running)
    second = opened(real, running, valid_s=1)
    assert not lets_in(first.host, first.port, first.password)
    assert lets_in(second.host, second.port, second.password)
    time.sleep(3)
    assert not lets_in(second.host, second.port, second.password)


def test_a_viewer_stays_when_the_password_ends(real: LibvirtWorld, running: MachineRef) -> None:
    screen = opened(real, running, valid_s=1)
    with viewer(screen.host, screen.port, screen.password) as is_seen:
        time.sleep(3)
        assert not lets_in(screen.host, screen.port, screen.password)
        assert is_seen()


def test_a_machine_that_is_off_shows_nothing(real: LibvirtWorld) -> None:
    machine = ref(real, made(real, real.connector(), clone(real)))
    assert isinstance(refuse(real, real.connector(), OpenScreen(key=new_key(), machine=machine)), Conflict)


def test_a_screen_is_there_soon(real: LibvirtWorld, running: MachineRef) -> None:
    connector = real.connector()
    began = time.monotonic()
    do(real, connector, OpenScreen(key=new_key(), machine=running))
    assert time.monotonic() - began < 8, "a person waits for it"


@pytest.mark.parametrize(
    ("settings", "listen", "expected"),
    [
        (KvmSettings(), "127.0.0.1", "127.0.0.1"),
        (KvmSettings(), "0.0.0.0", "127.0.0.1"),  # noqa: S104
        (KvmSettings(transport="tls", address="kvm-a"), "0.0.0.0", "kvm-a"),  # noqa: S104
        (KvmSettings(transport="tls", address="kvm-a"), "", "kvm-a"),
        (KvmSettings(transport="tls", address="kvm-a"), "10.0.0.7", "10.0.0.7"),
        (KvmSettings(transport="tls", address="kvm-a", screen_address="gate"), "127.0.0.1", "gate"),
        (KvmSettings(uri="qemu+tcp://10.77.1.2/system"), "::", "10.77.1.2"),
    ],
)
def test_the_relay_is_told_an_address_it_can_reach(settings: KvmSettings, listen: str, expected: str) -> None:
    assert reachable_host(settings, listen) == expected


def test_a_remote_screen_that_only_its_host_reaches_is_said() -> None:
    with pytest.raises(Unsupported, match="Screens listen on"):
        reachable_host(KvmSettings(transport="tls", address="kvm-a"), "127.0.0.1")


def test_passwords_are_as_long_as_vnc_allows_and_never_the_same() -> None:
    passwords = {new_password() for _ in range(200)}
    assert len(passwords) == 200
    assert {len(password) for password in passwords} == {PASSWORD_LENGTH}
