from __future__ import annotations

import subprocess
import time
from pathlib import Path

import libvirt
import pytest

from tests.support.guests import guest_file_exists, run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHosts
from tests.support.prerequisites import REPOSITORY
from tests.support.server_guest import BOOT_LIMIT_S, remove_server, start_server


def test_a_variant_that_there_is_not_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    script = REPOSITORY / "deploy" / "images" / "build-golden.sh"
    done = subprocess.run(
        [script, "mainframe", tmp_path / "out.qcow2"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"usage" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.timeout(2400)  # a cold boot under emulation on a busy machine takes up to 4 minutes
def test_a_debian_server_boots_and_follows_its_nocloud_seed(
    server_image: Path, kvm_hosts: KvmHosts, tmp_path: Path
) -> None:
    (host,) = kvm_hosts.take(1)
    (tmp_path / "meta-data").write_text("instance-id: srv-1\nlocal-hostname: srv-1\n")
    # locale: the image has no package locales, and cloud-init would fail without it.
    (tmp_path / "user-data").write_text(
        "#cloud-config\nlocale: false\nwrite_files:\n- {path: /etc/seeded, content: planted}\n"
    )
    iso = str(host.images / "seed.iso")
    command = ["genisoimage", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-o", iso, "user-data", "meta-data"]
    subprocess.run(command, cwd=tmp_path, check=True)
    conn = host.connect()
    domain = start_server(host, conn, server_image, "server", seed="seed.iso")
    try:
        wait_for_agent(domain, limit_s=BOOT_LIMIT_S)
        deadline = time.monotonic() + 600
        # Not `cloud-init status`: under emulation on a busy machine that alone takes over a minute.
        while not guest_file_exists(domain, "/var/lib/cloud/instance/boot-finished"):
            assert time.monotonic() < deadline, "cloud-init does not end"
            time.sleep(3)
        assert run_in_guest(domain, "/bin/hostname").strip() == "srv-1"
        assert run_in_guest(domain, "/bin/cat", "/etc/seeded") == "planted"
        leases = domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)
        assert leases, "the server took no address"
    finally:
        remove_server(host, domain, ["seed.iso"])
        conn.close()
