"""Consistent points of machines' disks, read over NBD: libvirt's pull backup with checkpoints.

    take      0. a machine that is off is started without letting it run: see `held`
              1. what earlier points left is removed, all checkpoints but the wished one included
              2. the guest's file systems are frozen, if its agent answers
              3. one call begins the backup job and makes the new checkpoint, in the same moment: nothing falls between
                 two points (libvirt: docs/formatbackup.rst, formatcheckpoint.rst)
              4. the guest goes on; QEMU keeps what it overwrites in a scratch file beside the disk
    read      over the job's NBD server: what the bitmap of the wished checkpoint marks, else all of the disk
    release   ends the job (in pull mode that is its normal end), removes scratch files and checkpoints; a machine that
              was off is so again

QEMU listens on a UNIX socket in a folder that libvirt makes for each machine, where it keeps the agent's channel: it
may write in few other places. A mover reaches it on the same machine, or through `ssh … nc -U`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

import libvirt
from lxml import etree

from connectors.base import MachineRef, Order
from connectors.errors import Busy, ConnectorError, NotFound, Unsupported
from connectors.kvm import held, mapping, names, standing
from connectors.kvm.client import Endpoint
from connectors.kvm.settings import KvmSettings
from connectors.kvm.snapshots import checkpoints
from connectors.kvm.standing import StandingPoint
from connectors.kvm.volumes import clones_of, delete_volume
from connectors.kvm.work import Domain, Work, find_meant
from connectors.replication import Bookmark, Consistency, PointWish
from disks.base import Source
from disks.vault.points import Configuration, Drive, Nic

if TYPE_CHECKING:
    from disks.nbd import Export

SOCKET, SCRATCH = "point", "scratch"
CHECKPOINT = "checkpoint"
"""Of a bookmark: the name of libvirt's checkpoint."""
FREEZE_S = 5.0
JOB_END_S = 10.0


@dataclass(frozen=True, slots=True)
class KvmPoint:
    """A backup job that goes on until it is released."""

    name: str
    configuration: Configuration
    taken_at: datetime
    consistency: Consistency
    bookmark: Bookmark | None
    whole: str
    export: Export
    """Of the first disk; the others have names of their own."""

    def open(self, disk: str) -> Source:
        """Raises `disks.errors.SourceLost`."""
        if disk not in {one.name for one in self.configuration.disks}:
            raise NotFound(f"The point of {self.name!r} holds no disk {disk!r}.")
        bitmap = "" if self.whole else f"backup-{disk}"
        nbd, export = _nbd(), self.export
        source: Source = nbd.NbdSource(nbd.Export(disk, export.socket, command=export.command), bitmap=bitmap)
        return source

    def close(self) -> None:
        """Every source closes its own connection."""


# --- taking ----------------------------------------------------------------------------------------------------------


def take(work: Work[Order], endpoint: Endpoint, wish: PointWish) -> KvmPoint | StandingPoint:
    """Raises `NotFound`, `Conflict`, `Unsupported`, `Busy`, libvirtError. On failure a machine that was off is so
    again, unless the line is dead: then `release` sees to it."""
    _nbd()
    found = find_meant(work.connection, wish.machine)
    if found is None:
        raise NotFound(f"Machine {wish.machine.id} is not on {work.settings.endpoint} any more.")
    domain, seen = found
    _require_no_snapshots(domain, seen)
    chosen = _chosen(seen, wish.disks)
    if not domain.isActive():
        _require_not_suspended(domain, seen)
        if clones_of(work, seen):
            configuration = _configuration(domain, domain.XMLDesc(0), seen, chosen)
            return standing.point_of(seen.name, seen.uuid, configuration, chosen, endpoint, work.surroundings.workdir)
        held.hold(domain)
    try:
        return _begin(domain, seen, chosen, work.settings, endpoint, wish)
    except (libvirt.libvirtError, ConnectorError):
        with suppress(libvirt.libvirtError, ConnectorError):
            held.let_go(domain)
        raise


