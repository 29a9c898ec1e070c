"""Disk images of every maker in local files, read and written by QEMU's own tools: no format is parsed here.

An image is served by a qemu-nbd of its own on a socket in a private folder. It ends with its only client, so nothing is
left running when this process dies. The format is always named: guessing it would let a guest choose it, who writes
the first bytes of a raw disk.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TypeVar

from disks.base import Extent
from disks.errors import DiskError, OutOfSpace, Refused, SinkLost, SinkRefused, SourceRefused
from disks.nbd import Export, NbdSink, NbdSource
from disks.raw import settle, write_error

T = TypeVar("T")

READY_S = 20.0
"""Until an image is served; it takes some 50 ms."""
END_S = 600.0
"""Until what was written has reached the disk when an image is closed."""
STOP_S = 5.0
"""Until a server that is asked to end has ended."""


LEAKS, NO_BOOKS = 3, 63
"""What qemu-img check ends with for an image that wastes room, and for a format that has nothing to be checked."""


class Format(StrEnum):
    """How an image is laid out."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    """VMware, monolithicSparse."""
    VMDK_STREAM = "vmdk-stream"
    """VMware, streamOptimized: what goes into an OVA. Written once from front to back, compressed."""
    VHD = "vhd"
    """Hyper-V's older one, dynamic."""
    VHDX = "vhdx"


DRIVERS = {Format.VMDK_STREAM: "vmdk", Format.VHD: "vpc"}
"""What QEMU calls them, where it has a word of its own."""
OPTIONS = {
    Format.VMDK: "subformat=monolithicSparse,adapter_type=lsilogic",
    Format.VMDK_STREAM: "subformat=streamOptimized,adapter_type=lsilogic",
    # Without it the size would be rounded to what cylinders and heads can say.
    Format.VHD: "force_size=on",
}


def _driver(kind: Format) -> str:
    return DRIVERS.get(kind, kind.value)


@dataclass(frozen=True, slots=True)
class Image:
    """What an image says of itself."""

    size: int
    """Bytes of the disk in it."""
    is_alone: bool
    """Whether it needs no other file: a backing image, a data file, an extent beside it."""


def inspect(path: Path, kind: Format) -> Image:
    """Raises `SourceRefused` for what is no image of that kind."""
    command = ["qemu-img", "info", "--output=json", "-U", "-f", _driver(kind), "--", str(path.absolute())]
    done = _run(command)
    if done.returncode != 0:
        raise SourceRefused(f"Cannot read {path} as {kind}: {_words(done.stderr)}. Check the file and its format.")
    told = json.loads(done.stdout)
    details = told.get("format-specific", {}).get("data", {})
    others = [told.get("backing-filename"), details.get("data-file")]
    others += [part.get("filename") for part in details.get("extents", [])]
    return Image(int(told["virtual-size"]), all(other in {None, str(path.absolute())} for other in others))


def require_sound(path: Path, kind: Format) -> None:
    """Raises `SourceRefused` for an image whose own books name places that its file does not reach: QEMU reads those as
    zeros and says nothing. Less than a cluster that is missing at the end is not found; formats without books pass.
    """
    done = _run(["qemu-img", "check", "-q", "-U", "-f", _driver(kind), "--", str(path.absolute())])
    if done.returncode not in (0, LEAKS, NO_BOOKS):
        raise SourceRefused(f"The image {path} is damaged: {_words(done.stderr)}. Bring it here anew.")


class ImageSource:
    """An image file as it is while it is open. It is not locked: nobody may write it meanwhile."""

    def __init__(self, path: Path, kind: Format) -> None:
        """Raises `SourceRefused`, also for an image that would read other files: they may be anybody's."""
        if not inspect(path, kind).is_alone:
            raise SourceRefused(
                f"{path} is only a part of a disk: it needs other files. Convert it to a whole image first."
            )
        self._server = _Server(path, kind, for_writing=False)
        try:
            self._disk = self._server.client(NbdSource)
        except DiskError as error:
            raise SourceRefused(f"Cannot serve {path} as {kind}: {self._server.stop()}. Check the file.") from error

    @property
    def size(self) -> int:
        return self._disk.size

    def extents(self) -> Iterator[Extent]:
        return self._disk.extents()

    def read(self, offset: int, length: int) -> bytes:
        return self._disk.read(offset, length)

    def close(self) -> None:
        self._disk.close()
        self._server.stop()


