"""Machines that are off and whose disks are being read: QEMU has them open, and the guest's processors never run.

KVM reads disks through a running QEMU, which alone knows what is in an overlay, keeps what changed, and serves a point
that stays the same whatever is written meanwhile. So a machine that is off is started paused for its point and switched
off again by `disks.release`. To everybody it is off as before:

- It is marked in its live metadata, which goes with the QEMU that bears it. The mark is set in the definition just
  before the start and taken out just after it, so that no crash leaves a held machine unmarked.
- Whoever switches it on through us ends the reading: its QEMU is ended and the machine starts as ever. That point fails
  (`SourceLost`) and is taken again later.
- Somebody else may resume it behind our back. The point then stays what it was, as with a machine that runs, and the
  machine is no longer ours to switch off: held is only one whose guest has never read or written a disk. (An agent that
  comes up while a point is held stays silent for libvirt 9.0 until it comes up again.)

The other way, a copy of the disk that the host makes (`virStorageVolCreateXMLFrom`), takes room for all of it, tells
nothing of what changed, and nobody could start the machine as long as that lasts.
"""

from __future__ import annotations

from typing import Any

import libvirt

from connectors.errors import Busy
from connectors.kvm import mapping

Domain = Any

ELEMENT = libvirt.VIR_DOMAIN_METADATA_ELEMENT
LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG


def hold(domain: Domain) -> None:
    """Start a machine that is off without letting it run. Raises `Busy` if somebody else started it meanwhile."""
    _mark(domain, "<held/>", CONFIG)
    try:
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    except libvirt.libvirtError as error:
        if not domain.isActive():
            raise
        raise Busy(f"Machine {domain.name()!r} was switched on meanwhile. Its point is taken again.") from error
    finally:
        _unmark(domain, CONFIG)


def is_held(domain: Domain) -> bool:
    """Whether it is off for everybody but us."""
    try:
        if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED or not _is_marked(domain):
            return False
        # All disks together. What a point's reader reads does not count here, only the guest's own doing.
        reads, _, writes, *_ = domain.blockStats("")
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return False  # it was just switched off
        raise
    return bool(reads == 0 and writes == 0)


def let_go(domain: Domain) -> None:
    """Off again, if it is held; otherwise nothing is left of the mark. Idempotent.

    QEMU ends by itself and so keeps in the disks what it knows of changes. Raises `Busy` if it does not end in time.
    """
    if is_held(domain):
        try:
            domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
        except libvirt.libvirtError as error:
            if domain.isActive():
                raise Busy(f"The reading of {domain.name()!r} does not end. It is tried again.") from error
    if domain.isActive() and _is_marked(domain):
        _unmark(domain, LIVE)
    if mapping.read_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).is_marked_held:
        _unmark(domain, CONFIG)


def _is_marked(domain: Domain) -> bool:
    return mapping.read_domain(domain.XMLDesc()).is_marked_held


def _mark(domain: Domain, element: str | None, where: int) -> None:
    domain.setMetadata(ELEMENT, element, "deskyard-held", mapping.HELD_NAMESPACE, where)


def _unmark(domain: Domain, where: int) -> None:
    """Fine too if it was just switched off or removed."""
    try:
        _mark(domain, None, where)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise
