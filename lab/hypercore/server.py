"""One node of a cluster: the HTTP side. Every node serves the same API, and knows its own sessions."""

from __future__ import annotations

import base64
import json
import re
import ssl
import tempfile
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, BinaryIO, cast

from lab.errors import WorldError
from lab.http import Dropped, LabServer, Request, Response, free_port
from lab.hypercore import exports, mirrors, records, uploads
from lab.hypercore.cluster import Cluster
from lab.hypercore.devices import extra_of
from lab.hypercore.refused import Refused

HTML = {"Content-Type": "text/html"}
EMPTY = frozenset(
    {"VirDomainSnapshotSchedule", "VirDomainTemplate", "Update", "Registration", "AlertEmailTarget",
     "AlertSyslogTarget", "DNSConfig", "TimeSource", "TimeZone", "OIDCConfig"}
)  # fmt: skip
"""Kinds of which this cluster has none."""


class HyperCoreNode(LabServer):
    """A node, up to date or in the middle of an update."""

    server_header = "nginx"

    def __init__(
        self, cluster: Cluster, host: str, address: str = "127.0.0.5", port: int = 0, *, tls: bool = True,
        neighbours: dict[str, str] | None = None, certificates: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__(cluster.world, address, port, tls=tls, certificate_folder=certificates)
        self.cluster = cluster
        self.host = host
        self.version = ""
        """Its own `icosVersion`, if it differs from the others' in the middle of an update."""
        self.neighbours = neighbours if neighbours is not None else {}
        """Node id -> address, shared by all nodes."""
        self.neighbours[host] = address
        self.sessions: set[str] = set()
        self._sound: ssl.SSLContext | None = None

    def label(self, request: Request) -> str:
        """With the node's address, so that a fault can mean one node."""
        return f"{request.method} {request.path} @{self.address}"

    def place_for(self, method: str, path: str) -> BinaryIO | None:
        is_upload = method == "PUT" and path.endswith("/VirtualDisk/upload")
        return cast(BinaryIO, tempfile.NamedTemporaryFile(prefix="lab-upload-")) if is_upload else None

    def expire_sessions(self) -> None:
        self.sessions.clear()

    def break_tls(self) -> None:
        """As a node that is being shut down for a reboot: connections are taken, and no handshake succeeds."""
        self._sound = self._sound or self._context
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def mend_tls(self) -> None:
        if self._sound is not None:
            self._context, self._sound = self._sound, None

    # --- answering ----------------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Response:
        with self.world:
            if request.path == "/update/update_status.json":
                return self._update_status()
            found = re.fullmatch(r"/rest/(v1|v2)/(.*?)/?", request.path)
            if found is None or (found[1] == "v2" and not self.cluster.has_v2):
                return Response(404, b"<html><body>404 Not Found</body></html>", HTML)
            try:
                return self._call(request, found[1] == "v2", found[2].split("/"))
            except Refused as refused:
                return _json({"error": refused.words}, refused.status)
            except WorldError as error:
                return _json({"error": str(error)}, 400)

    def _update_status(self) -> Response:
        """Served by the web server in front; a cluster that was never updated has no such file."""
        if self.cluster.update_status is None:
            return Response(404, b"<html><body>404 Not Found</body></html>", HTML)
        return _json(self.cluster.update_status)

    def _call(self, request: Request, is_v2: bool, parts: list[str]) -> Response:
        kind, method = parts[0], request.method
        if kind == "login" and method == "POST":
            return self._login(_body(request))
        session = self._session(request)
        if kind == "logout" and method == "POST":
            self.sessions.discard(session)
            return _json({})
        if method == "GET":
            return self._get(request, is_v2, kind, parts[1:])
        return self._change(request, is_v2, kind, parts[1:])

    def _login(self, body: Any) -> Response:
        if not isinstance(body, dict) or set(body) - {"username", "password", "useOIDC"}:
            raise Refused(400, "Property not allowed")
        if (body.get("username"), body.get("password")) != (self.cluster.user, self.cluster.password):
            raise Refused(401, "Invalid username or password")
        session = self.world.new_id()
        self.sessions.add(session)
        cookie = f"sessionID={session}; Path=/; HttpOnly" + ("; Secure" if self._context else "")
        return _json({"sessionID": session}, headers={"Set-Cookie": cookie})

    def _session(self, request: Request) -> str:
        """By cookie, or by Basic authentication at each call. Raises `Refused`."""
        cookie = SimpleCookie(request.headers.get("Cookie", ""))
        if "sessionID" in cookie and cookie["sessionID"].value in self.sessions:
            return str(cookie["sessionID"].value)
        scheme, _, told = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            expected = base64.b64encode(f"{self.cluster.user}:{self.cluster.password}".encode()).decode()
            if told.strip() == expected:
                return ""
        raise Refused(401, "Not authorized")

    # --- reading ------------------------------------------------------------------------------------------------------

    def _get(self, request: Request, is_v2: bool, kind: str, rest: list[str]) -> Response:
        """Always an array, also by id. There is no filter: a query is refused, but for tasks in v2."""
        if request.query and not (is_v2 and kind == "TaskTag"):
            raise Refused(400, "Query parameters are not allowed")
        if kind == "VirtualDisk" and rest == ["upload"]:
            raise Refused(405, "Method not allowed")
        found = self._listing(kind, request)
        if found is None or len(rest) > 1:
            raise Refused(404, "not found")
        if rest:
            id_field = "taskTag" if kind == "TaskTag" else "uuid"
            found = [record for record in found if record.get(id_field) == rest[0]]
        return _json(found)

    def _listing(self, kind: str, request: Request) -> list[dict[str, Any]] | None:
        cluster, world = self.cluster, self.world
        if kind == "VirDomain":
            machines = [records.domain(cluster, machine) for machine in cluster.listed()]
            rule = self.faults.take(request.label, "partial_inventory")
            return machines[::2] if rule else machines
        if kind == "VirDomainStats":
            return [{"uuid": machine.id, "cpuUsage": 1.0} for machine in cluster.listed()]
        if kind == "VirDomainBlockDevice":
            return [
                records.block_device(machine, device)
                for machine in cluster.listed()
                for device in extra_of(world, machine).devices
            ]
        if kind == "VirDomainNetDevice":
            return [
                records.net_device(cluster, machine, place, [])
                for machine in cluster.listed()
                for place in range(len(machine.nics))
            ]
        if kind == "VirDomainSnapshot":
            return [records.snapshot(cluster, point) for point in cluster.points.values()] + mirrors.snapshots(cluster)
        if kind == "VirDomainReplication":
            return mirrors.replications(cluster) if cluster.has_replication else None
        if kind == "RemoteClusterConnection":
            return mirrors.connections(cluster)
        if kind == "TaskTag":
            tags = [request.query["taskTag"]] if "taskTag" in request.query else list(cluster.tags)
            return [records.task(cluster, world.tasks[cluster.tags[tag]]) for tag in tags if tag in cluster.tags]
        if kind == "Node":
            return [
                records.node(cluster, host, self.neighbours.get(host.id, ""), place)
                for place, host in enumerate(world.hosts.values())
            ]
        if kind == "Cluster":
            version = self.version or cluster.version
            return [{"uuid": cluster.id, "clusterName": cluster.name, "icosVersion": version}]
        if kind == "ISO":
            return [records.iso(cluster, iso) for iso in cluster.isos.values()]
        if kind == "VirtualDisk":
            return [uploads.record(cluster, disk) for disk in cluster.virtual_disks.values()]
        if kind == "Condition":
            return records.conditions(cluster)
        if kind in ("User", "Role"):
            return records.users(cluster) if kind == "User" else list(records.roles())
        return [] if kind in EMPTY else None

    # --- changing -----------------------------------------------------------------------------------------------------

    def _change(self, request: Request, is_v2: bool, kind: str, rest: list[str]) -> Response:
        cluster, id = self.cluster, rest[0] if rest else ""
        is_upload = (kind, rest) == ("VirtualDisk", ["upload"])
        body: Any = None if is_upload or rest[1:] == ["data"] else _body(request)
        if is_upload and cluster.breaks_uploads:
            cluster.breaks_uploads -= 1
            uploads.broken_off(cluster, request.query)
            raise Dropped
        calls: dict[tuple[str, str, str], Callable[[], dict[str, str]]] = {
            ("POST", "VirDomain", ""): lambda: cluster.create(body),
            ("POST", "VirDomain", "action"): lambda: cluster.action(body),
            ("POST", "VirDomain", "*/clone"): lambda: cluster.clone(id, body),
            ("PATCH", "VirDomain", "*"): lambda: cluster.update(id, body),
            ("DELETE", "VirDomain", "*"): lambda: cluster.delete(id),
            ("POST", "VirDomainBlockDevice", ""): lambda: cluster.add_device(body),
            ("POST", "VirDomainBlockDevice", "*/clone"): lambda: cluster.clone_device(id, body),
            ("PATCH", "VirDomainBlockDevice", "*"): lambda: cluster.update_device(id, body, is_v2=is_v2),
            ("DELETE", "VirDomainBlockDevice", "*"): lambda: cluster.delete_device(id),
            ("POST", "VirDomainNetDevice", ""): lambda: cluster.add_nic(body),
            ("PATCH", "VirDomainNetDevice", "*"): lambda: cluster.update_nic(id, body, is_v2=is_v2),
            ("DELETE", "VirDomainNetDevice", "*"): lambda: cluster.delete_nic(id),
            ("POST", "ISO", ""): lambda: cluster.add_iso(body),
            ("PUT", "ISO", "*/data"): lambda: cluster.fill_iso(id, request.body),
            ("PATCH", "ISO", "*"): lambda: cluster.update_iso(id, body),
            ("DELETE", "ISO", "*"): lambda: cluster.delete_iso(id),
            ("POST", "VirDomainSnapshot", ""): lambda: cluster.snapshot(body),
            ("DELETE", "VirDomainSnapshot", "*"): lambda: cluster.delete_snapshot(id),
            ("POST", "VirDomain", "*/export"): lambda: exports.start(cluster, id, body),
            ("PUT", "VirtualDisk", "upload"): lambda: uploads.upload(
                cluster, request.query, request.headers.get("Content-Length"), cast(BinaryIO, request.file)
            ),
            ("POST", "VirtualDisk", "*/attach"): lambda: uploads.attach(cluster, id, body),
            ("DELETE", "VirtualDisk", "*"): lambda: uploads.delete(cluster, id),
        }
        named = ("action", "upload")
        shape = "/".join(("*" if place == 0 and part not in named else part) for place, part in enumerate(rest))
        call = calls.get((request.method, kind, shape))
        if call is None:
            known = any(of == kind for _, of, _ in calls)
            raise Refused(405 if known else 404, "Method not allowed" if known else "not found")
        cluster.require_quiet()
        return _json(call())


def _body(request: Request) -> Any:
    try:
        return json.loads(request.body) if request.body.strip() else {}
    except ValueError:
        raise Refused(400, "Invalid JSON") from None


def _json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(status, json.dumps(data).encode(), headers or {})


def start_cluster(cluster: Cluster, *, tls: bool = True, port: int = 0, first: int = 5) -> list[HyperCoreNode]:
    """A node for each host of the world, at 127.0.0.5 and following, all at one port."""
    neighbours: dict[str, str] = {}
    addresses = [f"127.0.0.{first + place}" for place in range(len(cluster.world.hosts))]
    port = port or free_port(*addresses)
    nodes = [
        HyperCoreNode(cluster, host, address, port, tls=tls, neighbours=neighbours)
        for host, address in zip(cluster.world.hosts, addresses, strict=True)
    ]
    for node in nodes:
        node.start()
    return nodes
