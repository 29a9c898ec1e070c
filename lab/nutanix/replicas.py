"""What replication asks of Prism Central: recovery points, images, machines from a description."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lab.errors import WorldError
from lab.http import Response
from lab.nouns import Task
from lab.nutanix import building, images, recovery, views
from lab.nutanix.calls import ETAG, SECONDS, USUAL_S, Call, Refusal, json_answer, task_answer
from lab.nutanix.views import Json

if TYPE_CHECKING:
    from lab.nutanix.server import PrismServer


class Replicas:
    """Its part of one Prism Central."""

    def __init__(self, server: PrismServer) -> None:
        self._server = server
        self._world = server.world
        self.recovery = recovery.RecoveryPoints(server.world)
        self.images = images.Images(server.world)
        self.has_ranges = True
        """Whether images can be downloaded from the middle on."""
        self.breaks_late = False
        """Making a machine fails after it was made."""

    # --- machines -----------------------------------------------------------------------------------------------------

    def create(self, call: Call) -> Response:
        wanted, builder = call.body(), building.Builder(self._world, self.images)
        if found := builder.check(wanted):
            raise self._server.bad(call, *found)

        def act() -> None:
            machine = builder.make(wanted, (task.started_at or 0.0) + task.seconds + self._server.listed_late_s)
            task.marks["entities"] = [(views.VM_REL, machine.id)]
            if self.breaks_late:
                raise WorldError("The machine could not be registered.")

        task = self._start("CreateVm", "", act)
        return task_answer(task)

    def _start(self, kind: str, subject: str, act: Callable[[], Any]) -> Task:
        return self._world.start_task(kind, subject, SECONDS.get(kind, USUAL_S), act)

    # --- recovery points ----------------------------------------------------------------------------------------------

    def recovery_points(self, call: Call, method: str, rest: list[str]) -> Response:
        """Those of the data protection service, which knows machines by what they were."""
        match method, rest:
            case "GET", []:
                self._server.require(call, "View_Recovery_Point")
                taken = [self.recovery.view(one) for one in self.recovery.points.values()]
                return self._server.page(call, [*taken, *self._server.policies.points()])
            case "POST", []:
                self._server.require(call, "Create_Recovery_Point")
                return self._take_recovery_point(call)
            case "GET", [id]:
                return json_answer({"data": self.recovery.view(self._recovery(id))}, headers={"Etag": f"{ETAG}1"})
            case "GET", [id, "vm-recovery-points", part] if self._recovery(id).vm_point == part:
                return json_answer({"data": self.recovery.view_machine(self._recovery(id))})
            case "DELETE", [id]:
                self._recovery(id)
                task = self._start("DeleteRecoveryPoint", "", lambda: self.recovery.drop(id))
                task.marks["entities"] = [(recovery.POINT_REL, id)]
                return task_answer(task)
            case "POST", [id, "$actions", "restore"]:
                return self._restore(call, self._recovery(id))
        raise Refusal(404, headers={"Content-Type": "text/html"})

    def _recovery(self, id: str) -> recovery.Recovery:
        if found := self.recovery.points.get(id):
            return found
        message = f"The recovery point {id} does not exist."
        raise Refusal(404, views.app_error("dataprotection", message, "RECOVERY_POINT_NOT_FOUND", "DP-10100"))

    def _take_recovery_point(self, call: Call) -> Response:
        wanted = call.body()
        parts: Sequence[Json] = wanted.get("vmRecoveryPoints") or ()
        kind = str(wanted.get("recoveryPointType") or "CRASH_CONSISTENT")
        found = [("vmRecoveryPoints", "must name one machine")] if len(parts) != 1 else []
        if kind not in ("CRASH_CONSISTENT", "APPLICATION_CONSISTENT"):
            found.append(("recoveryPointType", "is not known"))
        if "expirationTime" in wanted and self.recovery.is_past(str(wanted["expirationTime"])):
            found.append(("expirationTime", "must be a moment to come"))
        if found:
            raise self._server.bad(call, *found)
        machine = self._server.machine(str(parts[0].get("vmExtId")))
        name = str(wanted.get("name") or "recovery-point")

        def act() -> None:
            point = self.recovery.take(machine, name, kind, str(wanted.get("expirationTime") or ""))
            task.marks["entities"] = [(recovery.POINT_REL, point.id), (views.VM_REL, machine.id)]
            task.marks["details"] = {"recoveryPointExtId": point.id}

        task = self._start("CreateRecoveryPoint", machine.id, act)
        task.marks["entities"] = [(views.VM_REL, machine.id)]
        return task_answer(task)

    def _restore(self, call: Call, point: recovery.Recovery) -> Response:
        overrides: Sequence[Json] = call.body().get("vmRecoveryPointRestoreOverrides") or ({},)
        if overrides[0].get("vmRecoveryPointExtId") not in (None, point.vm_point):
            raise self._server.bad(call, ("vmRecoveryPointRestoreOverrides[0]", "is of another recovery point"))
        override = overrides[0].get("vmOverrideSpec") or {}
        if override and override.get("$objectType") != "dataprotection.v4.config.AhvVmOverrideSpec":
            raise self._server.bad(call, ("vmOverrideSpec.$objectType", "is missing or unknown"))

        def act() -> None:
            listed_at = (task.started_at or 0.0) + task.seconds + self._server.listed_late_s
            machine = self.recovery.restore(point.id, str(override.get("name") or ""), listed_at)
            task.marks["details"] = {"vmExtIds": machine.id}

        task = self._start("RestoreRecoveryPoint", "", act)
        task.marks["entities"] = [(recovery.POINT_REL, point.id)]
        return task_answer(task)

    # --- images -------------------------------------------------------------------------------------------------------

    def images_of(self, call: Call, method: str, rest: list[str]) -> Response:
        match method, rest:
            case "GET", []:
                self._server.require(call, "View_Image")
                return self._server.page(call, (self.images.view(one) for one in self.images.images.values()))
            case "POST", []:
                self._server.require(call, "Create_Image")
                return self._create_image(call)
            case "GET", [id]:
                return json_answer({"data": self.images.view(self._image(id))}, headers={"Etag": f"{ETAG}1"})
            case "GET", [id, "file"]:
                self._server.require(call, "Download_Image")
                return self._download(call, self._image(id))
            case "DELETE", [id]:
                self._image(id)
                task = self._start("DeleteImage", "", lambda: self.images.drop(id))
                task.marks["entities"] = [(images.IMAGE_REL, id)]
                return task_answer(task)
        raise Refusal(404, headers={"Content-Type": "text/html"})

    def _image(self, id: str) -> images.Image:
        if found := self.images.images.get(id):
            return found
        raise Refusal(404, views.app_error("vmm", f"The image {id} does not exist.", "IMAGE_NOT_FOUND", "VMM-20100"))

    def _create_image(self, call: Call) -> Response:
        wanted = call.body()
        source = wanted.get("source") or {}
        found = []
        if not 0 < len(wanted.get("name") or "") <= 256:
            found.append(("name", "size must be between 1 and 256"))
        if wanted.get("type") not in ("DISK_IMAGE", "ISO_IMAGE"):
            found.append(("type", "is not known"))
        if set(wanted.get("clusterLocationExtIds") or ()) - {views.cluster_id(self._world)}:
            found.append(("clusterLocationExtIds", "is no cluster"))
        make = self._image_maker(call, wanted, source)
        if make is None:
            found.append(("source.$objectType", "is missing or unknown"))
        if found or make is None:
            raise self._server.bad(call, *found)

        def act() -> None:
            task.marks["entities"] = [(images.IMAGE_REL, make().id)]

        task = self._start("CreateImage", "", act)
        return task_answer(task)

    def _image_maker(self, call: Call, wanted: Json, source: Json) -> Callable[[], images.Image] | None:
        """A disk is known by the machine that has it: that of a recovery point is none."""
        match source.get("$objectType"):
            case "vmm.v4.content.VmDiskSource":
                disk = str(source.get("extId"))
                holders = [machine for machine in self._world.visible() if disk in machine.disks]
                if not holders or ("vmExtId" in source and holders[0].id != source["vmExtId"]):
                    body = views.app_error("vmm", "The VM disk does not exist.", "VM_DISK_NOT_FOUND", "VMM-20101")
                    raise Refusal(404, body)
                if "vmExtId" in source and call.version < (4, 3):
                    raise self._server.bad(call, ("source.vmExtId", "is not known"))
                return lambda: self.images.from_disk(wanted, disk)
            case "vmm.v4.content.ObjectsLiteSource":
                file = self._server.objects.objects.get(("vmm-images", str(source.get("key"))))
                if file is None:
                    body = views.app_error("vmm", "The object does not exist.", "OBJECT_NOT_FOUND", "VMM-20102")
                    raise Refusal(404, body)
                return lambda: self.images.from_file(wanted, file)
        return None

    def _download(self, call: Call, image: images.Image) -> Response:
        """Flat, as large as the disk."""
        size, start = self.images.size(image), 0
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{image.id}.raw"',
        }
        asked = re.fullmatch(r"bytes=(\d+)-", call.request.headers.get("Range") or "")
        if asked and self.has_ranges:
            start = int(asked[1])
            if start >= size:
                raise Refusal(416, headers={"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        return Response(206 if start else 200, b"", headers, self.images.read(image, start), size - start)
