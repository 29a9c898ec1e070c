"""Machines brought up from recovery points: disks are fetched by the host from this mover, then a machine is made.

land      1. every host is looked at; a finished machine is found by its stamp
          2. the whole machine is decided (`hardware`), and the host that makes it
          3. what an unfinished attempt left is removed there
open      a VHDX in our working folder, written by QEMU
commit    an errand of the host's own (a scheduled task) fetches it over HTTPS, from our dock, into the machine's
          folder, and compares its SHA-256; ours goes
finish    New-VM, with our stamp, last: a machine that stands has whole disks; a template says so in its notes
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from connectors.base import MachineRef, Stamp
from connectors.errors import CapacityExhausted, Conflict, ConnectorError, NotFound, Unreachable, Unsupported
from connectors.hyperv import faults, hardware, mapping
from connectors.hyperv.dock import Dock, Failed
from connectors.hyperv.giving import LARGEST_BLOCK, Gifts
from connectors.hyperv.hardware import Build, Place
from connectors.hyperv.nodes import TASK_COMMAND, Nodes, errand, owner_of
from connectors.hyperv.rounds import Desk
from connectors.hyperv.settings import HypervSettings
from connectors.replication import LandingWish
from disks.errors import DiskError, OutOfSpace, SinkLost, SinkRefused

if TYPE_CHECKING:
    from disks.images import ImageSink

Told = Mapping[str, Any]

CALL_S = 60.0
"""For what a host does at once while a disk is written, which has no deadline of its own."""
LOOK_S = 2.0
SILENCE_S = 60.0
"""A host that has not asked for anything for so long is looked at: it may be writing, or be gone."""
LONGEST_SILENCE_S = 900.0
"""Longer than flushing the largest file takes."""
AHEAD = 1 << 30
"""Bytes that may wait here for a host that is slower than the vault; writing waits then."""


@dataclass(frozen=True, slots=True)
class Builder:
    """What landing needs of a connector."""

    desks: Sequence[Desk]
    settings: HypervSettings
    installation: str
    workdir: Path
    silence_s: float = SILENCE_S
    behind: int = LARGEST_BLOCK
    ahead: int = AHEAD

    def nodes(self, key: str, storage: str, doing: str) -> Nodes:
        plain: dict[str, object] = {
            "installation": self.installation,
            "owner": owner_of(self.installation),
            "folder": self.settings.folder.rstrip("\\"),
            "task_command": TASK_COMMAND,
            "key": key,
            "storage": storage,
        }
        return Nodes(self.desks, "landing", plain, doing)

    def scratch(self, key: str) -> str:
        """What all images of a landing begin with."""
        return f"hyperv-landing-{key}-"

    def sweep(self, key: str) -> None:
        """What a mover that died left in the working folder."""
        for file in [*self.workdir.glob(f"{self.scratch(key)}*"), *self.workdir.glob(f".{self.scratch(key)}*")]:
            file.unlink(missing_ok=True)


def land(builder: Builder, wish: LandingWish, deadline: float) -> HypervLanding:
    """Raises `NotFound`, `CapacityExhausted`, `Unsupported`, `Busy`, `HostDown`, `Unreachable`."""
    mapping.require_usable(wish.name)
    key = str(UUID(wish.key))
    nodes = builder.nodes(key, wish.storage, f"bringing up {wish.name!a}")
    seen = nodes.all_of("look", deadline)
    for desk, told in seen:
        if told["made"]:
            return HypervLanding(builder, nodes, wish, desk, None, str(told["made"]))
    desk, told = _host(seen, wish)
    networks = [_network(wanted, told, desk, builder.settings) for wanted in wish.networks]
    build = hardware.decide(wish.configuration, networks, wish.booted_on, told["macs"])
    for other, _ in seen:
        # An attempt before this one may have begun on another node.
        nodes.ask(other, "clear", deadline)
    builder.sweep(key)
    nodes.ask(desk, "begin", deadline)
    return HypervLanding(builder, nodes, wish, desk, build, "")


def _new_image(file: Path, size: int) -> ImageSink:
    """libnbd comes from Debian alone, and desktops run without it. Raises `SinkRefused`, `OutOfSpace`."""
    try:
        from disks.images import Format, ImageSink
    except ImportError as error:
        raise SinkRefused(
            "Disk images cannot be written here: libnbd is missing. Install it: apt-get install python3-libnbd."
        ) from error
    return ImageSink(file, Format.VHDX, size)


def clear(builder: Builder, key: str, deadline: float) -> None:
    """Nothing of an unfinished landing stays; a finished machine is left alone. Raises what the hosts' calls raise."""
    key = str(UUID(key))
    builder.sweep(key)
    builder.nodes(key, "", f"clearing up after the landing {key}").all_of("clear", deadline)


