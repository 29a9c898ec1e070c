"""Making and removing a machine on a stand-alone ESXi host, which has no CloneVM (it answers NotSupported).

All files of such a machine lie in a folder `deskyard-<uuid>` of their own, so a second attempt finds the first one's,
and deleting is: unregister the machine, delete that folder. vSphere's own Destroy is not used for them: it follows a
linked disk to its parent's files.

1. Link: the template gets a snapshot if it has none; the new machine's disk hangs from the disk of that snapshot,
   which nobody writes to any more.
2. Copy: the host copies each disk into the folder, then a machine is made around them.
"""

from __future__ import annotations

import time
from typing import Any

from connectors.errors import Conflict, NotFound, Unsupported
from connectors.esxi import mapping, names, soap, vcenter
from connectors.esxi.api import vim
from connectors.esxi.faults import VimFault
from connectors.esxi.plans import Plan
from connectors.esxi.work import VM, Vm, Waiting, Work, number

FOLDER, POOL, HOST, DATACENTER = "ha-folder-vm", "ha-root-pool", "ha-host", "ha-datacenter"
"""Every stand-alone host has these ids."""

SHAPE_PATHS = ("config.guestId", "config.version", "config.firmware", "config.bootOptions.efiSecureBootEnabled")
VMX = "deskyard.vmx"
COPY_S = 4 * 3600.0
"""How long a copy whose task nobody knows any more is waited for while the host still copies something."""


def build(work: Work[Any], plan: Plan) -> Waiting:
    """Take the next step, the last of which is to be raised. Raises `Waiting` for the others, or what is wrong."""
    require_host(work, plan.host)
    if plan.seed is not None and plan.seed.answer_file:
        raise Unsupported(
            f"Endpoint {work.endpoint} stands alone, and Sysprep answer files need a vCenter. Prepare the guest with "
            "cloudbase-init in the template, or use a vCenter."
        )
    template = vcenter.template_of(work, plan)
    sockets = vcenter.sockets_of(work, plan)
    point = vcenter.point_of(work, template, plan)
    disks = _disks_at(work, template, point)
    store = _store(work, plan, disks)
    folder = f"[{store}] {names.folder_of(names.uuid_of(work.order.key))}"
    if plan.linked:
        _ensure_folder(work, folder)
    else:
        _copy(work, disks, folder)
    shape = work.client.object_seen(VM, template.moid, SHAPE_PATHS, work.deadline)
    if shape is None:
        raise NotFound(f"Template {plan.template} is not on {work.endpoint} any more.")
    spec = _spec(work, plan, template, shape, disks, folder, sockets)
    return work.start(
        "Making the machine",
        lambda: work.object(vim.Folder, FOLDER).CreateVm(
            config=spec, pool=vim.ResourcePool(POOL), host=vim.HostSystem(HOST)
        ),
    )


def require_host(work: Work[Any], wanted: str | None) -> None:
    """Raises `NotFound`."""
    if wanted and wanted not in (HOST, POOL, "ha-compute-res"):
        raise NotFound(f"Host {wanted} is not behind {work.endpoint}: it stands alone.")


def _disks_at(work: Work[Any], template: Vm, point: str) -> tuple[mapping.Disk, ...]:
    """The template's disks as they are at the snapshot."""
    if not point:
        return template.devices.disks
    work.begin("Looking at the template's snapshot")
    seen = work.client.object_seen("VirtualMachineSnapshot", point, ("config.hardware.device",), work.deadline)
    found = mapping.devices(seen.values.get("config.hardware.device")).disks if seen else ()
    if not found:
        raise NotFound(f"The snapshot of template {template.name!r} is gone.")
    return found


def _store(work: Work[Any], plan: Plan, disks: tuple[mapping.Disk, ...]) -> str:
    """Name of the datastore for the new machine. Raises `NotFound`."""
    if not plan.storage:
        return mapping.split_path(disks[0].file)[0]
    seen = work.client.object_seen("Datastore", plan.storage, ("name",), work.deadline)
    if seen is None:
        raise NotFound(f"Storage {plan.storage} is not on {work.endpoint}.")
    return names.from_wire(seen.text("name"))


