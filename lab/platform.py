"""A platform of the lab as a whole: its world, its endpoints, and what an administrator would enter to register it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from lab import state
from lab.clock import Clock
from lab.http import LabServer
from lab.world import World

KINDS = ("esxi", "hyperv", "nutanix", "hypercore")
"""The makers of which the lab has a platform."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a broker's form asks for."""

    kind: str
    name: str
    settings: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    template: str
    """Platform id of the golden image."""


@dataclass(frozen=True, slots=True)
class Platform:
    """One world behind one endpoint or several."""

    world: World
    servers: Sequence[LabServer]
    registration: Registration

    def start(self) -> None:
        for server in self.servers:
            server.come_back()

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def cut_off(self) -> None:
        for server in self.servers:
            server.cut_off()


@dataclass(frozen=True, slots=True)
class Site:
    """Where a platform is stood up: what it keeps on disk, its place in the network, its time and chance.

    A platform's package has `stand_up(site) -> Platform`: it takes `world()`, furnishes it if it is empty, and puts its
    servers before it.
    """

    name: str
    folder: Path
    clock: Clock
    seed: int
    guest_network: str
    screens_port: int
    """Where guests show their screens, at their own addresses."""

    def world(self) -> World:
        """As it was when it was last saved; else empty."""
        world = World(self.name, self.seed, self.clock, guest_network=self.guest_network)
        state.load(world, self.folder / "world.json")
        return world

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    def port(self, number: int = 0) -> int:
        """The port of the endpoint of this number at the last start, so that what was registered stays right; or 0."""
        kept = self.folder / "ports.json"
        ports: list[int] = json.loads(kept.read_text()) if kept.exists() else []
        return ports[number] if number < len(ports) else 0

    def keep_ports(self, ports: Sequence[int]) -> None:
        (self.folder / "ports.json").write_text(json.dumps(list(ports)))

    def save(self, world: World) -> None:
        state.save(world, self.folder / "world.json")


def site(kind: str, folder: Path, clock: Clock, *, seed: int = 1, screens_port: int = 0) -> Site:
    """The place of the platform of this kind, in a folder of its own below this one."""
    (folder / kind).mkdir(exist_ok=True)
    return Site(kind, folder / kind, clock, seed, f"127.{64 + KINDS.index(kind)}.0.0/16", screens_port)


def stand_up(at: Site) -> Platform:
    """The platform of that site; not started yet."""
    platform: Platform = import_module(f"lab.{at.name}.platform").stand_up(at)
    return platform
