"""What deploy/libvirt-start.sh promises where a libvirt daemon runs already, whoever started it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.prerequisites import REPOSITORY

NAME = "deskyard-test-nowhere"

# A machine of another name, with another /etc/hosts: mount and UTS namespaces; the libvirt daemon is the machine's.
RENAMED = """
mount --bind "$1" /etc/hosts
[ "$2" = writable ] || mount -o remount,bind,ro /etc/hosts
hostname "$3"
exec "$4"
"""


def start_libvirt(hosts: Path, mode: str) -> str:
    """What the script says on a machine named NAME; it must succeed."""
    script = REPOSITORY / "deploy" / "libvirt-start.sh"
    inside = ["bash", "-euc", RENAMED, "-", str(hosts), mode, NAME, str(script)]
    return subprocess.run(
        ["unshare", "--mount", "--uts", "--propagation", "private", *inside],
        env={**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"},
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True, timeout=120,
    ).stderr  # fmt: skip


@pytest.mark.parametrize("before", ["127.0.0.1 localhost\n", "127.0.0.1 localhost"], ids=["whole", "without an end"])
def test_the_machines_own_name_resolves_although_the_daemon_runs_already(
    system_libvirt: str, tmp_path: Path, before: str
) -> None:
    machines_own = Path("/etc/hosts").read_text()
    hosts = tmp_path / "hosts"
    hosts.write_text(before)
    assert f"added {NAME}" in start_libvirt(hosts, "writable")
    assert hosts.read_text() == f"127.0.0.1 localhost\n127.0.1.1 {NAME}\n"
    assert "added" not in start_libvirt(hosts, "writable")
    assert hosts.read_text() == f"127.0.0.1 localhost\n127.0.1.1 {NAME}\n"
    assert Path("/etc/hosts").read_text() == machines_own


def test_a_list_of_hosts_that_cannot_be_written_keeps_libvirt_from_nobody(system_libvirt: str, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    said = start_libvirt(hosts, "read-only")
    assert f"cannot add {NAME}" in said
    assert f"{system_libvirt} answers" in said
    assert hosts.read_text() == "127.0.0.1 localhost\n"
