"""Volumes of machines: making overlays, copies and seeds, and removing what was made, never what others use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import libvirt

from connectors.base import Order
from connectors.errors import Conflict, NotFound, Unsupported
from connectors.kvm import mapping, names
from connectors.kvm.work import Work

Pool = Any
Volume = Any


def require_no_clones(work: Work[Any], seen: mapping.Domain) -> None:
    """Raises `Conflict` if linked clones hang from an unstamped machine's disks: it serves as a template.

    Machines that we stamped are never cloned unless they were landed as templates, so only others are looked at.
    """
    if hanging := clones_of(work, seen):
        raise Conflict(
            f"Machine {seen.name!r} serves as a template: {hanging}. Nothing was done to it, since that would destroy "
            "them."
        )


def clones_of(work: Work[Any], seen: mapping.Domain) -> str:
    """Which linked clones hang from an unstamped machine or a template, in words; "" if none do."""
    if seen.stamp is not None and seen.role is not mapping.Role.TEMPLATE:
        return ""
    known = users(work)
    for disk in seen.disks:
        if others := known.get(disk.path, set()) - {seen.uuid}:
            return f"{len(others)} disks hang from {disk.path}"
    return ""


def find_pool(work: Work[Any], named: str) -> Pool:
    """A storage pool by uuid or name. Raises `NotFound`."""
    for lookup in (work.connection.storagePoolLookupByUUIDString, work.connection.storagePoolLookupByName):
        try:
            return lookup(named)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_INVALID_ARG):
                raise
    raise NotFound(f"There is no storage pool {named!r} on {work.settings.endpoint}.")


def find_network(work: Work[Any], named: str) -> str:
    """Name of a libvirt network given by uuid or name. Raises `NotFound`."""
    for lookup in (work.connection.networkLookupByUUIDString, work.connection.networkLookupByName):
        try:
            return str(lookup(named).name())
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_NO_NETWORK, libvirt.VIR_ERR_INVALID_ARG):
                raise
    raise NotFound(f"There is no network {named!r} on {work.settings.endpoint}.")


def find_volume(pool: Pool, name: str) -> Volume | None:
    try:
        return pool.storageVolLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        raise


def volume_of(work: Work[Any], disk: mapping.Disk) -> Volume:
    """The volume behind a template's disk. Raises `Unsupported` if it lies in no storage pool."""
    try:
        if disk.source == "volume":
            return work.connection.storagePoolLookupByName(disk.pool).storageVolLookupByName(disk.volume)
        return work.connection.storageVolLookupByPath(disk.path)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
            raise
        raise Unsupported(
            f"Disk {disk.target} of the template, {disk.path or disk.volume}, lies in no active storage pool of "
            f"{work.settings.endpoint}. Define a pool over its folder and refresh it."
        ) from error


def ensure_overlay(pool: Pool, name: str, base: Volume, base_format: str) -> Volume:
    """A linked copy of `base` under that name; one that an earlier attempt made is kept if it is whole."""
    capacity_bytes, base_path = int(base.info()[1]), base.path()
    there = find_volume(pool, name)
    if there is not None:
        if mapping.volume_backing(there.XMLDesc()) == base_path and int(there.info()[1]) == capacity_bytes:
            return there
        there.delete()
    try:
        return pool.createXML(mapping.overlay_xml(name, capacity_bytes, base_path, base_format))
    except libvirt.libvirtError as error:
        # Another attempt, thawed after a long sleep, may have made it in this very moment.
        there = find_volume(pool, name)
        if there is None or error.get_error_code() != libvirt.VIR_ERR_STORAGE_VOL_EXIST:
            raise
        return there


def ensure_upload(work: Work[Any], pool: Pool, name: str, content: bytes) -> Volume:
    """A raw volume with that content; whatever an earlier attempt left under the name is written over."""
    there = find_volume(pool, name)
    if there is not None and int(there.info()[1]) != len(content):
        there.delete()
        there = None
    volume = there if there is not None else pool.createXML(mapping.raw_volume_xml(name, len(content)))
    stream = work.connection.newStream()
    try:
        volume.upload(stream, 0, len(content))
        stream.sendAll(_feed, [memoryview(content)])
        stream.finish()
    except libvirt.libvirtError:
        _abort_quietly(stream)
        raise
    return volume


def _feed(_: object, wanted: int, rest: list[memoryview]) -> bytes:
    piece, rest[0] = bytes(rest[0][:wanted]), rest[0][wanted:]
    return piece


def _abort_quietly(stream: Any) -> None:
    try:
        stream.abort()
    except libvirt.libvirtError:
        return  # it has ended already


def made_for(work: Work[Any], machine: str) -> list[Volume]:
    """All volumes made for a machine, in every active pool, in use or left behind."""
    prefix = names.volume_prefix(machine)
    return [
        volume for pool in active_pools(work) for volume in pool.listAllVolumes() if volume.name().startswith(prefix)
    ]


def active_pools(work: Work[Any]) -> list[Pool]:
    pools: list[Pool] = work.connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    return pools


def require_unused(work: Work[Any], machine: str, disks: Sequence[mapping.Disk]) -> None:
    """Raises `Unsupported` if another machine or overlay uses a volume made for this machine, or `Conflict` if one of
    its disks cannot be deleted as its pool is not active."""
    for path in (disk.path for disk in disks if names.PREFIX in disk.path):
        for pool in work.connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE):
            if path.startswith(f"{mapping.pool_path(pool.XMLDesc())}/"):
                raise Conflict(f"Storage pool {pool.name()!r} holds {path} and is not active. Start it first.")
    for volume in made_for(work, machine):
        _require_unused(work, machine, volume.path())


def remove(work: Work[Any], machine: str, keep: frozenset[str] = frozenset()) -> None:
    """Delete the volumes made for a machine, except those to keep. Already gone is fine.

    Raises `Unsupported` for one that another machine or overlay uses.
    """
    for volume in made_for(work, machine):
        path = volume.path()
        if path in keep:
            continue
        _require_unused(work, machine, path)
        work.begin("Deleting the disks")
        delete_volume(volume)


def _require_unused(work: Work[Any], machine: str, path: str) -> None:
    """Data of whoever else uses the volume would be lost with it."""
    own = {
        user
        for user in users(work).get(path, set())
        if PurePosixPath(user).name.startswith(names.volume_prefix(machine))
    }
    if others := users(work).get(path, set()) - {machine} - own:
        raise Unsupported(
            f"Disk {path} is still used by {', '.join(sorted(others))}. It was left alone; remove those first."
        )


def delete_volume(volume: Volume) -> None:
    try:
        volume.delete()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
            raise


def users(work: Work[Order]) -> dict[str, set[str]]:
    """Path -> domains (uuid) and overlays (path) that name it."""
    with work.usage.lock:
        if not work.usage.is_fresh:
            work.usage.users = _read_users(work)
            work.usage.touch()
        return work.usage.users


def _read_users(work: Work[Order]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for domain in work.connection.listAllDomains():
        for path in _paths(domain):
            found.setdefault(path, set()).add(domain.UUIDString())
    for pool in active_pools(work):
        for volume in pool.listAllVolumes():
            if backing := _backing(volume):
                found.setdefault(backing, set()).add(volume.path())
    return found


def _paths(domain: Any) -> list[str]:
    try:
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return []
        raise
    return [disk.path for disk in mapping.read_domain(xml).disks if disk.path]


def _backing(volume: Volume) -> str:
    try:
        return mapping.volume_backing(volume.XMLDesc())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return ""
        raise
