"""Scheduled tasks of a host that carry out our scripts by themselves, as SYSTEM: `serve 1` and `pull 1`.

What is real: they connect to the mover over TLS, compare its certificate, and carry the world's own bytes. They run in
threads and in real time, and live on when the remote shell has gone.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.contents import Token
from lab.errors import UnknownToken, WorldError
from lab.hyperv.courier import Courier, Mover, WrongCertificate
from lab.hyperv.words import Thrown, fault_of

if TYPE_CHECKING:
    from lab.hyperv.host import HypervHost

Told = Mapping[str, Any]

PATIENCE_S = 2.0
"""How long a line that is broken is tried again; the scripts do for a minute."""
PAUSE_S = 0.05
PIECE = 4 << 20
SECTOR = 512
MOST_CHANGES = 1 << 30
"""Bytes of a disk that GetVirtualDiskChanges looks at in one go: it may be less than it was asked for."""
_SCRIPT = re.compile(r"# deskyard-script: (\w+ \d+)\n")
_COMMAND = re.compile(r"-NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand ([A-Za-z0-9+/=]+)")


def script_of(text: str) -> str:
    found = _SCRIPT.match(text)
    return found[1] if found else ""


@dataclass(eq=False)
class Errand:
    host: HypervHost
    script: str
    parameters: Told
    ended: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    fault: dict[str, Any] | None = None
    held: set[str] = field(default_factory=set)
    """Disks that it has mounted."""
    courier: Courier = field(init=False)

    def __post_init__(self) -> None:
        self.courier = Courier(Mover.of(self.parameters["to"]))

    def cancel(self) -> None:
        """The process is ended: what it has mounted stays so."""
        self.cancelled.set()
        self.courier.cut()
        self.ended.wait(5.0)

    def run(self) -> None:
        courier = self.courier
        try:
            if self.script == "serve 1":
                self._serve(courier)
            else:
                self._pull(courier)
        except (Thrown, WorldError, OSError, http.client.HTTPException) as error:
            self.fault = fault_of(error)
        except WrongCertificate:
            self.fault = fault_of(Thrown("Deskyard.WrongCertificate"))
        finally:
            courier.close()
            if not self.cancelled.is_set():
                self.held.clear()  # one that was ended leaves what it has mounted
            self.ended.set()

    def _strikes(self, what: str, *kinds: str) -> bool:
        return self.host.world.faults.take(f"{what} {self.host.id}", *kinds) is not None

    # --- serve 1

    def _serve(self, courier: Courier) -> None:
        headers: dict[str, str] = {}
        body, heard = b"", time.monotonic()
        while not self.cancelled.is_set():
            try:
                if self._strikes("serve", "drop_before"):
                    courier.close()
                    raise ConnectionResetError("cut")
                status, told = courier.ask("POST", "/work", headers, body)
            except (OSError, http.client.HTTPException):
                courier.close()
                if time.monotonic() > heard + PATIENCE_S:
                    raise
                self.cancelled.wait(PAUSE_S)
                headers, body = {}, b""
                continue
            heard = time.monotonic()
            asked = json.loads(told) if status == 200 else {"what": "end"}
            if asked["what"] == "end":
                return
            if self._strikes("serve", "task_fails"):
                raise Thrown("System.OutOfMemoryException")
            headers, body = self._answer(asked) if asked["what"] != "wait" else ({}, b"")

    def _answer(self, asked: Told) -> tuple[dict[str, str], bytes]:
        headers = {"X-Answer": str(asked["number"])}
        try:
            disk = next((it for it in self.parameters["disks"] if it["name"] == asked["disk"]), None)
            if disk is None:
                raise Thrown("Deskyard.NoDisk")
            offset, length = int(asked["offset"]), int(asked["length"])
            if asked["what"] == "changes":
                return headers, json.dumps(changes(self.host, disk["path"], disk["limit"], offset, length)).encode()
            return self._read(headers, str(disk["path"]), offset, length)
        except (Thrown, WorldError) as error:
            return headers | {"X-Fault": "1"}, json.dumps(fault_of(error)).encode()

    def _read(self, headers: dict[str, str], path: str, offset: int, length: int) -> tuple[dict[str, str], bytes]:
        if offset % SECTOR or length % SECTOR:
            raise Thrown("System.IO.IOException")  # a raw disk is read in whole sectors
        with self.host.world:
            disk = self.host.estate.disk_at(path)
            self.held.add(disk)
        data = self.host.world.read(disk, offset, length)
        packed = zlib.compressobj(1, wbits=-15)
        small = packed.compress(data) + packed.flush()
        return (headers | {"Content-Encoding": "deflate"}, small) if len(small) < len(data) else (headers, data)

    # --- pull 1

    def _pull(self, courier: Courier) -> None:
        image = {"X-Image": str(self.parameters["image"])}
        try:
            with tempfile.TemporaryDirectory(prefix="lab-pull-") as folder:
                file = Path(folder) / "image"
                self._fetch(courier, image, file)
                self._enter(file, str(self.parameters["target"]))
        except (Thrown, WorldError) as error:
            with suppress(OSError, http.client.HTTPException):
                courier.ask("POST", "/done", image | {"X-Fault": "1"}, json.dumps(fault_of(error)).encode())
            raise
        with suppress(OSError, http.client.HTTPException):  # the mover looks, and finds the file
            if not self._strikes("pull", "drop_after"):
                courier.ask("POST", "/done", image)

    def _fetch(self, courier: Courier, image: Mapping[str, str], path: Path) -> None:
        head, digest = int(self.parameters["head"]), hashlib.sha256()
        at = head
        with path.open("wb") as file:
            while True:
                status, data = self._told(courier, "/image", {**image, "X-From": str(at)})
                if status == 200:
                    break
                file.seek(at)
                file.write(data)
                digest.update(data)
                at += len(data)
            whole = json.loads(data)
            _, tables = self._told(courier, "/head", image)
            file.seek(0)
            file.write(tables)
        digest.update(tables)
        if (at, len(tables), digest.hexdigest()) != (whole["bytes"], head, whole["sha256"]):
            raise Thrown("Deskyard.Garbled")

    def _told(self, courier: Courier, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """What may be asked again is, until the line has been broken for too long."""
        heard = time.monotonic()
        while True:
            if self.cancelled.is_set():
                raise Thrown("Deskyard.Refused")
            try:
                if self._strikes("pull", "drop_before"):
                    courier.close()
                    raise ConnectionResetError("cut")
                status, data = courier.ask("GET", path, headers)
            except (OSError, http.client.HTTPException):
                courier.close()
                if time.monotonic() > heard + PATIENCE_S:
                    raise
                self.cancelled.wait(PAUSE_S)
                continue
            if status not in (200, 204, 206):
                raise Thrown("Deskyard.Refused")
            if self._strikes("pull", "task_fails"):
                raise Thrown("System.OutOfMemoryException")
            if self._strikes("pull", "truncate"):
                data = data[:-1] + bytes([data[-1] ^ 1]) if data else data
            return status, data

    def _enter(self, image: Path, target: str) -> None:
        """What Hyper-V will find in the file: QEMU reads it, and refuses what is no VHDX."""
        raw = image.with_suffix(".raw")
        done = subprocess.run(
            ["qemu-img", "convert", "-f", "vhdx", "-O", "raw", "--", str(image), str(raw)],
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise Thrown("OperationFailed,Microsoft.Vhd.PowerShell.Cmdlets.GetVhd")
        world, estate = self.host.world, self.host.estate
        with world:
            storage = self.host.volume_of(target)
            disk = world.new_disk(storage, capacity=raw.stat().st_size)
        try:
            for offset, data in _data_of(raw):
                with world:
                    world.write(disk.id, offset, data)
        except BaseException:
            with world:
                world.erase_disk(disk.id)
            raise
        with world:
            if self.cancelled.is_set():
                world.erase_disk(disk.id)
            else:
                if old := estate.files.get(target):
                    world.erase_disk(old)
                estate.files[target] = disk.id


def _data_of(raw: Path) -> Iterator[tuple[int, bytes]]:
    file = os.open(raw, os.O_RDONLY)
    try:
        size, at = os.fstat(file).st_size, 0
        while at < size:
            try:
                at = os.lseek(file, at, os.SEEK_DATA)
            except OSError:
                return  # no data any more
            stop = os.lseek(file, at, os.SEEK_HOLE)
            while at < stop:
                data = os.pread(file, min(PIECE, stop - at), at)
                yield at, data
                at += len(data)
    finally:
        os.close(file)


def changes(host: HypervHost, path: str, limit: str, offset: int, length: int) -> dict[str, Any]:
    """GetVirtualDiskChanges: what was written to the disk in that file after the reference point."""
    world = host.world
    with world:
        disk = host.estate.disk_at(path)
        stop = min(offset + length, offset + MOST_CHANGES)
        if length <= 0 or offset + length > world.disks[disk].capacity:
            raise Thrown("Deskyard.NoChanges")
        try:
            areas = world.changed(disk, Token.of(limit))
        except UnknownToken as error:
            raise Thrown("Deskyard.NoChanges") from error
    found = [(max(it.offset, offset), min(it.offset + it.length, stop)) for it in areas]
    found = [(start, end) for start, end in found if start < end]
    return {
        "processed": stop - offset,
        "offsets": [start for start, _ in found],
        "lengths": [end - start for start, end in found],
    }


@dataclass
class Errands:
    """Of one host: folders below ProgramData\\Deskyard\\errands and the scheduled tasks that belong to them."""

    host: HypervHost
    known: dict[tuple[str, str, str], Errand] = field(default_factory=dict)
    """Installation's tag, whose, name."""

    def start(self, parameters: Told, whose: str, name: str, script: str) -> None:
        self.stop(parameters["owner"], whose, name)
        self._require_task(str(parameters["task_command"]))
        told = parameters["errand"]
        if script_of(str(told["s"])) != script:
            raise Thrown("CommandNotFoundException")
        errand = Errand(self.host, script, told["p"])
        self.known[str(parameters["owner"]), whose, name] = errand
        threading.Thread(target=errand.run, name=f"errand {name[:8]}", daemon=True).start()

    def _require_task(self, command: str) -> None:
        found = _COMMAND.fullmatch(command)
        if found is None or script_of(base64.b64decode(found[1]).decode("utf-16-le")) != "task 1":
            raise Thrown("CommandNotFoundException")

    def stop(self, owner: str, whose: str, name: str) -> None:
        """Ended, dismounted, gone."""
        errand = self.known.pop((owner, whose, name), None)
        if errand is not None:
            errand.cancel()
            errand.held.clear()

    def of(self, owner: str, whose: str) -> list[str]:
        return [name for tag, one, name in self.known if (tag, one) == (owner, whose)]

    def told(self, owner: str, whose: str, name: str) -> dict[str, Any]:
        errand = self.known.get((owner, whose, name))
        if errand is None or (errand.ended.is_set() and errand.fault is None):
            return {"state": "ended"}
        if errand.fault is not None and errand.ended.is_set():
            return {"state": "failed", "fault": errand.fault}
        return {"state": "running"}

    def holds(self, disk: str) -> bool:
        return any(disk in errand.held for errand in self.known.values())
