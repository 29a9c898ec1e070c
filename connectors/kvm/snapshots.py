"""TakeSnapshot, RevertSnapshot, DeleteSnapshot: internal snapshots, kept inside the machine's own disk.

A machine that is replicated incrementally has checkpoints, and those do not mix with snapshots: QEMU 7.2 fails a
revert with "Device has active dirty bitmaps" *and leaves the machine off*. So such orders are refused before anything
is touched.
"""

from __future__ import annotations

from typing import Any

import libvirt

from connectors.base import DeleteSnapshot, Outcome, RevertSnapshot, SnapshotTaken, TakeSnapshot
from connectors.errors import Conflict, NotFound, Unsupported
from connectors.kvm import mapping, names, volumes
from connectors.kvm.work import Domain, Work

REPLICATED = "It is replicated incrementally (it has checkpoints), and KVM cannot mix those with snapshots."


def take(work: Work[TakeSnapshot]) -> Outcome:
    names.require_usable(work.order.name, what="snapshot")
    work.begin("Looking at the machine")
    domain, seen = work.ours(work.order.machine)
    there = _find(domain, work.order.name)
    if there is None:
        _require_no_checkpoints(domain, seen)
        work.begin("Taking the snapshot")
        domain.snapshotCreateXML(mapping.snapshot_xml(work.order.name, work.order.key), 0)
    elif mapping.snapshot_key(there.getXMLDesc()) != work.order.key:
        raise Conflict(f"Machine {seen.name!r} already has a snapshot {work.order.name!r}. Choose another name.")
    return work.done(SnapshotTaken(work.order.name))


def revert(work: Work[RevertSnapshot]) -> Outcome:
    """A second attempt finds the order's key in the machine's mark and does not throw away what happened since."""
    work.begin("Looking at the machine")
    domain, seen = work.ours(work.order.machine)
    if seen.reverted_by == work.order.key:
        return work.done()
    snapshot = _find(domain, work.order.snapshot)
    if snapshot is None:
        raise NotFound(f"Machine {seen.name!r} has no snapshot {work.order.snapshot!r}.")
    _require_no_checkpoints(domain, seen)
    volumes.require_no_clones(work, seen)
    work.begin("Reverting to the snapshot")
    domain.revertToSnapshot(snapshot, 0)
    # What a revert brings back is the definition of that time, with the mark of that time.
    mark = mapping.mark_xml(work.order.machine.stamp, mapping.Role.MACHINE, reverted=work.order.key)
    work.begin("Noting the revert")
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark, "deskyard", mapping.NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
    )
    return work.done()


def delete(work: Work[DeleteSnapshot]) -> Outcome:
    work.begin("Looking at the machine")
    domain, _ = work.ours(work.order.machine)
    snapshot = _find(domain, work.order.snapshot)
    if snapshot is not None:
        work.begin("Deleting the snapshot")
        snapshot.delete(0)
    return work.done()


def _find(domain: Domain, name: str) -> Any | None:
    try:
        return domain.snapshotLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT:
            return None
        raise


def checkpoints(domain: Domain) -> list[Any]:
    """A machine that is replicated incrementally has some. Drivers without checkpoints have none."""
    try:
        found: list[Any] = domain.listAllCheckpoints()
        return found
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return []
        raise


def _require_no_checkpoints(domain: Domain, seen: mapping.Domain) -> None:
    if checkpoints(domain):
        raise Unsupported(f"Machine {seen.name!r} was left as it is. {REPLICATED}")