def _begin(
    domain: Domain,
    seen: mapping.Domain,
    chosen: Sequence[mapping.Disk],
    settings: KvmSettings,
    endpoint: Endpoint,
    wish: PointWish,
) -> KvmPoint:
    is_off = held.is_held(domain)
    live = domain.XMLDesc(0)
    release_all(domain, _checkpoints_of((wish.since, *wish.keep)))
    if _has_job(domain):  # libvirt would wait half a minute for it to end
        raise Busy(f"Machine {seen.name!r} is being backed up by somebody else. It is tried again.")
    whole = _why_whole(domain, chosen, wish.since)
    name = f"{names.PREFIX}{names.uuid_of(wish.key)}"
    socket = _socket(mapping.parse(live), seen)
    way = () if settings.transport == "local" or settings.uri else endpoint.ssh_command("nc", "-U", str(socket))
    checkpoint = checkpoint_xml(name, chosen, seen.disks)
    is_frozen = not is_off and _freeze(domain)
    try:
        taken_at = datetime.now(UTC)
        try:
            since = "" if whole else _checkpoint_of(wish.since)
            domain.backupBegin(backup_xml(chosen, seen.disks, str(socket), wish, since), checkpoint, 0)
        except libvirt.libvirtError as error:
            if whole or error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT:
                raise
            whole = "The host lost track of what changed: the machine was cut off from its power."
            taken_at = datetime.now(UTC)
            domain.backupBegin(backup_xml(chosen, seen.disks, str(socket), wish, ""), checkpoint, 0)
    finally:
        if is_frozen:
            _thaw(domain)
    return KvmPoint(
        name=seen.name,
        configuration=_configuration(domain, live, seen, chosen),
        taken_at=taken_at,
        consistency=_consistency(is_off=is_off, is_frozen=is_frozen),
        bookmark=Bookmark({CHECKPOINT: name}),
        whole=whole,
        export=_nbd().Export(chosen[0].target, Path(socket), command=way),
    )


def _consistency(*, is_off: bool, is_frozen: bool) -> Consistency:
    if is_off:
        return Consistency.OFF
    return Consistency.GUEST if is_frozen else Consistency.CRASH


def _nbd() -> ModuleType:
    """libnbd comes from Debian alone, and desktops run without it. Raises `Unsupported`."""
    try:
        from disks import nbd
    except ImportError as error:
        raise Unsupported(
            "Disks cannot be read on this machine: libnbd is missing. Install it: apt-get install python3-libnbd."
        ) from error
    return nbd


def require_way(settings: KvmSettings) -> None:
    """Raises `Unsupported` if disks of this host cannot be read from here."""
    if settings.transport in ("tls", "tcp") and not settings.uri:
        raise Unsupported(
            f"Disks of {settings.endpoint} cannot be read over {settings.transport.upper()}. Register the host with "
            "SSH to replicate its machines."
        )


def _require_no_snapshots(domain: Domain, seen: mapping.Domain) -> None:
    """Raises `Unsupported`."""
    if domain.hasCurrentSnapshot() or domain.snapshotNum():
        raise Unsupported(
            f"Machine {seen.name!r} has snapshots, and KVM cannot mix those with replication. Delete them first."
        )


def _require_not_suspended(domain: Domain, seen: mapping.Domain) -> None:
    """Raises `Unsupported`."""
    if domain.hasManagedSaveImage():
        raise Unsupported(
            f"Machine {seen.name!r} is suspended: what its disks lack lies in its saved memory. Resume it or switch it "
            "off."
        )


def _chosen(seen: mapping.Domain, wanted: Sequence[str]) -> list[mapping.Disk]:
    """The disks to be read. Raises `NotFound`, `Unsupported` for one whose format cannot hold a bitmap."""
    written = [disk for disk in seen.disks if disk.is_written]
    if missing := set(wanted) - {disk.target for disk in written}:
        raise NotFound(f"Machine {seen.name!r} has no disk {min(missing)!r}. Choose among its disks anew.")
    chosen = [disk for disk in written if not wanted or disk.target in wanted]
    if not chosen:
        raise Unsupported(f"Machine {seen.name!r} has no disk to replicate.")
    for disk in chosen:
        if disk.format != "qcow2":
            raise Unsupported(f"Disk {disk.target} of {seen.name!r} is {disk.format}: only qcow2 keeps what changed.")
    return chosen


