from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import libvirt
import pytest

from tests.support.guests import guest_file_exists, run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHosts
from tests.support.prerequisites import REPOSITORY

# Building takes up to 5 minutes on a busy machine, a cold boot under emulation up to 4.
pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

DOMAIN = """<domain type='qemu'><name>server</name><memory unit='MiB'>512</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
<features><acpi/><apic/><tcg><tb-cache unit='MiB'>256</tb-cache></tcg></features>
<cpu mode='custom'><model>qemu64</model></cpu><clock offset='utc'/>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='/var/lib/libvirt/images/server.qcow2'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/>
<source file='/var/lib/libvirt/images/seed.iso'/><target dev='vdb' bus='virtio'/><readonly/></disk>
<interface type='network'><source network='default'/><model type='virtio'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/><video><model type='vga'/></video>
</devices></domain>"""


@pytest.fixture(scope="module")
def golden_server() -> Path:
    image = Path(os.environ.get("DESKYARD_CACHE", "/var/cache/deskyard")) / "golden-server.qcow2"
    script = REPOSITORY / "deploy" / "images" / "build-golden.sh"
    done = subprocess.run([script, "server", image], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().splitlines()[-1] == str(image)
    return image


def test_a_debian_server_boots_and_follows_its_nocloud_seed(
    golden_server: Path, kvm_hosts: KvmHosts, tmp_path: Path
) -> None:
    (host,) = kvm_hosts.take(1)
    shutil.copy(golden_server, host.images / "server.qcow2")
    (tmp_path / "meta-data").write_text("instance-id: srv-1\nlocal-hostname: srv-1\n")
    # locale: the image has no package locales, and cloud-init would fail without it.
    (tmp_path / "user-data").write_text(
        "#cloud-config\nlocale: false\nwrite_files:\n- {path: /etc/seeded, content: planted}\n"
    )
    iso = host.images / "seed.iso"
    command = [
        "genisoimage",
        "-quiet",
        "-volid",
        "cidata",
        "-joliet",
        "-rock",
        "-o",
        str(iso),
        "user-data",
        "meta-data",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    conn = host.connect()
    domain = conn.defineXML(DOMAIN)
    try:
        domain.create()
        wait_for_agent(domain, limit_s=900)
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
        domain.destroy()
        domain.undefine()
        conn.close()
        for left in ("server.qcow2", "seed.iso"):
            (host.images / left).unlink()
