"""Programs that use the API with a token, as docs/api.md shows; they also set the scene for journeys in the browser."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.journeys.browsers import PASSWORD
from tests.support import kvm_estate
from tests.support.kvm_hosts import KvmHost
from tests.support.stack import Stack, wait_until

REACHED_S = 60
BUILT_S = 240
"""Emulated guests boot on a busy machine."""
GROUP = "Accounting"

logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each question of `wait_until` helps nobody

MAKE_PEOPLE = """
from django.contrib.auth.models import User
from broker.services import people
dana = User.objects.get(username="dana")
group = people.create_group(actor=dana, name={group!r})
for name in {names!r}:
    people.create_user(actor=dana, name=name, password={password!r}, group_ids=[group.pk])
"""


class Script:
    """A program with somebody's token."""

    def __init__(self, installation: Stack, name: str) -> None:
        self.name, self._installation = name, installation
        token = installation.manage("api_token", name).split()[-1]
        self._origin = installation.url
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON."""
        address = f"{self._origin}/api/v1{path}"
        answer = httpx.request(method, address, json=body, headers=self._headers, timeout=60)
        return answer.status_code, answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        status, found = self.ask("GET", path)
        assert status == 200, (path, found)
        return found

    def items(self, path: str) -> list[Any]:
        """All of a list. Rows that come or go between its count and its page are a reason to ask again."""
        for _ in range(10):
            found = self.get(f"{path}{'&' if '?' in path else '?'}limit=500")
            items: list[Any] = found["items"]
            if found["total"] == len(items):
                return items
        raise AssertionError(f"{path} counts {found['total']} and lists {len(items)}")

    def post(self, path: str, body: Any = None, *, status: int = 201) -> Any:
        got, found = self.ask("POST", path, body)
        assert got == status, (path, got, found)
        return found

    def wait_for(self, path: str, is_so: Callable[[Any], bool], limit_s: float = BUILT_S) -> Any:
        """What stands at the path once it is so."""
        seen: list[Any] = [None]

        def look() -> bool:
            seen[0] = self.get(path)
            return is_so(seen[0])

        wait_until(
            look, limit_s, f"{self.name}'s {path} is as awaited", lambda: f"{seen[0]}\n{self._installation.log_tail()}"
        )
        return seen[0]

    # --- a person's way ---

    def gets_a_desktop(self, pool: str) -> Any:
        """The request, once it is ready and the desktop's guest answers. One that was made before is waited for."""
        status, made = self.ask("POST", "/requests", {"pool": pool})
        assert status in (200, 201), made
        request = self.wait_for(f"/requests/{made['id']}", lambda found: found["state"] == "ready")
        self.wait_for(f"/desktops/{request['desktop']}", lambda found: bool(found["is_answering"]))
        return request

    def orders(self, path: str, body: Any = None) -> Any:
        """An order that answers 202; its operation once it has ended well."""
        operation = self.post(path, body, status=202)
        ended = self.wait_for(f"/operations/{operation['id']}", lambda found: found["finished_at"] is not None)
        assert ended["state"] == "done", ended
        return ended

    def open(self, opening: Any, *, origin: str | None = "", cookie: str = "") -> ClientConnection:
        """A WebSocket as `connect` described it. `origin`: ours, another one, or None for a client that sends none."""
        sent = self._origin if origin == "" else origin
        return connect(
            opening["url"],
            subprotocols=[Subprotocol(name) for name in opening["subprotocols"]],
            origin=None if sent is None else Origin(sent),
            additional_headers={"Cookie": cookie} if cookie else {},
            compression=None,
            open_timeout=60,
        )


