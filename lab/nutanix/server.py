"""Prism Central's v4 API over a world: signing in, versions, ETags, request ids, tasks, paging, limits, refusals.

It says what real ones were recorded to say, odd parts included: a machine by id comes with nothing but `data`, an
empty list without it; 401 and 403 come without JSON, 501 without a body; a task's id has to be encoded in a path; a
stale ETag may show as a failed task only; a new machine may be missing from the list for a while.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lab.errors import InUse, NoSuch, OutOfMemory, WrongState
from lab.http import LabServer, Request, Response
from lab.nouns import Machine, Power, Task
from lab.nutanix import filters, objects, policies, views
from lab.nutanix.calls import ETAG, ID, SECONDS, USUAL_S, Call, Refusal, json_answer, task_answer
from lab.nutanix.replicas import Replicas
from lab.nutanix.views import Json
from lab.world import World

SESSION_S = 15 * 60.0
RATES: Mapping[str, int] = {
    "*": 30,
    "GET vmm/ahv/config/vms": 2,
    "GET vmm/ahv/config/vms/{}": 10,
    "GET clustermgmt/config/clusters": 10,
    "GET clustermgmt/config/hosts": 10,
    "GET clustermgmt/config/storage-containers": 10,
    "GET prism/config/tasks": 20,
}
"""Calls a second, as the headers of pc.2024.3.1.1 told; for tasks nobody has recorded them."""

LISTS: Mapping[str, str] = {
    "datapolicies/config/protection-policies": "datapolicies.v4.config.ListProtectionPoliciesApiResponse",
    "vmm/ahv/config/vms": "vmm.v4.ahv.config.ListVmsApiResponse",
    "vmm/ahv/config/vm-recovery-points": "vmm.v4.ahv.config.ListVmRecoveryPointsApiResponse",
    "vmm/content/images": "vmm.v4.content.ListImagesApiResponse",
    "vmm/content/templates": "vmm.v4.content.ListTemplatesApiResponse",
    "prism/config/tasks": "prism.v4.config.ListTasksApiResponse",
    "prism/config/categories": "prism.v4.config.ListCategoriesApiResponse",
    "clustermgmt/config/clusters": "clustermgmt.v4.config.ListClustersApiResponse",
    "clustermgmt/config/hosts": "clustermgmt.v4.config.ListHostsApiResponse",
    "clustermgmt/config/storage-containers": "clustermgmt.v4.config.ListStorageContainersApiResponse",
    "dataprotection/config/recovery-points": "dataprotection.v4.config.ListRecoveryPointsApiResponse",
    "networking/config/subnets": "networking.v4.config.ListSubnetsApiResponse",
    "hosts": "clustermgmt.v4.config.ListHostsByClusterIdApiResponse",
}
"""What an answer with a list calls itself."""

FILTERS: Mapping[str, frozenset[str]] = {
    "prism/config/tasks": frozenset({
        "clusterExtIds", "completedTime", "createdTime", "entitiesAffected/extId", "entitiesAffected/name",
        "entitiesAffected/rel", "extId", "isBackgroundTask", "lastUpdatedTime", "operation", "operationDescription",
        "ownedBy/extId", "ownedBy/name", "parentTask", "progressPercentage", "rootTask", "startedTime", "status",
    }),
}  # fmt: skip
"""List -> what `$filter` can be applied to (API reference of prism v4.0, listTasks). Other lists take any field."""

CLONE_FIELDS = {
    "name", "numSockets", "numCoresPerSocket", "numThreadsPerCore", "memorySizeBytes", "nics", "bootConfig",
    "guestCustomization", "guestCustomizationProfileConfig", "bulkCloneOptions",
}  # fmt: skip
KEPT_BY_CLONES = ("firmware", "secure_boot", "machine_type", "addresses")
NAME_LIMIT = 80
SCRIPT_LIMIT = 32_000


@dataclass(frozen=True, slots=True)
class Account:
    user: str = "deskyard"
    password: str = field(default="prism-lab-Passw0rd", repr=False)
    api_key: str = field(default="prism-lab-api-key", repr=False)


@dataclass(slots=True)
class Orphan:
    """A recovery point whose machine is gone: Prism keeps it."""

    id: str
    name: str
    machine: str
    taken_at: float


_PATH = re.compile(r"/api/(?P<ns>\w+)/v(?P<major>\d+)\.(?P<minor>\d+)/(?P<path>.*)")


class PrismServer(LabServer):
    """One Prism Central, and the cluster behind it."""

    server_header = "nginx"

    def __init__(
        self,
        world: World,
        address: str = "127.0.0.4",
        port: int = 0,
        *,
        account: Account | None = None,
        certificates: Path | None = None,
        tls: bool = True,
    ) -> None:
        super().__init__(world, address, port, tls=tls, certificate_folder=certificates)
        self.account = account or Account()
        self.versions: dict[str, tuple[int, int]] = {
            "vmm": (4, 2), "prism": (4, 2), "clustermgmt": (4, 2), "networking": (4, 2), "dataprotection": (4, 2),
            "datapolicies": (4, 2),
        }  # fmt: skip
        """What each namespace speaks. Below v4.2 it does not tell which."""
        self.rates: dict[str, int] = dict(RATES)
        self.listed_late_s = 2.0
        """How long a new machine is missing from the list, in virtual seconds."""
        self.checks_etags_late = False
        """A stale ETag is noticed by the task only."""
        self.lacks: set[str] = set()
        """Routes that are not implemented on this Prism Central."""
        self.redirects = 0
        """How many of the next requests are sent on to another node."""
        self.categories: dict[str, tuple[str, str]] = {}
        self.orphans: dict[str, Orphan] = {}
        self.replicas = Replicas(self)
        self.policies = policies.Policies(world)
        self.objects = objects.ObjectStore()
        self._sessions: dict[str, float] = {}
        self._tokens: set[str] = set()
        self._answers: dict[str, Response] = {}
        self._asked: dict[str, deque[float]] = {}
        self._rate_guard = threading.Lock()

    # --- the way in ---------------------------------------------------------------------------------------------------

    def label(self, request: Request) -> str:
        """Without ids, so that faults can mean a route: "POST vmm/ahv/config/vms/{}/$actions/clone"."""
        if request.path.startswith(objects.ROOT):
            bucket, _, key = request.path.removeprefix(objects.ROOT).partition("/")
            return f"{request.method} prism/objects/{bucket}{'/{}' if key else ''}"
        found = _PATH.fullmatch(request.path)
        if found is None:
            return f"{request.method} {request.path}"
        return f"{request.method} {found['ns']}/{ID.sub('{}', found['path'])}"

    def expire_sessions(self) -> None:
        self._sessions.clear()

    def place_for(self, method: str, path: str) -> BinaryIO | None:
        return self.objects.place() if method == "PUT" and path.startswith(objects.ROOT) else None

    def stop(self) -> None:
        super().stop()
        self.objects.stop()

    def handle(self, request: Request) -> Response:
        if request.path.startswith(objects.ROOT):
            return self.objects.handle(request, self.account.user, self.account.password)
        headers: dict[str, str] = {}
        try:
            self._redirect(request)
            headers |= self._sign_in(request)
            response = self._route(request, headers)
        except Refusal as refusal:
            response = refusal.response
        response.headers = headers | response.headers
        return response

    def _redirect(self, request: Request) -> None:
        if self.redirects > 0 and not _cookies(request).get("NTNX_REDIRECT"):
            self.redirects -= 1
            token = secrets.token_hex(8)
            self._tokens.add(token)
            where = {"Location": request.raw_path, "X-Redirect-Token": f"NTNX_REDIRECT={token}"}
            raise Refusal(302, headers=where)

    def _sign_in(self, request: Request) -> dict[str, str]:
        """The new session's cookie, if it is one. Refuses without JSON, as real ones do."""
        cookies = _cookies(request)
        session = cookies.get("NTNX_IAM_SESSION", "")
        if self._sessions.get(session, -1.0) > self.world.now or cookies.get("NTNX_REDIRECT") in self._tokens:
            return {}
        if request.headers.get("X-ntnx-api-key") == self.account.api_key:
            return {}
        pair = base64.b64encode(f"{self.account.user}:{self.account.password}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            raise Refusal(401, headers={"Content-Type": "text/html", "WWW-Authenticate": 'Basic realm="Prism"'})
        session = secrets.token_hex(16)
        self._sessions[session] = self.world.now + SESSION_S
        return {"Set-Cookie": f"NTNX_IAM_SESSION={session};Path=/;Secure;HttpOnly"}

    def _route(self, request: Request, headers: dict[str, str]) -> Response:
        if request.method == "OPTIONS":
            return self._tell_version(request)
        found = _PATH.fullmatch(request.path)
        if found is None or found["ns"] not in self.versions:
            raise Refusal(404, headers={"Content-Type": "text/html"})
        call = Call(request, found["ns"], (int(found["major"]), int(found["minor"])), found["path"])
        if call.version > self.versions[call.namespace]:
            raise Refusal(404, headers={"Content-Type": "text/html"})
        headers |= self._count(call)
        if call.route in self.lacks:
            raise Refusal(501)
        with self.world:
            return self._once(call)

    def _tell_version(self, request: Request) -> Response:
        """`OPTIONS /api/{namespace}/unversioned/info`: only since v4.2 (PC 7.5)."""
        namespace = request.path.removeprefix("/api/").removesuffix("/unversioned/info")
        major, minor = self.versions.get(namespace, (0, 0))
        if (major, minor) < (4, 2):
            raise Refusal(404, headers={"Content-Type": "text/html"})
        return json_answer({"data": f"v{major}.{minor}"})

    def _count(self, call: Call) -> dict[str, str]:
        """Refuses what comes too often in real time."""
        now = time.monotonic()
        limit = self.rates.get(call.route, self.rates.get("GET *", 20))
        with self._rate_guard:
            for name, most in (("*", self.rates["*"]), (call.route, limit)):
                asked = self._asked.setdefault(name, deque())
                while asked and asked[0] <= now - 1.0:
                    asked.popleft()
                if len(asked) >= most:
                    body = views.app_error(call.namespace, "Too many requests.", "RATE_LIMIT_EXCEEDED", "PLAT-10006")
                    raise Refusal(429, body, headers={"Retry-After": "1", "X-Ratelimit-Reset": "1"})
            for name in ("*", call.route):
                self._asked[name].append(now)
        return {
            "X-Ratelimit-Limit": str(self.rates["*"]),
            "X-Ratelimit-Remaining": str(max(0, self.rates["*"] - len(self._asked["*"]))),
            "X-Ratelimit-Reset": "1",
            "X-Api-Ratelimit-Limit": str(limit),
            "X-Api-Ratelimit-Refresh-Period-Seconds": "1",
        }

    def _once(self, call: Call) -> Response:
        """A change that was asked for before under this request id is answered as then, and not done again."""
        if call.request.method == "GET":
            return self._serve(call)
        id = call.request.headers.get("NTNX-Request-Id", "")
        if not id:
            raise Refusal(
                400, views.schema_error(self.world, call.namespace, call.path, [("NTNX-Request-Id", "missing")])
            )
        if id not in self._answers:  # whatever is asked under it the second time
            self._answers[id] = self._serve(call)
        kept = self._answers[id]
        return Response(kept.status, kept.body, dict(kept.headers))

    # --- which call it is ---------------------------------------------------------------------------------------------

    def _serve(self, call: Call) -> Response:
        parts = call.path.split("/")
        match call.request.method, call.namespace, parts:
            case method, "vmm", ["ahv", "config", "vms", *rest]:
                return self._machines(call, method, rest)
            case method, "vmm", ["ahv", "config", "vm-recovery-points", *rest] if call.version >= (4, 1):
                return self._points(call, method, rest)
            case method, "vmm", ["content", "images", *rest]:
                return self.replicas.images_of(call, method, rest)
            case "GET", "vmm", ["content", "templates"]:
                return self.page(call, ())
            case method, "dataprotection", ["config", "recovery-points", *rest]:
                return self.replicas.recovery_points(call, method, rest)
            case "GET", "datapolicies", ["config", "protection-policies"]:
                self.require(call, "View_Protection_Policy")
                return self.page(call, self.policies.views())
            case "GET", "prism", ["config", "tasks", id]:
                return json_answer({"data": views.task(self.world, self._task(id))})
            case "GET", "prism", ["config", "tasks"]:
                self.require(call, "View_Task")
                return self.page(call, (views.task(self.world, task) for task in self.world.tasks.values()))
            case method, "prism", ["config", "categories", *rest]:
                return self._categories(call, method, rest)
            case "GET", "clustermgmt", ["config", "clusters"]:
                self.require(call, "View_Cluster")
                return self.page(call, [*views.clusters(self.world), *self.policies.clusters()])
            case "GET", "clustermgmt", ["config", "clusters", id, "hosts"]:
                return self._hosts_of(call, id)
            case "GET", "clustermgmt", ["config", "hosts"]:
                self.require(call, "View_Host")
                return self.page(call, (views.host(self.world, host) for host in self.world.hosts.values()))
            case "GET", "clustermgmt", ["config", "storage-containers"]:
                self.require(call, "View_Storage_Container")
                there = self.world.storages.values()
                return self.page(call, (views.container(self.world, one) for one in there))
            case "GET", "clustermgmt", ["stats", "storage-containers", id]:
                return self._container_stats(call, id)
            case "GET", "networking", ["config", "subnets"]:
                self.require(call, "View_Subnet")
                return self.page(call, (views.subnet(self.world, one) for one in self.world.networks.values()))
        raise Refusal(404, headers={"Content-Type": "text/html"})

    def require(self, call: Call, right: str) -> None:
        if right in self.world.forbidden:
            raise Refusal(403, headers={"Content-Type": "text/html"})

    def page(self, call: Call, items: Iterable[Json], *, hidden: int = 0) -> Response:
        """A page. `hidden` things are counted and not given."""
        page = self._number(call, "$page", 0, 0, 1_000_000)
        limit = self._number(call, "$limit", 50, 1, 100)
        wanted = call.request.query.get("$filter")
        known = FILTERS.get(f"{call.namespace}/{call.path}")
        if wanted and known and not filters.fields(wanted) <= known:
            raise self.bad(call, ("$filter", f"cannot be applied to {sorted(filters.fields(wanted) - known)}"))
        try:
            found = [item for item in items if not wanted or filters.fits(wanted, item)]
        except filters.BadFilter:
            raise self.bad(call, ("$filter", "is not understood")) from None
        part = found[page * limit : (page + 1) * limit]
        body: Json = {
            "$objectType": LISTS[f"{call.namespace}/{call.path}"] if "/clusters/" not in call.path else LISTS["hosts"],
            "$reserved": views.STAMP,
            "metadata": {
                "flags": [
                    {"$objectType": "common.v1.config.Flag", "name": "hasError", "value": False},
                    {"name": "isPaginated", "value": True},
                    {"name": "isTruncated", "value": False},
                ],
                "links": [{"href": f"{self.url}{call.request.raw_path}", "rel": "self"}],
                "totalAvailableResults": len(found) + hidden,
            },
        }
        if part:  # an empty list comes without `data`
            body["data"] = part
        return json_answer(body)

    def _number(self, call: Call, name: str, default: int, least: int, most: int) -> int:
        text = call.request.query.get(name)
        if text is None:
            return default
        if not text.isdigit() or not least <= int(text) <= most:
            raise self.bad(call, (name, f"must be from {least} to {most}"))
        return int(text)

    def bad(self, call: Call, *found: tuple[str, str]) -> Refusal:
        return Refusal(400, views.schema_error(self.world, call.namespace, call.path, list(found)))

    # --- machines -----------------------------------------------------------------------------------------------------

    def _machines(self, call: Call, method: str, rest: list[str]) -> Response:
        match method, rest:
            case "GET", []:
                return self._list_machines(call)
            case "POST", []:
                self.require(call, "Create_Virtual_Machine")
                return self.replicas.create(call)
            case "GET", [id]:
                self.require(call, "View_Virtual_Machine")
                machine = self.machine(id)
                seen = views.vm(self.world, machine, call.version)
                return json_answer({"data": seen}, headers={"Etag": ETAG + str(machine.version)})
            case "PUT", [id]:
                self.require(call, "Update_Virtual_Machine")
                return self._update(call, self.machine(id))
            case "DELETE", [id]:
                self.require(call, "Delete_Virtual_Machine")
                machine = self.machine(id)
                return self._begin(call, "DeleteVm", machine, lambda: self._delete(machine))
            case "POST", [id, "$actions", action]:
                return self._act(call, self.machine(id), action)
        raise Refusal(404, headers={"Content-Type": "text/html"})

    def _list_machines(self, call: Call) -> Response:
        self.require(call, "View_Virtual_Machine")
        shown, hidden = [], 0
        for machine in self.world.visible():
            if machine.marks.get("listed_at", 0.0) > self.world.now:
                continue
            if self.faults.take(machine.name, "partial_inventory"):
                hidden += 1
                continue
            shown.append(views.vm(self.world, machine, call.version) | self.policies.of(machine))
        return self.page(call, shown, hidden=hidden)

    def machine(self, id: str) -> Machine:
        try:
            return self.world.machine(id)
        except NoSuch:
            message = f"Failed to perform the operation as the VM with UUID '{id}' does not exist."
            raise Refusal(404, views.app_error("vmm", message, "VM_NOT_FOUND", "VMM-30100")) from None

    def _act(self, call: Call, machine: Machine, action: str) -> Response:
        world, id = self.world, machine.id
        match action:
            case "clone":
                self.require(call, "Clone_Virtual_Machine")
                return self._clone(call, machine)
            case "power-on":
                self.require(call, "Power_On_Virtual_Machine")
                return self._begin(call, "PowerOnVm", machine, lambda: self._power_on(machine))
            case "power-off":
                return self._begin(call, "PowerOffVm", machine, lambda: self._power_off(machine))
            case "power-cycle":
                return self._begin(call, "PowerCycleVm", machine, lambda: world.reset(id))
            case "reset":
                return self._begin(call, "ResetVm", machine, lambda: world.reset(id))
            case "shutdown":
                return self._begin(call, "ShutdownVm", machine, lambda: world.shutdown_guest(id))
            case "guest-shutdown":
                return self._begin(call, "GuestShutdownVm", machine, lambda: world.shutdown_guest(id, needs_agent=True))
            case "reboot":
                return self._begin(call, "RebootVm", machine, lambda: world.reboot_guest(id))
            case "guest-reboot":
                return self._begin(call, "GuestRebootVm", machine, lambda: world.reboot_guest(id, needs_agent=True))
            case "revert":
                return self._revert(call, machine)
            case "associate-categories" | "disassociate-categories":
                return self._associate(call, machine, is_on=action.startswith("associate"))
        raise Refusal(404, headers={"Content-Type": "text/html"})

    def _begin(
        self, call: Call, kind: str, machine: Machine, act: Callable[[], Any], *, seconds: float | None = None
    ) -> Response:
        """Start a task on a machine, once the ETag has been compared."""
        told = call.request.headers.get("If-Match")
        if not told:
            body = views.app_error("vmm", "The If-Match header is missing.", "MISSING_ETAG_HEADER", "PLAT-10004")
            raise Refusal(428, body)
        if not told.startswith(ETAG) or (not self.checks_etags_late and told != ETAG + str(machine.version)):
            raise Refusal(412, views.app_error("vmm", "Invalid eTag header", "INVALID_ETAG", "PLAT-10005"))

        def do() -> Any:
            if self.checks_etags_late and told != ETAG + str(machine.version):
                raise views.StaleEtag(machine.name)
            return act()

        task = self.world.start_task(kind, machine.id, SECONDS.get(kind, USUAL_S) if seconds is None else seconds, do)
        task.marks["entities"] = [(views.VM_REL, machine.id)]
        return task_answer(task)

    def _clone(self, call: Call, source: Machine) -> Response:
        wanted = call.body()
        self._check_clone(call, wanted)
        made: dict[str, str] = {}

        def act() -> None:
            nets = tuple(_subnet_of(nic) for nic in wanted.get("nics") or ())
            sockets, cores = wanted.get("numSockets"), wanted.get("numCoresPerSocket")
            vcpus = (sockets or source.marks.get("sockets", source.vcpus)) * (cores or source.marks.get("cores", 1))
            clone = self.world.clone(
                source.id, name=wanted.get("name") or source.name, linked=True, vcpus=vcpus,
                memory_mib=wanted["memorySizeBytes"] // views.MIB if wanted.get("memorySizeBytes") else None,
                networks=nets or None,
            )  # fmt: skip
            clone.is_template = False
            clone.marks = {
                "description": source.marks.get("description", ""),
                "categories": list(source.marks.get("categories", ())),
                "sockets": sockets or source.marks.get("sockets", source.vcpus),
                "cores": cores or source.marks.get("cores", 1),
                **{name: source.marks[name] for name in KEPT_BY_CLONES if name in source.marks},
                "listed_at": (task.started_at or 0.0) + task.seconds + self.listed_late_s,
            }
            clone.guest.seed = _seed(wanted.get("guestCustomization"))
            clone.guest.has_agent = source.guest.has_agent
            made["id"] = clone.id
            task.marks["entities"] = [(views.VM_REL, source.id), (views.VM_REL, clone.id)]

        response = self._begin(call, "CloneVm", source, act)
        task = self._task(json.loads(response.body)["data"]["extId"])
        return response

    def _check_clone(self, call: Call, wanted: Json) -> None:
        found = [(name, "is not known") for name in wanted if not name.startswith("$") and name not in CLONE_FIELDS]
        if len(wanted.get("name") or "") > NAME_LIMIT:
            found.append(("name", f"size must be between 0 and {NAME_LIMIT}"))
        for path, value in _scripts(wanted.get("guestCustomization")):
            if len(value) > SCRIPT_LIMIT:
                found.append((path, f"size must be between 0 and {SCRIPT_LIMIT}"))
        for nic in wanted.get("nics") or ():
            if _subnet_of(nic) not in self.world.networks:
                body = views.app_error("vmm", "The subnet does not exist.", "SUBNET_NOT_FOUND", "VMM-30201")
                raise Refusal(404, body)
        if found:
            raise self.bad(call, *found)

    def _update(self, call: Call, machine: Machine) -> Response:
        """The whole machine is replaced: what is left out is taken away."""
        wanted = call.body()
        if len(wanted.get("name") or "") > NAME_LIMIT:
            raise self.bad(call, ("name", f"size must be between 0 and {NAME_LIMIT}"))

        def act() -> None:
            sockets, cores = wanted.get("numSockets") or 1, wanted.get("numCoresPerSocket") or 1
            memory_mib = (wanted.get("memorySizeBytes") or 0) // views.MIB
            if (sockets * cores, memory_mib) != (machine.vcpus, machine.memory_mib):
                self.world.reconfigure(machine.id, vcpus=sockets * cores, memory_mib=memory_mib)
            machine.name = wanted.get("name") or machine.name
            machine.marks |= {
                "description": wanted.get("description") or "",
                "categories": [item["extId"] for item in wanted.get("categories") or ()],
                "sockets": sockets,
                "cores": cores,
            }
            self.world.touch(machine)

        return self._begin(call, "UpdateVm", machine, act)

    def _power_on(self, machine: Machine) -> None:
        """Onto the host with the most memory left: a machine that is off is on none."""
        if machine.power is Power.ON:
            raise WrongState(f"{machine.name} is already powered on")
        up = [host for host in self.world.hosts.values() if host.is_up]
        if not up:
            raise OutOfMemory(machine.name)
        best = max(up, key=lambda host: host.memory_mib - self.world.used_memory_mib(host.id))
        machine.host = best.id
        was_template, machine.is_template = machine.is_template, False
        try:
            self.world.power_on(machine.id)
        finally:
            machine.is_template = was_template  # on AHV a golden image is a machine like any other

    def _power_off(self, machine: Machine) -> None:
        if machine.power is Power.OFF:
            raise WrongState(f"{machine.name} is already powered off")
        self.world.power_off(machine.id)

    def _delete(self, machine: Machine) -> None:
        """On or off. Its disks go, unless clones hang from them; its recovery points stay."""
        if machine.power is not Power.OFF:
            self.world.power_off(machine.id)
        for snapshot in machine.snapshots.values():
            self.orphans[snapshot.id] = Orphan(snapshot.id, snapshot.name, machine.id, snapshot.taken_at)
        try:
            self.world.delete(machine.id)
        except InUse:
            self.world.delete(machine.id, keep_disks=True)

    # --- recovery points ----------------------------------------------------------------------------------------------

    def _points(self, call: Call, method: str, rest: list[str]) -> Response:
        match method, rest:
            case "GET", []:
                return self.page(call, self._all_points())
            case "GET", [id]:
                return json_answer({"data": self._point(id)})
            case "POST", []:
                return self._take_point(call)
            case "DELETE", [id]:
                seen = self._point(id)
                task = self.world.start_task("DeleteVmRecoveryPoint", "", USUAL_S, lambda: self._drop_point(id))
                task.marks["entities"] = [(views.POINT_REL, id), (views.VM_REL, seen["vmExtId"])]
                return task_answer(task)
        raise Refusal(404, headers={"Content-Type": "text/html"})

    def _all_points(self) -> list[Json]:
        found = [
            views.point(self.world, snapshot.id, snapshot.name, machine.id, snapshot.taken_at)
            for machine in self.world.visible()
            for snapshot in machine.snapshots.values()
        ]
        orphans = self.orphans.values()
        return found + [views.point(self.world, one.id, one.name, one.machine, one.taken_at) for one in orphans]

    def _point(self, id: str) -> Json:
        for seen in self._all_points():
            if seen["extId"] == id:
                return seen
        message = f"The VM recovery point {id} does not exist."
        raise Refusal(404, views.app_error("vmm", message, "VM_RECOVERY_POINT_NOT_FOUND", "VMM-30300"))

    def _take_point(self, call: Call) -> Response:
        wanted = call.body()
        machine = self.machine(str(wanted.get("vmExtId")))

        def act() -> None:
            taken = self.world.take_snapshot(machine.id, str(wanted.get("name") or "recovery-point"))
            taken.description = machine.marks.get("description", "")
            task.marks["entities"] = [(views.VM_REL, machine.id), (views.POINT_REL, taken.id)]

        task = self.world.start_task("CreateVmRecoveryPoint", machine.id, SECONDS["CreateVmRecoveryPoint"], act)
        task.marks["entities"] = [(views.VM_REL, machine.id)]
        return task_answer(task)

    def _drop_point(self, id: str) -> None:
        if self.orphans.pop(id, None) is not None:
            return
        for machine in self.world.machines.values():
            if id in machine.snapshots:
                self.world.delete_snapshot(machine.id, id)
                return

    def _revert(self, call: Call, machine: Machine) -> Response:
        wanted = str(call.body().get("vmRecoveryPointExtId"))
        if self._point(wanted)["vmExtId"] != machine.id:
            raise self.bad(call, ("vmRecoveryPointExtId", "is of another VM"))
        if call.version < (4, 1):
            raise Refusal(404, headers={"Content-Type": "text/html"})
        return self._begin(call, "RevertVm", machine, lambda: self.world.revert(machine.id, wanted))

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _task(self, id: str) -> Task:
        task = self.world.tasks.get(id.removeprefix(views.TASK_PREFIX))
        if task is None or not id.startswith(views.TASK_PREFIX):
            raise Refusal(404, views.app_error("prism", f"Task {id} does not exist.", "TASK_NOT_FOUND", "PRISM-20001"))
        return task

    def _categories(self, call: Call, method: str, rest: list[str]) -> Response:
        match method, rest:
            case "GET", []:
                return self.page(call, (_category(id, pair) for id, pair in self.categories.items()))
            case "GET", [id] if id in self.categories:
                return json_answer({"data": _category(id, self.categories[id])}, headers={"Etag": f"{ETAG}1"})
            case "POST", []:
                id, body = self.world.new_id(), call.body()
                self.categories[id] = (str(body.get("key")), str(body.get("value")))
                return json_answer({"data": _category(id, self.categories[id])}, 201)
            case "DELETE", [id] if id in self.categories:
                del self.categories[id]
                return Response(204)
        raise Refusal(
            404, views.app_error("prism", "The category does not exist.", "CATEGORY_NOT_FOUND", "PRISM-30001")
        )

    def _associate(self, call: Call, machine: Machine, *, is_on: bool) -> Response:
        """Asynchronous: the machine shows its categories once the task is over."""
        wanted = [str(item.get("extId")) for item in call.body().get("categories") or ()]

        def act() -> None:
            kept = [id for id in machine.marks.get("categories", ()) if id not in wanted]
            machine.marks["categories"] = kept + wanted if is_on else kept
            self.world.touch(machine)

        return self._begin(call, "AssociateCategories", machine, act)

    def _hosts_of(self, call: Call, cluster: str) -> Response:
        if cluster == views.central_id(self.world):
            raise self.bad(call, ("clusterExtId", "is a Prism Central: it has no hosts"))
        return self.page(call, (views.host(self.world, host) for host in self.world.hosts.values()))

    def _container_stats(self, call: Call, id: str) -> Response:
        if not {"$startTime", "$endTime"} <= call.request.query.keys():
            raise self.bad(call, ("$startTime", "is missing"))
        if id not in self.world.storages:
            body = views.app_error("clustermgmt", "No such container.", "CONTAINER_NOT_FOUND", "CLU-10001")
            raise Refusal(404, body)
        return json_answer({"data": views.container_stats(self.world, self.world.storages[id])})


# --- small parts -----------------------------------------------------------------------------------------------------


def _category(id: str, pair: tuple[str, str]) -> Json:
    return {"$objectType": "prism.v4.config.Category", "extId": id, "key": pair[0], "value": pair[1], "type": "USER"}


def _cookies(request: Request) -> dict[str, str]:
    found = {}
    for part in (request.headers.get("Cookie") or "").split(";"):
        name, _, value = part.strip().partition("=")
        found[name] = value
    return found


def _subnet_of(nic: Json) -> str:
    info = nic.get("nicNetworkInfo") or nic.get("networkInfo") or {}
    return str((info.get("subnet") or {}).get("extId"))


def _scripts(customization: Json | None) -> list[tuple[str, str]]:
    """Path and text of what a guest is given."""
    config = (customization or {}).get("config") or {}
    found = [(f"guestCustomization.config.{name}", config[name]) for name in ("metadata",) if config.get(name)]
    for name in ("cloudInitScript", "sysprepScript"):
        if value := (config.get(name) or {}).get("value"):
            found.append((f"guestCustomization.config.{name}.value", value))
    return found


def _seed(customization: Json | None) -> dict[str, str]:
    """What the guest prepares itself by."""
    seed: dict[str, str] = {}
    for path, value in _scripts(customization):
        text = base64.b64decode(value).decode()
        if path.endswith("metadata"):
            told = json.loads(text)
            seed |= {"hostname": str(told.get("hostname", "")), "instance": str(told.get("uuid", ""))}
        else:
            seed["answer_file" if "sysprep" in path else "user_data"] = text
    return seed
