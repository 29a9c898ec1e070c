"""The Debian server (deploy/images/build-golden.sh) as a machine on a KVM host, made without the broker.

Its boot loader and kernel lie on its own disk, so it comes up wherever the disk does.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import libvirt

from tests.support.kvm_hosts import KvmHost

BOOT_LIMIT_S = 900
"""Under emulation a cold boot to the agent takes a minute on a quiet machine, and up to four on a busy one."""
INSIDE = Path("/var/lib/libvirt/images")
"""Where a host's images lie, as the host sees it."""

DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory_mib}</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
<features><acpi/><apic/><tcg><tb-cache unit='MiB'>256</tb-cache></tcg></features>
<cpu mode='custom'><model>qemu64</model></cpu><clock offset='utc'/>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
{seed}
<interface type='network'><source network='default'/><model type='virtio'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/><video><model type='vga'/></video>
</devices></domain>"""

SEED = """<disk type='file' device='disk'><driver name='qemu' type='raw'/>
<source file='{iso}'/><target dev='vdb' bus='virtio'/><readonly/></disk>"""


def start_server(
    host: KvmHost, conn: libvirt.virConnect, image: Path, name: str, *, seed: str = "", memory_mib: int = 512
) -> Any:
    """A started machine with a copy of the image as its disk `NAME.qcow2`.

    `seed` names an ISO image among the host's images, for cloud-init.
    """
    shutil.copy(image, host.images / f"{name}.qcow2")
    there = SEED.format(iso=INSIDE / seed) if seed else ""
    domain = conn.defineXML(DOMAIN.format(name=name, memory_mib=memory_mib, disk=INSIDE / f"{name}.qcow2", seed=there))
    domain.create()
    return domain


def remove_server(host: KvmHost, domain: Any, also: Sequence[str] = ()) -> None:
    """The machine and its disk are gone, and what else of the host's images is named."""
    name = domain.name()
    if domain.isActive():
        domain.destroy()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
    for left in (f"{name}.qcow2", *also):
        (host.images / left).unlink()