def _host(seen: Sequence[tuple[Desk, Told]], wish: LandingWish) -> tuple[Desk, Told]:
    """Where it is made: as wished, or where most memory is free."""
    named = [(desk, told) for desk, told in seen if not wish.host or desk.is_called(wish.host)]
    if not named:
        raise NotFound(f"There is no host {wish.host!a} here. Choose another one.")
    fitting = [(desk, told) for desk, told in named if told["storage"]]
    if not fitting:
        where = ", ".join(desk.name for desk, _ in named)
        raise NotFound(f"There is no volume {wish.storage!a} on {where}. Choose another storage.")
    wanted = wish.configuration.vcpus
    large = [(desk, told) for desk, told in fitting if int(told["vcpus"]) >= wanted]
    if not large:
        most = max(int(told["vcpus"]) for _, told in fitting)
        raise CapacityExhausted(
            f"{wish.name!a} has {wanted} processors, and no host here has more than {most}. Choose another hypervisor."
        )
    return max(large, key=lambda one: int(one[1]["free_memory_mib"]))


def _network(wanted: str, told: Told, desk: Desk, settings: HypervSettings) -> tuple[str, int]:
    """Switch and VLAN; none for an adapter that is not to be connected."""
    if not wanted:
        return "", 0
    found = mapping.network_of(wanted, settings)
    if found["switch"] not in told["switches"]:
        raise NotFound(f"There is no network {wanted!a} on host {desk.name}. Choose another one.")
    return str(found["switch"]), int(str(found["vlan"]))


class HypervLanding:
    """A machine in the making on one host."""

    def __init__(
        self, builder: Builder, nodes: Nodes, wish: LandingWish, desk: Desk, build: Build | None, made: str
    ) -> None:
        """`build` is None for a machine that stands already: `made` is its id then."""
        self._builder, self._nodes, self._wish = builder, nodes, wish
        self._desk, self._build, self._made = desk, build, made
        self._dock: Dock | None = None
        self.gifts = Gifts(builder.behind)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._build.warnings if self._build is not None else ()

    @property
    def is_done(self) -> bool:
        return self._build is None

    def open(self, disk: str) -> HostDisk:
        """Raises `NotFound`, and what a sink raises."""
        if self._build is None:
            raise Conflict(f"Machine {self._wish.name!r} stands already. Nothing is written to its disks.")
        for number, place in enumerate(self._build.places):
            if place.disk == disk:
                return HostDisk(self._builder, self._nodes, self._desk, self._open_dock(), self.gifts, number, place)
        raise NotFound(f"The recovery point of {self._wish.name!r} holds no disk {disk!r}.")

    def _open_dock(self) -> Dock:
        if self._dock is None:
            try:
                self._dock = Dock(self._desk.address, self._builder.settings, self._builder.workdir, self.gifts)
            except Unreachable as error:
                raise SinkLost(error.message) from error
        return self._dock

    def finish(self, deadline: float) -> MachineRef:
        """Raises `Conflict` if a disk is not there, and what the host's call raises."""
        stamp = Stamp(self._builder.installation, str(self._nodes.plain["key"]))
        if self._build is None:
            return MachineRef(self._made, stamp)
        told = self._nodes.ask(
            self._desk, "finish", deadline, name=self._wish.name, template=self._wish.is_template,
            **hardware.told(self._build),
        )  # fmt: skip
        return MachineRef(str(told["id"]), stamp)

    def close(self) -> None:
        way, self._dock = self._dock, None
        if way is not None:
            way.close()


