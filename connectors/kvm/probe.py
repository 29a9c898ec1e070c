"""ProbeAcceleration: boot the tiny guest with KVM and see whether its agent answers.

What libvirt advertises is not believed: on machines that are guests themselves /dev/kvm may exist while guests hang
under it.
"""

from __future__ import annotations

import time

import libvirt

from connectors.base import Outcome, ProbeAcceleration, Probed
from connectors.errors import CapacityExhausted, Unsupported
from connectors.kvm import faults, mapping, names, power, volumes
from connectors.kvm.work import Domain, Work, number

FILES = ("vmlinuz", "initrd.gz")
TRIED = "kvm"


def probe(work: Work[ProbeAcceleration]) -> Outcome:
    """1. upload kernel and initrd, 2. start a transient domain, 3. wait for its agent, 4. remove all of it."""
    uuid = names.uuid_of(work.order.key)
    work.begin("Looking for the tiny guest")
    domain = work.find(uuid)
    until = number(work.receipt, "until")
    if domain is None and until is None:
        return _begin(work, uuid)
    if until is None:
        until = work.receipt["until"] = time.time() + work.order.limit_s
    if domain is None:
        return _end(work, None, "qemu", "The tiny guest ended by itself under KVM, so emulation is needed.")
    if mapping.read_domain(domain.XMLDesc()).agent_channel == "connected":
        return _end(work, domain, "kvm", "The tiny guest's agent answered under KVM.")
    if time.time() >= until:
        limit_s = work.order.limit_s
        return _end(
            work,
            domain,
            "qemu",
            f"The tiny guest's agent stayed silent for {limit_s} s under KVM, so emulation is needed.",
        )
    work.step = "Waiting for the tiny guest's agent"
    return work.running(poll_after_s=0.5)


def _begin(work: Work[ProbeAcceleration], uuid: str) -> Outcome:
    image = work.surroundings.probe_image
    if image is None or not all((image / file).is_file() for file in FILES):
        raise Unsupported("The tiny guest for the probe has not been built, so acceleration cannot be tried.")
    kernel, initrd = (_upload(work, file, (image / file).read_bytes()) for file in FILES)
    work.begin("Starting the tiny guest")
    xml = mapping.probe_xml(
        name=names.probe_name(work.order.key),
        uuid=uuid,
        stamp=work.stamp,
        virt_type=TRIED,
        kernel=kernel,
        initrd=initrd,
    )
    try:
        work.connection.createXML(xml, 0)
    except libvirt.libvirtError as error:
        if faults.kind_of(error).loses_endpoint or faults.kind_of(error) is CapacityExhausted:
            raise
        return _end(
            work, None, "qemu", f"The tiny guest could not be started under KVM ({error}), so emulation is needed."
        )
    work.receipt["until"] = time.time() + work.order.limit_s
    work.step = "Waiting for the tiny guest's agent"
    return work.running(poll_after_s=0.5)


def _upload(work: Work[ProbeAcceleration], file: str, content: bytes) -> str:
    work.begin("Uploading the tiny guest")
    return str(volumes.ensure_upload(work, _pool(work), names.probe_volume_name(work.order.key, file), content).path())


def _pool(work: Work[ProbeAcceleration]) -> volumes.Pool:
    if work.settings.storage_pool:
        return volumes.find_pool(work, work.settings.storage_pool)
    pools = volumes.active_pools(work)
    if not pools:
        raise Unsupported(f"{work.settings.endpoint} has no active storage pool to put the tiny guest in.")
    return max(pools, key=lambda pool: int(pool.info()[3]))


def _end(work: Work[ProbeAcceleration], domain: Domain | None, acceleration: str, reason: str) -> Outcome:
    if domain is not None:
        power.cut_power(work, domain)
    remove_files(work)
    work.step = "Probing the acceleration"
    return work.done(Probed(acceleration, reason))


def remove_files(work: Work[ProbeAcceleration]) -> None:
    wanted = {names.probe_volume_name(work.order.key, file) for file in FILES}
    for pool in volumes.active_pools(work):
        for volume in pool.listAllVolumes():
            if volume.name() in wanted:
                work.begin("Removing the tiny guest")
                volumes.delete_volume(volume)
