"""The control port: what an instructor, a test or a curious administrator does to the lab from outside.

JSON over plain HTTP on loopback. A web page in a browser of the same machine cannot reach it: requests with an Origin
are refused, and changes must be `application/json`.

    GET    /                                  the clock, the worlds and their endpoints
    POST   /clock                             {"advance_s": 60} or {"speed": 10}
    GET    /worlds/NAME/machines              what is there, as the world knows it
    GET    /worlds/NAME/requests              what was asked: label and status, oldest first
    POST   /worlds/NAME/faults                {"kind": "status", "where": "^POST", "count": 1, "status": 503, …}
    DELETE /worlds/NAME/faults
    POST   /worlds/NAME/endpoint              {"is_up": false}: cut off, and true: back again
    POST   /worlds/NAME/certificate           {}: another certificate
    POST   /worlds/NAME/hosts/NAME            {"is_up": false}
    POST   /worlds/NAME/storages/NAME         {"is_full": true}
    POST   /worlds/NAME/diary/MACHINE         {"seed": "x", "times": 60, "every_s": 1}: what its guest writes
    POST   /worlds/NAME/mirrors/MACHINE       {"to": "elsewhere", "every_s": 300} or {"course": "broken"}: what the
                                              platform replicates by itself
    POST   /worlds/NAME/rights                {"hidden": ["folder"], "forbidden": ["verb"]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lab import mirrors
from lab.clock import Clock
from lab.http import LabServer, Request, Response
from lab.mirrors import Course
from lab.platform import Platform
from lab.world import World


class Refused(Exception):
    """With the HTTP status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Control(LabServer):
    """See the module."""

    def __init__(self, clock: Clock, platforms: Sequence[Platform], port: int = 0) -> None:
        super().__init__(World("control"), "127.0.0.1", port, tls=False)
        self.clock = clock
        self.platforms = {platform.world.name: platform for platform in platforms}

    def handle(self, request: Request) -> Response:
        try:
            return _json(self._serve(request))
        except Refused as refused:
            return _json({"error": refused.message}, refused.status)
        except (ValueError, TypeError, KeyError) as error:
            return _json({"error": f"That cannot be done: {error}"}, 422)

    def _serve(self, request: Request) -> Any:
        if request.headers.get("Origin"):
            raise Refused(403, "The control port is not for web pages.")
        given: Mapping[str, Any] = {}
        if request.method == "POST":
            if request.headers.get_content_type() != "application/json":
                raise Refused(415, "Send application/json.")
            given = json.loads(request.body or b"{}")
        match request.method, [part for part in request.path.split("/") if part]:
            case "GET", []:
                return self._described()
            case "POST", ["clock"]:
                return self._set_clock(given)
            case method, ["worlds", name, what, *rest]:
                return self._at_world(method, self._platform(name), what, rest, given)
        raise Refused(404, f"There is no {request.method} {request.path}.")

    def _platform(self, name: str) -> Platform:
        if name not in self.platforms:
            raise Refused(404, f"There is no world {name!r}. There are: {', '.join(self.platforms)}.")
        return self.platforms[name]

    def _described(self) -> dict[str, Any]:
        return {
            "now_s": round(self.clock.now(), 3),
            "speed": self.clock.speed,
            "worlds": [
                {
                    "name": name,
                    "kind": platform.registration.kind,
                    "endpoints": [server.url for server in platform.servers],
                    "hosts": [{"name": host.name, "is_up": host.is_up} for host in platform.world.hosts.values()],
                    "storages": [
                        {"name": there.name, "free_mib": platform.world.free_mib(there.id)}
                        for there in platform.world.storages.values()
                    ],
                    "machines": len(platform.world.machines),
                    "faults": [asdict(rule) for rule in platform.world.faults.rules()],
                }
                for name, platform in self.platforms.items()
            ],
        }

    def _set_clock(self, given: Mapping[str, Any]) -> dict[str, float]:
        if "speed" in given:
            self.clock.speed = float(given["speed"])
        if "advance_s" in given:
            self.clock.advance(float(given["advance_s"]))
        return {"now_s": round(self.clock.now(), 3), "speed": self.clock.speed}

    def _at_world(
        self, method: str, platform: Platform, what: str, rest: list[str], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        acts: dict[tuple[str, str], Callable[[], object]] = {
            ("GET", "machines"): lambda: [_shown(platform.world, id) for id in list(platform.world.machines)],
            ("GET", "requests"): lambda: [
                {"label": seen.label, "status": seen.status} for server in platform.servers for seen in server.requests
            ],
            ("POST", "faults"): lambda: asdict(platform.world.faults.add(**given)),
            ("DELETE", "faults"): platform.world.faults.clear,
            ("POST", "endpoint"): lambda: platform.start() if given["is_up"] else platform.cut_off(),
            ("POST", "certificate"): lambda: [server.change_certificate().sha256 for server in platform.servers],
            ("POST", "hosts"): lambda: _set_host(platform.world, "/".join(rest), bool(given["is_up"])),
            ("POST", "storages"): lambda: _set_storage(platform.world, "/".join(rest), bool(given["is_full"])),
            ("POST", "diary"): lambda: _scribble(platform.world, "/".join(rest), **given),
            ("POST", "mirrors"): lambda: _mirror(platform.world, "/".join(rest), given),
            ("POST", "rights"): lambda: _set_rights(platform.world, given),
        }
        act = acts.get((method, what))
        if act is None:
            raise Refused(404, f"There is no {method} for {what!r}.")
        if what == "endpoint":
            # Without the world's lock: requests that are being served need it to end.
            return {"done": act()}
        with platform.world:
            return {"done": act()}


def _json(body: object, status: int = 200) -> Response:
    return Response(status, json.dumps(body).encode())


def _shown(world: World, id: str) -> dict[str, Any]:
    machine = world.machines[id]
    return {
        "id": id,
        "name": machine.name,
        "power": str(machine.power),
        "host": world.hosts[machine.host].name,
        "addresses": list(world.addresses(machine)),
        "is_template": machine.is_template,
        "folder": machine.folder,
    }


def _named(things: Mapping[str, Any], name: str) -> str:
    """The id of what bears this name."""
    for id, thing in things.items():
        if thing.name == name:
            return id
    raise Refused(404, f"There is no {name!r}. There are: {', '.join(thing.name for thing in things.values())}.")


def _set_host(world: World, name: str, is_up: bool) -> None:
    (world.revive_host if is_up else world.kill_host)(_named(world.hosts, name))


def _set_storage(world: World, name: str, is_full: bool) -> None:
    (world.fill if is_full else world.drain)(_named(world.storages, name))


def _scribble(world: World, name: str, *, seed: str, times: int, every_s: float = 1.0) -> None:
    world.scribble(_named(world.machines, name), str(seed), times=int(times), every_s=float(every_s))


def _mirror(world: World, name: str, given: Mapping[str, Any]) -> None:
    machine = _named(world.machines, name)
    if "to" in given:
        mirrors.begin(world, machine, str(given["to"]), every_s=float(given.get("every_s", 300.0)))
    if "course" in given:
        if mirrors.of(world.machines[machine]) is None:
            raise Refused(404, f"{name!r} is not replicated. Say where to first.")
        mirrors.turn(world, machine, Course(given["course"]))


def _set_rights(world: World, given: Mapping[str, Any]) -> None:
    world.hide(*(str(folder) for folder in given.get("hidden", world.hidden)))
    world.forbidden = {str(verb) for verb in given.get("forbidden", world.forbidden)}
