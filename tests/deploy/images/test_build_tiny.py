from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.support.guests import clone_tiny, remove_clone, run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost, KvmHosts
from tests.support.prerequisites import REPOSITORY

SCRIPT = REPOSITORY / "deploy" / "images" / "build-tiny.sh"


@pytest.fixture
def host(kvm_hosts: KvmHosts) -> KvmHost:
    return kvm_hosts.take(1)[0]


@pytest.fixture
def boot(host: KvmHost) -> Iterator[Callable[..., Any]]:
    """Makes and boots clones; they are removed afterwards."""
    conn = host.connect()
    made = []

    def boot(name: str, more_devices: str = "") -> Any:
        domain = clone_tiny(conn, name, more_devices=more_devices)
        made.append(domain)
        wait_for_agent(domain)
        return domain

    yield boot
    for domain in made:
        remove_clone(domain)
    conn.close()


def _seed(host: KvmHost, tmp_path: Path, meta_data: str) -> str:
    """XML of a disk with a NoCloud seed."""
    (tmp_path / "meta-data").write_text(meta_data)
    (tmp_path / "user-data").write_text("#cloud-config\n")
    iso = host.images / "seed.iso"
    subprocess.run(
        ["genisoimage", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-o", iso, "user-data", "meta-data"],
        cwd=tmp_path,
        check=True,
    )
    return (
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        "<source file='/var/lib/libvirt/images/seed.iso'/><target dev='vdb' bus='virtio'/><readonly/></disk>"
    )


def _wait_until_off(domain: Any) -> None:
    deadline = time.monotonic() + 60
    while domain.isActive():
        assert time.monotonic() < deadline, f"{domain.name()} stays on"
        time.sleep(0.1)


def test_a_current_build_is_left_alone(tiny_image: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in tiny_image.iterdir() if path.name != ".lock"}
    said = subprocess.run([SCRIPT, tiny_image], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == str(tiny_image)
    assert {path.name: path.stat().st_mtime_ns for path in tiny_image.iterdir() if path.name != ".lock"} == before


@pytest.mark.parametrize(
    "meta_data",
    [
        "instance-id: i-1\nlocal-hostname: desk-7\n",
        '{"instance-id": "i-1", "local-hostname": "desk-7"}',
        "local-hostname: 'desk-7'\ninstance-id: \"i-1\"\n",
    ],
    ids=["plain", "json", "quoted"],
)
def test_a_nocloud_seed_names_the_guest(
    boot: Callable[..., Any], host: KvmHost, tmp_path: Path, meta_data: str
) -> None:
    guest = boot("seeded", _seed(host, tmp_path, meta_data))
    assert guest.guestInfo(libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME) == {"hostname": "desk-7"}
    assert run_in_guest(guest, "/bin/cat", "/mnt/.seeded") == "instance-id i-1\n"


def test_files_in_mnt_outlive_shutdown_by_agent_and_by_power_button(boot: Callable[..., Any]) -> None:
    guest = boot("persistent")
    run_in_guest(guest, "/bin/sh", "-c", "echo mine > /mnt/file")
    for press in (libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT, libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN):
        guest.shutdownFlags(press)
        _wait_until_off(guest)
        guest.create()
        wait_for_agent(guest)
    assert run_in_guest(guest, "/bin/cat", "/mnt/file", "/mnt/count").split() == ["mine", "3"]


def test_a_reboot_keeps_the_guest_running(boot: Callable[..., Any]) -> None:
    guest = boot("rebooting")
    guest.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)
    deadline = time.monotonic() + 60
    while True:
        wait_for_agent(guest)
        if run_in_guest(guest, "/bin/cat", "/mnt/count").strip() == "2":
            break
        assert time.monotonic() < deadline, "no second boot"
