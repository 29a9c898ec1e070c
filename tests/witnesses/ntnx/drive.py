"""Drives a Prism Central by Nutanix's own client libraries: list, get, clone, power on, points, images, delete.

Arguments: address, port, user, template id. The password stands on standard input. Prints what it saw, as JSON. Runs in
the witness's own environment, over plain HTTP.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any


def client(name: str, address: str, port: str, user: str, password: str) -> Any:
    package = import_module(f"ntnx_{name}_py_client")
    how = package.Configuration()
    how.scheme, how.host, how.port, how.username, how.password = "http", address, int(port), user, password
    how.max_retry_attempts, how.backoff_factor = 1, 0
    how.download_directory = tempfile.gettempdir()
    return package, package.ApiClient(configuration=how)


def drive(address: str, port: str, user: str, template: str, password: str) -> dict[str, Any]:
    vmm, vmm_client = client("vmm", address, port, user, password)
    prism, prism_client = client("prism", address, port, user, password)
    cluster, cluster_client = client("clustermgmt", address, port, user, password)
    networking, networking_client = client("networking", address, port, user, password)
    machines, tasks = vmm.VmApi(vmm_client), prism.TasksApi(prism_client)
    points = vmm.VmRecoveryPointsApi(vmm_client)
    clusters = cluster.ClustersApi(cluster_client)

    def finished(answer: Any) -> Any:
        for _ in range(200):
            task = tasks.get_task_by_id(answer.data.ext_id).data
            if task.status in ("SUCCEEDED", "FAILED"):
                return task
            time.sleep(0.05)
        raise TimeoutError(answer.data.ext_id)

    def etag(id: str) -> str:
        found: str = vmm_client.get_etag(machines.get_vm_by_id(id))
        return found

    seen: dict[str, Any] = {
        "clusters": [[one.name, one.config.cluster_function] for one in clusters.list_clusters().data],
        "hosts": [one.host_name for one in clusters.list_hosts().data],
        "containers": [one.name for one in cluster.StorageContainersApi(cluster_client).list_storage_containers().data],
        "subnets": [one.name for one in networking.SubnetsApi(networking_client).list_subnets().data],
        "machines": [one.name for one in machines.list_vms(_limit=100).data],
    }
    body = (
        vmm.AhvConfigCloneOverrideParams(name="by-the-vendor")
        if hasattr(vmm, "AhvConfigCloneOverrideParams")
        else (vmm.CloneOverrideParams(name="by-the-vendor"))
    )
    try:
        machines.clone_vm(template, body)
        seen["clone without If-Match"] = "accepted"
    except vmm.rest.ApiException as error:
        seen["clone without If-Match"] = error.status
    task = finished(machines.clone_vm(template, body, if_match=etag(template)))
    seen["clone"] = task.status
    made = next(one.ext_id for one in task.entities_affected if one.ext_id != template)
    seen["clone's etag"] = bool(etag(made))
    seen["power-on"] = finished(machines.power_on_vm(made, if_match=etag(made))).status
    machine = machines.get_vm_by_id(made).data
    seen["machine"] = [
        machine.name,
        machine.power_state,
        len(machine.disks),
        type(machine.disks[0].backing_info).__name__,
    ]
    seen |= drive_replicas(
        vmm, vmm_client, finished, etag, made, client("dataprotection", address, port, user, password)
    )
    point = vmm.VmRecoveryPoint(name="by-the-vendor", vm_ext_id=made)
    seen["point"] = finished(points.create_vm_recovery_point(point)).status
    seen["points"] = [one.name for one in points.list_vm_recovery_points().data]
    seen["delete"] = finished(machines.delete_vm_by_id(made, if_match=etag(made))).status
    try:
        machines.get_vm_by_id(made)
        seen["gone"] = "still there"
    except vmm.rest.ApiException as error:
        seen["gone"] = error.status
    seen["unknown"] = {
        "machine": sorted(machine.get_unknown_fields()) if hasattr(machine, "get_unknown_fields") else [],
    }
    return seen


def drive_replicas(
    vmm: Any, vmm_client: Any, finished: Any, etag: Any, machine: str, protection: tuple[Any, Any]
) -> dict[str, Any]:
    """A recovery point is restored beside the machine, a disk of that becomes an image, the image a file and another
    machine."""
    package, protection_client = protection
    machines, images, points = (
        vmm.VmApi(vmm_client),
        vmm.ImagesApi(vmm_client),
        package.RecoveryPointsApi(protection_client),
    )
    part = package.VmRecoveryPoint(vm_ext_id=machine)
    if hasattr(package, "DataprotectionConfigVmRecoveryPoint"):
        part = package.DataprotectionConfigVmRecoveryPoint(vm_ext_id=machine)
    task = finished(points.create_recovery_point(package.RecoveryPoint(name="kept", vm_recovery_points=[part])))
    id = task.completion_details[0].value
    kept = points.get_recovery_point_by_id(id).data
    vm_part = kept.vm_recovery_points[0].ext_id
    disks = points.get_vm_recovery_point_by_id(recoveryPointExtId=id, extId=vm_part).data.disk_recovery_points
    override = package.VmRecoveryPointRestoreOverride(
        vm_recovery_point_ext_id=vm_part, vm_override_spec=package.AhvVmOverrideSpec(name="beside")
    )
    spec = package.RecoveryPointRestorationSpec(vm_recovery_point_restore_overrides=[override])
    restored = finished(points.restore_recovery_point(id, spec)).completion_details[0].value
    beside = machines.get_vm_by_id(restored).data
    source = vmm.VmDiskSource(ext_id=beside.disks[0].backing_info.disk_ext_id)
    image = finished(images.create_image(vmm.Image(name="image", type="DISK_IMAGE", source=source)))
    image_id = image.entities_affected[0].ext_id
    size = images.get_image_by_id(image_id).data.size_bytes
    path = Path(images.get_file_by_image_id(image_id).to_dict()["data"]["path"])
    seen = {
        "restored": [beside.name, beside.power_state, beside.num_sockets],
        "disks kept": len(disks),
        "file is the whole image": path.stat().st_size == size,
    }
    path.unlink()
    for gone in (images.delete_image_by_id(image_id), points.delete_recovery_point_by_id(id)):
        finished(gone)
    finished(machines.delete_vm_by_id(restored, if_match=etag(restored)))
    return seen


if __name__ == "__main__":
    where = dict(zip(("address", "port", "user", "template"), sys.argv[1:5], strict=True))
    json.dump(drive(**where, password=sys.stdin.readline().strip()), sys.stdout)