def _copy(work: Work[Any], disks: tuple[mapping.Disk, ...], folder: str) -> None:
    """Copy the next disk that has not been copied. Returns when all have been.

    A copy that is not in the receipt, or whose task the host has forgotten, cannot be told from half of one: the folder
    is emptied, and it is begun anew.
    """
    copying = number(work.receipt, "copying")
    if copying is None or work.has_forgotten_task:
        work.receipt.pop("copying", None)
        _make_folder(work, folder)
        copying = -1
    index = int(copying) + 1
    if index >= len(disks):
        return
    manager = work.manager(vim.VirtualDiskManager, "virtualDiskManager")
    datacenter = vim.Datacenter(DATACENTER)
    spec = vim.VirtualDiskManager.VirtualDiskSpec(diskType="thin", adapterType="lsiLogic")
    raise work.start(
        "Copying the disk",
        lambda: manager.CopyVirtualDisk(
            sourceName=disks[index].file, sourceDatacenter=datacenter, destName=f"{folder}/disk-{index}.vmdk",
            destDatacenter=datacenter, destSpec=spec, force=False,
        ),
        copying=index,
    )  # fmt: skip


def _ensure_folder(work: Work[Any], folder: str) -> None:
    work.begin("Making the folder")
    try:
        work.manager(vim.FileManager, "fileManager").MakeDirectory(
            name=folder, datacenter=vim.Datacenter(DATACENTER), createParentDirectories=False
        )
    except VimFault as fault:
        if not fault.is_a("FileAlreadyExists", "AlreadyExists"):
            raise
    work.receipt["began"] = True


def _make_folder(work: Work[Any], folder: str) -> None:
    """An empty folder. Raises `Waiting` while the rest of an earlier attempt is being removed, or still at work."""
    work.begin("Making the folder")
    files = work.manager(vim.FileManager, "fileManager")
    datacenter = vim.Datacenter(DATACENTER)
    try:
        files.MakeDirectory(name=folder, datacenter=datacenter, createParentDirectories=False)
        work.receipt["began"] = True
        return
    except VimFault as fault:
        if not fault.is_a("FileAlreadyExists", "AlreadyExists"):
            raise
    since = number(work.receipt, "since_copy")
    if since is None:
        since = time.time()
        work.receipt["since_copy"] = since
    if time.time() - since < COPY_S and _is_copying(work):
        work.step = "Waiting for an earlier attempt"
        raise Waiting(poll_after_s=2.0)
    raise work.start(
        "Removing the rest of an earlier attempt",
        lambda: files.DeleteFile(name=folder, datacenter=datacenter),
    )


def _is_copying(work: Work[Any]) -> bool:
    """Whether the host copies a disk right now: perhaps the one of an earlier attempt."""
    manager = work.service.id("taskManager")
    seen = work.client.object_seen("TaskManager", manager, ("recentTask",), work.deadline)
    recent = soap.references(seen.values.get("recentTask")) if seen else []
    paths = ("info.descriptionId", "info.state")
    return any(
        task.text("info.descriptionId").endswith("copyVirtualDisk") and task.text("info.state") in ("running", "queued")
        for task in work.client.objects("Task", recent, paths, work.deadline).values()
    )


def _spec(
    work: Work[Any],
    plan: Plan,
    template: Vm,
    shape: soap.Seen,
    disks: tuple[mapping.Disk, ...],
    folder: str,
    sockets: Any,
) -> Any:
    devices = template.devices
    made = [
        mapping.new_disk(disk, devices.controllers, f"{folder}/disk-{index}.vmdk", disk.file if plan.linked else "")
        for index, disk in enumerate(disks)
    ]
    options = mapping.stamp_options(work.stamp) | mapping.seed_options(plan.seed, work.order.key)
    spec = vim.vm.ConfigSpec(
        name=names.to_wire(plan.name),
        instanceUuid=names.uuid_of(work.order.key),
        guestId=shape.text("config.guestId") or "otherGuest64",
        numCPUs=plan.vcpus or template.seen.number("config.hardware.numCPU"),
        memoryMB=plan.memory_mib or template.seen.number("config.hardware.memoryMB"),
        files=vim.vm.FileInfo(vmPathName=f"{folder}/{VMX}"),
        extraConfig=mapping.options({key: value for key, value in options.items() if value}),
        deviceChange=[
            *mapping.new_controllers(devices.controllers, disks),
            *made,
            *mapping.new_nics(devices.nics, sockets),
        ],
        **plan.shares(),
    )
    if version := shape.text("config.version"):
        spec.version = version
    if firmware := shape.text("config.firmware"):
        spec.firmware = firmware
    if shape.text("config.bootOptions.efiSecureBootEnabled") == "true":
        spec.bootOptions = vim.vm.BootOptions(efiSecureBootEnabled=True)
    return spec