class ImageSink:
    """A new image. It has its name once it is committed; before, it lies beside it under a name of its own.

    A streamOptimized image is written as qcow2 first and converted by the commit: it takes its room twice meanwhile.
    """

    def __init__(self, path: Path, kind: Format, size: int) -> None:
        """What stands at `path` is replaced by the commit. Raises `SinkRefused`, `OutOfSpace`."""
        path = path.absolute()  # QEMU takes what has a colon before its first slash for a protocol
        self._path, self._kind = path, kind
        self._scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        self._written = Format.QCOW2 if kind is Format.VMDK_STREAM else kind
        self._server: _Server | None = None
        self._disk: NbdSink | None = None
        options = ["-o", OPTIONS[self._written]] if self._written in OPTIONS else []
        command = [
            "qemu-img",
            "create",
            "-q",
            "-f",
            _driver(self._written),
            *options,
            "--",
            str(self._scratch),
            str(size),
        ]
        try:
            self._require(_run(command))
            self._server = _Server(self._scratch, self._written, for_writing=True)
            self._disk = self._server.client(partial(NbdSink, is_fresh=True))
        except DiskError:
            self.abandon()
            raise

    @property
    def growing(self) -> Path:
        """Where it lies until it has its name."""
        return self._scratch

    def write(self, offset: int, data: bytes) -> None:
        self._open_disk().write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Nothing to do: offsets rise, and a new image is zeros where nothing was written."""

    def _open_disk(self) -> NbdSink:
        if self._disk is None:
            raise ValueError("this copy has ended")
        return self._disk

    def commit(self) -> None:
        disk, server = self._open_disk(), self._server
        if server is None:
            raise ValueError("this copy has ended")
        disk.commit()
        words = server.ended()
        self._server = self._disk = None
        if words:
            raise SinkLost(f"Cannot finish {self._path}: {words}. Check the storage it lies on.")
        whole = self._converted() if self._written is not self._kind else self._scratch
        try:
            with whole.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(whole, self._path)
            settle(self._path.parent)
        except OSError as error:
            raise write_error(error, self._path) from error

    def _converted(self) -> Path:
        whole = self._scratch.with_suffix(".whole")
        command = ["qemu-img", "convert", "-q", "-f", _driver(self._written), "-O", _driver(self._kind)]
        command += ["-o", OPTIONS[self._kind], "--", str(self._scratch), str(whole)]
        try:
            self._require(_run(command))
        except DiskError:
            whole.unlink(missing_ok=True)
            raise
        self._scratch.unlink(missing_ok=True)
        return whole

    def _require(self, done: subprocess.CompletedProcess[str]) -> None:
        if done.returncode == 0:
            return
        words = _words(done.stderr)
        if "No space left" in words or "quota" in words:
            raise OutOfSpace(f"No room for {self._path}. Make room there or choose another place.")
        raise SinkRefused(f"Cannot make {self._path} as {self._kind}: {words}. Check the folder and its rights.")

    def abandon(self) -> None:
        if self._server is not None:
            if self._disk is not None:
                self._disk.abandon()
            self._server.stop()
            self._server = self._disk = None
        with suppress(OSError):
            self._scratch.unlink()


class _Server:
    """A qemu-nbd that serves one image to one client, once."""

    def __init__(self, path: Path, kind: Format, *, for_writing: bool) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nbd-"))  # mode 0700
        self.export = Export(socket=self._folder / "socket")
        # Nothing waits for the disk before the flush of the commit; a crash before it leaves no copy anyway.
        mode = ["--cache=writeback", "--discard=unmap"] if for_writing else ["--read-only"]
        command = [
            "qemu-nbd",
            *mode,
            f"--socket={self.export.socket}",
            f"--format={_driver(kind)}",
            "--",
            str(path.absolute()),
        ]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise _no_tools() from error
        until = time.monotonic() + READY_S
        while not (self._folder / "socket").exists() and self._process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        self._ready_until = until

    def client(self, connect: Callable[[Export], T]) -> T:
        """The only one. Raises what connecting raises.

        The socket is there a moment before QEMU listens on it. As long as it has not ended, which it does after its
        client, nobody has come through.
        """
        while True:
            try:
                return connect(self.export)
            except DiskError:
                if self._process.poll() is not None or time.monotonic() >= self._ready_until:
                    raise
            time.sleep(0.005)

    def ended(self) -> str:
        """Waits for the end that follows the client's; what went wrong with the image, or nothing."""
        try:
            _, words = self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            return self.stop() or "it was not closed in time"
        shutil.rmtree(self._folder, ignore_errors=True)
        code = self._process.returncode
        return "" if code == 0 else _words(words) or f"qemu-nbd ended with {code}"

    def stop(self) -> str:
        """Ends it whether or not somebody reads; what it said, if anything."""
        self._process.terminate()
        try:
            _, words = self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            # Asked before it has begun to serve, QEMU forgets it.
            self._process.kill()
            _, words = self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)
        return _words(words)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
        )
    except OSError as error:
        raise _no_tools() from error


def _no_tools() -> Refused:
    return Refused("qemu-img or qemu-nbd cannot be started. Install the package qemu-utils.")


def _words(stderr: str) -> str:
    """The last thing that the tool said, without its own name."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return lines[-1].removeprefix("qemu-img: ").removeprefix("qemu-nbd: ").rstrip(".") if lines else ""