def _why_whole(domain: Domain, chosen: Sequence[mapping.Disk], since: Bookmark | None) -> str:
    if since is None:
        return "It is the first point."
    name = _checkpoint_of(since)
    there = next((one for one in checkpoints(domain) if one.getName() == name), None)
    if there is None:
        return "The machine does not remember the last point any more."
    known = mapping.parse(there.getXMLDesc())
    held = {disk.get("name") for disk in known.iterfind("./disks/disk") if disk.get("checkpoint") == "bitmap"}
    if missing := [disk.target for disk in chosen if disk.target not in held]:
        return f"The last point did not hold disk {missing[0]}."
    return ""


def _checkpoints_of(bookmarks: Iterable[Bookmark | None]) -> set[str]:
    return {_checkpoint_of(bookmark) for bookmark in bookmarks} - {""}


def _checkpoint_of(bookmark: Bookmark | None) -> str:
    return str(bookmark.data.get(CHECKPOINT, "")) if bookmark is not None else ""


def _socket(live: mapping.Element, seen: mapping.Domain) -> PurePosixPath:
    """In the machine's own folder. Raises `Unsupported`."""
    for source in live.iterfind("./devices/channel/source[@path]"):
        return PurePosixPath(source.get("path") or "").parent / SOCKET
    raise Unsupported(
        f"Machine {seen.name!r} has no channel for a guest agent, and with it no folder in which QEMU may listen. Add "
        "a channel org.qemu.guest_agent.0 to it."
    )


def _freeze(domain: Domain) -> bool:
    """Whether the guest's file systems are frozen now. One without an agent, or whose agent is slow, goes on."""
    try:
        domain.agentSetResponseTimeout(int(FREEZE_S), 0)
        domain.fsFreeze(None, 0)
    except libvirt.libvirtError:
        _thaw(domain)
        return False
    return True


def _thaw(domain: Domain) -> None:
    with suppress(libvirt.libvirtError):
        domain.fsThaw(None, 0)


def _has_job(domain: Domain) -> bool:
    with suppress(libvirt.libvirtError):
        domain.backupGetXMLDesc(0)
        return True
    return False


def _configuration(domain: Domain, live: str, seen: mapping.Domain, chosen: Sequence[mapping.Disk]) -> Configuration:
    root = mapping.parse(live)
    boot, loader = root.find("./os"), root.find("./os/loader")
    is_uefi = (boot is not None and boot.get("firmware") == "efi") or (
        loader is not None and loader.get("type") == "pflash"
    )
    # "scsi" alone may be any of half a dozen controllers, for each of which a system needs another driver.
    controllers = mapping.scsi_controllers(live)
    return Configuration(
        vcpus=seen.vcpus,
        memory_mib=seen.memory_mib,
        firmware="uefi" if is_uefi else "bios",
        secure_boot=loader is not None and loader.get("secure") == "yes",
        nics=tuple(Nic(nic.model, nic.mac, nic.network) for nic in seen.nics),
        disks=tuple(
            Drive(disk.target, controllers.get(disk.target) or disk.bus, int(domain.blockInfo(disk.target)[0]))
            for disk in chosen
        ),
    )


# --- releasing -------------------------------------------------------------------------------------------------------


def release(connection: Any, machine: MachineRef, keep: Sequence[Bookmark]) -> None:
    """Nothing of ours stays on the machine but the checkpoints to keep. A machine that is gone is success."""
    found = find_meant(connection, machine)
    if found is not None:
        release_all(found[0], _checkpoints_of(keep), is_last=True)
        held.let_go(found[0])


def release_all(domain: Domain, keep: Set[str], *, is_last: bool = False) -> None:
    """Job, scratch files, checkpoints but `keep`. Idempotent. Jobs and checkpoints of others are left alone.

    `is_last`: nobody comes soon who would find what a mover left that died after the job's end. Raises `Busy` if the
    job does not end in time.
    """
    had_job = _end_job(domain)
    _remove_scratch(domain, is_fresh=had_job or is_last)
    ours_ = [one for one in checkpoints(domain) if one.getName().startswith(names.PREFIX) and one.getName() not in keep]
    for checkpoint in _newest_first(ours_):
        _delete_checkpoint(domain, checkpoint)