# --- removing --------------------------------------------------------------------------------------------------------


def unregister(work: Work[Any], vm: Vm) -> None:
    """Forget the machine if its files lie in our folder; else have the host delete it, if that harms nobody."""
    home = mapping.split_path(vm.seen.text("config.files.vmPathName"))[1]
    if home == names.folder_of(vm.uuid):
        work.begin("Deleting the machine")
        try:
            work.vm(vm).Unregister()
        except VimFault as fault:
            if not fault.is_a("ManagedObjectNotFound"):
                raise
        return
    for disk in vm.devices.disks:
        if disk.parent and mapping.split_path(disk.parent)[1] != home:
            raise Unsupported(
                f"Machine {vm.name!r} hangs from another machine's disk, which the host might delete with it. Delete "
                "it by hand."
            )
    raise work.start("Deleting the machine", work.vm(vm).Destroy)


def sweep(work: Work[Any], machine: str) -> None:
    """Delete the machine's folder on every datastore that has one. Raises `Waiting` until that is done."""
    folder = names.folder_of(machine)
    swept = [str(one) for one in work.receipt.get("swept") or ()]  # type: ignore[attr-defined]
    stores = _stores(work)
    if any(store not in swept for store in stores):
        _require_nobody_in(work, folder)
    files = work.manager(vim.FileManager, "fileManager")
    for store in stores:
        if store in swept:
            continue
        swept.append(store)
        work.receipt["swept"] = swept
        try:
            raise work.start(
                "Deleting the machine's files",
                lambda store=store: files.DeleteFile(  # type: ignore[misc]
                    name=f"[{store}] {folder}", datacenter=vim.Datacenter(DATACENTER)
                ),
            )
        except VimFault as fault:
            if not fault.is_a("FileNotFound"):
                raise
    work.receipt.pop("swept", None)


def _stores(work: Work[Any]) -> list[str]:
    """Names of the datastores that can be written to."""
    seen = work.client.object_seen("Datacenter", DATACENTER, ("datastore",), work.deadline)
    ids = soap.references(seen.values.get("datastore")) if seen else []
    found = work.client.objects("Datastore", ids, ("name", "summary.accessible"), work.deadline)
    return sorted(
        names.from_wire(store.text("name")) for store in found.values() if store.text("summary.accessible") == "true"
    )


def _require_nobody_in(work: Work[Any], folder: str) -> None:
    """Raises `Conflict` if a machine still lies there, or hangs from a disk that does."""
    # Not an older one of the same batch: the order's own machine may have been unregistered a moment ago.
    if user := work.shared.users.find(folder, time.monotonic(), work, lambda: _users(work)):
        raise Conflict(f"Machine {user!r} uses files of {folder!r}. Nothing was deleted.")


def _users(work: Work[Any]) -> dict[str, str]:
    """Folder -> name of a machine that has its definition, a disk or a disk's parent there."""
    there = work.client.object_seen("Folder", FOLDER, ("childEntity",), work.deadline)
    ids = soap.references(there.values.get("childEntity")) if there else []
    seen = work.client.objects(VM, ids, ("name", "config.files.vmPathName", "config.hardware.device"), work.deadline)
    found: dict[str, str] = {}
    for other in seen.values():
        files = [other.text("config.files.vmPathName")]
        for disk in mapping.devices(other.values.get("config.hardware.device")).disks:
            files += [disk.file, disk.parent]
        for file in files:
            folder, _, rest = file.partition("] ")[2].partition("/")
            if rest:
                found[folder] = other.text("name")
    return found
