"""Worlds for the tests of the KVM connector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connectors.kvm.worlds import LibvirtWorld, driver_world, host_world, ssh_settings
from tests.support.kvm_hosts import KvmHost, KvmHosts


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LibvirtWorld]:
    """libvirt's test driver."""
    with driver_world(tmp_path) as made:
        yield made


@pytest.fixture
def host(kvm_hosts: KvmHosts) -> KvmHost:
    return kvm_hosts.take(1)[0]


@pytest.fixture
def real(host: KvmHost, tmp_path: Path) -> Iterator[LibvirtWorld]:
    """A real libvirt and QEMU with the tiny guest, reached over TLS."""
    with host_world(host, tmp_path) as made:
        yield made


@pytest.fixture
def by_ssh(host: KvmHost, tmp_path: Path) -> Iterator[LibvirtWorld]:
    """The same, reached over SSH."""
    host.start_ssh()
    with host_world(host, tmp_path, ssh_settings(host)) as world:
        yield world
