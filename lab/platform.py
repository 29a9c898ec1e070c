"""A platform of the lab as a whole: its world, its endpoints, and what an administrator would enter to register it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from lab import state
from lab.clock import Clock
from lab.http import LabServer, free_port
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
    keep: Callable[[], dict[str, Any]] = dict
    """What the platform has beside its world and must not forget, as JSON: `Site.kept` gives it back."""

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
        world = World(self.name, self.seed, self.clock, folder=self.folder / "disks", guest_network=self.guest_network)
        state.load(world, self.folder / "world.json")
        return world

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    def port(self, *addresses: str) -> int:
        """One that is free at all these addresses: the same at every start, so that what was registered stays right."""
        kept = self.folder / "port"
        if not kept.exists():
            kept.write_text(str(free_port(*addresses)))
        return int(kept.read_text())

    def kept(self) -> dict[str, Any]:
        """What the platform kept beside its world when it was last saved."""
        path = self.folder / "beside.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def save(self, platform: Platform) -> None:
        """World and what is beside it, as they are at one moment."""
        with platform.world as world:
            beside = json.dumps(platform.keep())
            state.save(world, self.folder / "world.json")
        fresh = self.folder / "beside.new"
        fresh.write_text(beside)
        fresh.replace(self.folder / "beside.json")


def site(kind: str, folder: Path, clock: Clock, *, seed: int = 1, screens_port: int = 0) -> Site:
    """The place of the platform of this kind, in a folder of its own below this one."""
    (folder / kind).mkdir(exist_ok=True)
    return Site(kind, folder / kind, clock, seed, f"127.{64 + KINDS.index(kind)}.0.0/16", screens_port)


def stand_up(at: Site) -> Platform:
    """The platform of that site; not started yet."""
    platform: Platform = import_module(f"lab.{at.name}.platform").stand_up(at)
    return platform
