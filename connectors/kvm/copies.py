"""Full copies of disks, which take minutes and outlive the process that asked for them.

libvirt makes such a copy under its final name and says nowhere whether one that stands is whole: after a crash of the
daemon in mid-copy a torn file looks like a good one. So a *mark* is set before the copy begins: an ephemeral libvirt
secret, which lives in the daemon's memory alone. If the volume stands, is not being written, and the mark is still
there, then the daemon has lived through the copy, and since it removes what fails, the copy is whole. Without the mark
it is made again.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import libvirt

from connectors.kvm import mapping, volumes
from connectors.kvm.work import Work


class StillCopying(Exception):
    """The hypervisor is still at it, on behalf of an earlier attempt: ask again later."""


def ensure(work: Work[Any], pool: volumes.Pool, name: str, base: volumes.Volume) -> volumes.Volume:
    """A whole copy of `base` under that name. Raises `StillCopying`."""
    work.begin("Copying the disk")
    there = volumes.find_volume(pool, name)
    if there is not None:
        if is_being_written(work, there):
            raise StillCopying
        if _mark(work, name) is not None:
            return there
        there.delete()
    _set_mark(work, name)
    return pool.createXMLFrom(mapping.copy_xml(name, int(base.info()[1])), base, 0)


def forget(work: Work[Any], key: str = "") -> None:
    """Remove the marks of the copies of this order, or of the order of that key."""
    for secret in _all_secrets(work):
        if secret.usageID().startswith(_usage(key or work.order.key, "")):
            secret.undefine()


def is_being_written(work: Work[Any], volume: volumes.Volume) -> bool:
    """libvirt refuses to open a volume that is being allocated; any other answer means it is not."""
    stream = work.connection.newStream()
    try:
        volume.download(stream, 0, 1)
    except libvirt.libvirtError as error:
        if "still being allocated" in str(error):
            return True
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:  # a driver without bytes has nothing half written
            return False
        raise
    stream.abort()
    return False


def _usage(key: str, name: str) -> str:
    return f"deskyard copy {key} {name}"


def _mark(work: Work[Any], name: str) -> Any | None:
    try:
        return work.connection.secretLookupByUUIDString(_mark_uuid(work, name))
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_SECRET, libvirt.VIR_ERR_NO_SUPPORT):
            return None
        raise


def _mark_uuid(work: Work[Any], name: str) -> str:
    return str(uuid5(UUID(work.order.key), name))


def _set_mark(work: Work[Any], name: str) -> None:
    try:
        work.connection.secretDefineXML(mapping.copy_mark_xml(_mark_uuid(work, name), _usage(work.order.key, name)))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # then a copy whose answer is lost is made again
            raise


def _all_secrets(work: Work[Any]) -> list[Any]:
    try:
        found: list[Any] = work.connection.listAllSecrets(libvirt.VIR_CONNECT_LIST_SECRETS_EPHEMERAL)
        return found
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:  # then no copy can have been marked
            return []
        raise