class Rfb:
    """An RFB 3.8 client (RFC 6143) over a WebSocket, whose messages need not be those of the protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._had = socket, b""

    def read(self, count: int) -> bytes:
        while len(self._had) < count:
            message = self._socket.recv(timeout=60)
            assert isinstance(message, bytes)
            self._had += message
        found, self._had = self._had[:count], self._had[count:]
        return found

    def signs_in(self) -> tuple[int, int]:
        """Width and height of the screen, after banner, security (none is asked for) and ServerInit."""
        assert self.read(12) == b"RFB 003.008\n"
        self._socket.send(b"RFB 003.008\n")
        assert self.read(2) == b"\x01\x01", "one security type, and that is none"
        self._socket.send(b"\x01")
        assert self.read(4) == b"\0\0\0\0"
        self._socket.send(b"\x01")
        init = self.read(24)
        name = self.read(int.from_bytes(init[20:24], "big"))
        assert name
        return int.from_bytes(init[0:2], "big"), int.from_bytes(init[2:4], "big")


@dataclass
class Office:
    """Hosts that are up, and a pool on them that the group may use."""

    installation: Stack
    dana: Script
    hosts: list[KvmHost]
    hypervisors: list[str]
    """Their ids, in the order of the hosts."""
    pool: str

    def is_settled(self) -> bool:
        """The spare is full and nothing is on its way."""
        pool = self.dana.get(f"/pools/{self.pool}")
        busy = {"planned", "building", "preparing", "recycling", "retiring"} & pool["desktops"].keys()
        flying = ("queued", "sent", "running")
        unfinished = sum(self.dana.get(f"/operations?state={state}")["total"] for state in flying)
        return not busy and not unfinished and pool["desktops"].get("ready", 0) == pool["spare"]

    def settle(self, limit_s: float = BUILT_S) -> None:
        wait_until(self.is_settled, limit_s, "the pool is settled", self.tell, pause_s=0.5)

    def tell(self) -> str:
        """What the broker says of everything, for a failure's message."""
        said = [self.dana.get(f"/{noun}?limit=20")["items"] for noun in ("hypervisors", "desktops", "operations")]
        return f"{said}\n{self.installation.log_tail()}"

    def desktops(self) -> list[Any]:
        return self.dana.items("/desktops")

    def machines(self) -> dict[str, list[str]]:
        """Ids of the machines on each host but the template, asked of libvirt itself."""
        found = {}
        for hypervisor, host in zip(self.hypervisors, self.hosts, strict=True):
            conn = host.connect()
            try:
                domains = [domain for domain in conn.listAllDomains() if domain.name() != host.template_name]
                found[hypervisor] = sorted(domain.UUIDString() for domain in domains)
            finally:
                conn.close()
        return found

    def assert_nothing_lost_or_doubled(self) -> None:
        """Every desktop has its machine where the broker says, and there are no others."""
        thought: dict[str, list[str]] = {hypervisor: [] for hypervisor in self.hypervisors}
        for desktop in self.desktops():
            thought[desktop["hypervisor"]].append(desktop["machine_id"])
        assert {hypervisor: sorted(ids) for hypervisor, ids in thought.items()} == self.machines(), self.tell()


def open_office(installation: Stack, hosts: Sequence[KvmHost], people: Sequence[str], **pool: Any) -> Office:
    """An estate by script: hosts, the template "Tiny Linux" with a copy on each, a pool for a group of these people."""
    dana = Script(installation, "dana")
    hypervisors = [
        dana.post("/hypervisors", {"name": host.name, "kind": "kvm", "settings": kvm_estate.tls_settings(host)})["id"]
        for host in hosts
    ]
    # Meanwhile the hosts are looked at.
    installation.manage("shell", "-c", MAKE_PEOPLE.format(group=GROUP, names=list(people), password=PASSWORD))
    template = dana.post("/templates", {"name": "Tiny Linux", "os": "Linux"})["id"]
    version = dana.post("/versions", {"template": template})["id"]
    copies = [link_copy(dana, version, hypervisor) for hypervisor in hypervisors]
    members = [{"copy_id": copy} for copy in copies]
    wish = {"name": "Office Linux", "naming": "office-###", "members": members, **pool}
    made = dana.post("/pools", wish)["id"]
    dana.post("/entitlements", {"pool": made, "group": GROUP})
    return Office(installation, dana, list(hosts), hypervisors, made)


def link_copy(dana: Script, version: str, hypervisor: str, *, image: str = "", is_probed: bool = True) -> str:
    """Link the template with this platform id, or the only one; the copy's id.

    Where it matters, not before it is known how the host boots guests.
    """
    dana.wait_for(f"/hypervisors/{hypervisor}", lambda found: bool(found["status"] == "up"), REACHED_S)
    if is_probed:
        dana.wait_for(
            "/operations?kind=probe&state=done",
            lambda found: any(probe["hypervisor"] == hypervisor for probe in found["items"]),
            REACHED_S,
        )
    machines = dana.wait_for(
        f"/hypervisors/{hypervisor}/machines?is_template=true&limit=500", lambda found: bool(found["total"]), REACHED_S
    )
    found = [one["id"] for one in machines["items"] if image in ("", one["platform_id"])]
    copy: str = dana.post("/copies", {"version": version, "machine": found[0]})["id"]
    return copy