class HostDisk:
    """A `disks.base.Sink`: an image here that becomes a file on the host while it grows."""

    def __init__(
        self, builder: Builder, nodes: Nodes, desk: Desk, way: Dock, gifts: Gifts, number: int, place: Place
    ) -> None:
        """Raises `SinkRefused`, `OutOfSpace`, `SinkLost`."""
        self._builder, self._nodes, self._desk, self._way, self.gifts = builder, nodes, desk, way, gifts
        self._number = number
        tag = f"{number}-{uuid4().hex[:8]}"
        self._file = builder.workdir / f"{builder.scratch(str(nodes.plain['key']))}{tag}.vhdx"
        self._what = f"disk {place.disk} on host {desk.name}"
        self._is_over = False
        self._looked_at = self._began_at = time.monotonic()
        self._image = _new_image(self._file, place.size)
        try:
            head = gifts.begin(tag, self._image.growing)
            parameters = {"to": way.told, "image": tag, "head": head, "target": ""}
            self._call("pull", errand=errand("pull", parameters))
        except ConnectorError as error:
            self.abandon()
            raise self._problem(error) from None

    def write(self, offset: int, data: bytes) -> None:
        self._image.write(offset, data)
        self.gifts.grew()
        self._look(0.0)
        while self.gifts.waiting > self._builder.ahead + self._builder.behind:
            self._look(LOOK_S)

    def zero(self, offset: int, length: int) -> None:
        self._image.zero(offset, length)

    def commit(self) -> None:
        """Returns once the host has it, compared. Raises what `write` raises."""
        self._image.commit()
        self.gifts.complete()
        while not self._look(min(LOOK_S, self._builder.silence_s / 4)):
            pass
        self._end()

    def abandon(self) -> None:
        if not self._is_over:
            self._image.abandon()
            self._end()

    def _end(self) -> None:
        self._is_over = True
        self.gifts.give_up()
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    # --- the host ---

    def _look(self, seconds: float) -> bool:
        """Waits so long for something to happen; whether the host has it whole. Raises what `write` raises."""
        try:
            return self.gifts.wait(seconds) or self._has_it_unheard()
        except Failed as failed:
            raise self._problem(faults.of_answer(failed.fault, f"fetching {self._what}", self._desk.name)) from None
        except ConnectorError as error:
            raise self._problem(error) from None

    def _has_it_unheard(self) -> bool:
        """Asks after a host that has been silent for long. Raises `Failed`, ConnectorError, `SinkLost`."""
        heard_at = max(self.gifts.heard_at, self._began_at)
        if time.monotonic() < max(heard_at, self._looked_at) + self._builder.silence_s:
            return False
        self._looked_at = time.monotonic()
        told = self._call("errand")
        if told["state"] == "failed":
            raise Failed(told["fault"])
        if told["state"] == "ended" or self._looked_at > heard_at + LONGEST_SILENCE_S:
            raise SinkLost(f"Writing {self._what} broke off: the host is not heard of. It is begun anew.")
        return bool(told["state"] == "done")

    def _call(self, op: str, **more: object) -> Told:
        return self._nodes.ask(self._desk, op, time.monotonic() + CALL_S, number=self._number, **more)

    def _problem(self, error: ConnectorError) -> DiskError:
        if isinstance(error, CapacityExhausted):
            return OutOfSpace(f"No room for {self._what}. Make room on the volume or choose another one.")
        if isinstance(error, Unsupported):
            return SinkRefused(faults.told_in_full(error))
        never = "" if self.gifts.heard_at else f" Check that the host reaches this mover at {self._way.name}."
        return SinkLost(f"Writing {self._what} broke off. {faults.told_in_full(error)}{never}")