def _delete_checkpoint(domain: Domain, checkpoint: Any) -> None:
    """One of a machine that is off can only be forgotten: its bitmap stays in the disk. So can one whose bitmap never
    came into the disk, as the machine was cut off from its power."""
    if domain.isActive():
        try:
            checkpoint.delete(0)
            return
        except libvirt.libvirtError as error:
            if not _is_without_bitmap(error):
                raise
    checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)


def _is_without_bitmap(error: libvirt.libvirtError) -> bool:
    """As libvirt 9.0 says it; it has a code of its own for some cases alone."""
    is_vague = error.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR
    return error.get_error_code() == libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT or (is_vague and "bitmap" in str(error))


def _newest_first(found: Sequence[Any]) -> list[Any]:
    def made_at(checkpoint: Any) -> int:
        return int(mapping.parse(checkpoint.getXMLDesc()).findtext("creationTime") or 0)

    return sorted(found, key=made_at, reverse=True)


def _end_job(domain: Domain) -> bool:
    """Whether there was one of ours, which its scratch files tell. Raises `Busy` if it does not end in time."""
    if not domain.isActive():
        return False
    try:
        job = mapping.parse(domain.backupGetXMLDesc(0))
    except libvirt.libvirtError:
        return False
    scratch = [PurePosixPath(file.get("file") or "").name for file in job.iterfind("./disks/disk/scratch")]
    if not scratch or not all(_is_scratch(domain, name) for name in scratch):
        return False
    domain.abortJob()
    until = time.monotonic() + JOB_END_S
    while _has_job(domain):
        if time.monotonic() > until:
            raise Busy(f"The last point of {domain.name()!r} does not end. It is tried again.")
        time.sleep(0.05)
    return True


def _is_scratch(domain: Domain, name: str) -> bool:
    return name.startswith(names.volume_prefix(domain.UUIDString())) and name.endswith(f".{SCRATCH}")


def _remove_scratch(domain: Domain, *, is_fresh: bool) -> None:
    """QEMU leaves them behind, and so does a mover that dies between the job's end and here. A pool does not know the
    file of a job before it has looked again since that began."""
    for pool in domain.connect().listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        if is_fresh:
            pool.refresh()
        for volume in pool.listAllVolumes():
            if _is_scratch(domain, volume.name()):
                delete_volume(volume)


# --- what libvirt is told --------------------------------------------------------------------------------------------


def backup_xml(
    chosen: Sequence[mapping.Disk], disks: Sequence[mapping.Disk], socket: str, wish: PointWish, since: str
) -> str:
    """The job: the chosen disks are served, at `since` only what changed after that checkpoint is marked."""
    root = etree.Element("domainbackup", mode="pull")
    if since:
        etree.SubElement(root, "incremental").text = since
    etree.SubElement(root, "server", transport="unix", socket=socket)
    listed = etree.SubElement(root, "disks")
    for disk in disks:
        if disk not in chosen:
            etree.SubElement(listed, "disk", name=disk.target, backup="no")
            continue
        served = etree.SubElement(listed, "disk", name=disk.target, backup="yes", type="file")
        if since:
            served.set("backupmode", "incremental")
        name = names.volume_name(wish.machine.id, wish.key, disk.target, SCRATCH)
        etree.SubElement(served, "scratch", file=str(PurePosixPath(disk.path).parent / name))
    return etree.tostring(root, encoding="unicode")


def checkpoint_xml(name: str, chosen: Sequence[mapping.Disk], disks: Sequence[mapping.Disk]) -> str:
    root = etree.Element("domaincheckpoint")
    etree.SubElement(root, "name").text = name
    listed = etree.SubElement(root, "disks")
    for disk in disks:
        etree.SubElement(listed, "disk", name=disk.target, checkpoint="bitmap" if disk in chosen else "no")
    return etree.tostring(root, encoding="unicode")
