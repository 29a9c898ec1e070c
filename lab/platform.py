"""A platform of the lab as a whole: its world, its endpoints, and what an administrator would enter to register it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.http import LabServer
from lab.world import World


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
