"""A disk on its way to HyperCore: an image on this machine, then one upload, then a virtual disk.

The image is written by QEMU's tools, since it is whole only in the end, and an upload wants its length beforehand. The
upload goes on in a thread of its own, so that whoever waits can say how far it is, be stopped, and stop it.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from connectors.base import Order
from connectors.errors import Busy, CapacityExhausted, ConnectorError, PlatformFault
from connectors.hypercore import faults
from connectors.hypercore import work as working
from connectors.hypercore.carrying import Carrier
from connectors.hypercore.client import segment
from connectors.hypercore.exported import SLICE_S, load_images
from connectors.hypercore.faults import Refusal
from connectors.hypercore.mapping import CONVERTING, UPLOADING
from connectors.hypercore.scratch import Scratch
from connectors.hypercore.work import Started, Work
from disks.errors import DiskError, OutOfSpace, SinkLost, SinkRefused

CONVERT_S = 6 * 3600.0
"""How long HyperCore may take an uploaded image apart."""


class UploadedDisk:
    """An image on this machine, then a virtual disk. A `disks.base.Sink`, and a `disks.base.Slow` one.

    `abandon` removes both; where HyperCore does not answer it cannot, and `clear` does.
    """

    def __init__(self, carrier: Carrier, image: str, size: int) -> None:
        """Raises `SinkRefused`, `OutOfSpace`."""
        images = load_images()
        self.image = image
        self.is_whole = False
        self._carrier = carrier
        self._scratch = Scratch(carrier.surroundings.workdir)
        self._path = self._scratch.folder / "disk.qcow2"
        self._upload: _Upload | None = None
        self._until = 0.0
        try:
            self._written: Any = images.ImageSink(self._path, images.Format.QCOW2, size)
        except BaseException:
            self._scratch.close()
            raise

    def write(self, offset: int, data: bytes) -> None:
        self._written.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._written.zero(offset, length)

    def advance(self, until: float) -> str:
        """After the last byte: uploads, and waits until HyperCore has taken the image apart."""
        if self.is_whole:
            return ""
        if self._upload is None:
            self._written.commit()
            self._upload = _Upload(self._carrier, self._path, self.image)
            self._until = time.monotonic() + CONVERT_S
        if step := self._upload.wait(until):
            return step
        while not self._is_there():
            if time.monotonic() >= self._until:
                raise SinkLost(f"HyperCore does not come to an end with the image {self.image}. It is sent anew.")
            if time.monotonic() >= until:
                return "HyperCore takes the uploaded disk apart"
            time.sleep(working.TASK_S)
        self.is_whole = True
        self._scratch.close()
        return ""

    def _is_there(self) -> bool:
        """Raises `SinkLost` once no record bears its name any more."""
        names_there = self._ask()
        if self.image in names_there:
            return True
        if not {f"{UPLOADING}{self.image}", f"{CONVERTING}{self.image}"} & names_there:
            raise SinkLost(f"HyperCore did not keep the image {self.image}. It is sent anew.")
        return False

    def _ask(self) -> set[str]:
        def look(work: Work[Order]) -> set[str]:
            return {disk.name for disk in work.view.virtual_disks()}

        try:
            return self._carrier.carry_out("", time.monotonic() + 60.0, look)
        except ConnectorError as error:
            raise problem_of(error, self.image) from error

    def commit(self) -> None:
        while self.advance(time.monotonic() + SLICE_S):
            pass

    def abandon(self) -> None:
        if self.is_whole:
            return
        with suppress(DiskError):
            self._written.abandon()
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stop()
            with suppress(ConnectorError):
                self._carrier.carry_out("", time.monotonic() + 30.0, self._drop)
        self._scratch.close()

    def _drop(self, work: Work[Order]) -> None:
        for disk in work.view.virtual_disks():
            if disk.name in (self.image, f"{UPLOADING}{self.image}", f"{CONVERTING}{self.image}"):
                with suppress(Started):
                    work.change("Removing a virtual disk", "DELETE", f"/VirtualDisk/{segment(disk.id)}")


class _Upload:
    """One request, in a thread of its own: so that whoever waits can say how far it is, and stop it."""

    def __init__(self, carrier: Carrier, path: Path, image: str) -> None:
        self._carrier = carrier
        self._image = image
        self._content = _Content(path)
        self._problem: DiskError | None = None
        self._task = ""
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        size = len(self._content)
        path = f"/VirtualDisk/upload?filename={segment(self._image)}&filesize={size}"
        try:
            self._task = self._carrier.wire.upload(path, self._content, "uploading a disk").task
        except Refusal as refusal:
            self._problem = problem_of(
                faults.ours(refusal, "uploading a disk", self._carrier.settings.endpoint), self._image
            )
        except ConnectorError as error:
            self._problem = problem_of(error, self._image)
        except Exception as error:  # noqa: BLE001 - told by the thread that waits
            self._problem = SinkLost(f"The image {self._image} could not be sent ({type(error).__name__}).")
        finally:
            self._content.close()

    def wait(self, until: float) -> str:
        """What it is at; empty once HyperCore has received it. Raises `DiskError`."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            return f"Uploads the disk to HyperCore: {self._content.percent} %"
        if self._problem is not None:
            raise self._problem
        if self._task:
            self._settle(until)
        return "HyperCore receives the disk" if self._task else ""

    def _settle(self, until: float) -> None:
        def wait(work: Work[Order]) -> None:
            work.receipt["task"] = self._task
            work.begin("Uploading a disk")
            work.settle_task()

        try:
            self._carrier.carry_out("", until, wait)
        except Busy:
            return
        except ConnectorError as error:
            raise problem_of(error, self._image) from error
        self._task = ""

    def stop(self) -> None:
        self._content.is_stopped = True
        self._thread.join(10.0)


class _Content:
    """A file on its way, which may be stopped."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size
        self._sent = 0
        self.is_stopped = False

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1, /) -> bytes:
        if self.is_stopped:
            raise OSError("the upload was stopped")
        data = self._file.read(size)
        self._sent += len(data)
        return data

    def rewind(self) -> None:
        self._file.seek(0)
        self._sent = 0

    @property
    def percent(self) -> int:
        return 100 * self._sent // max(1, self._size)

    def close(self) -> None:
        self._file.close()


def problem_of(error: ConnectorError, image: str) -> DiskError:
    """Of the cluster, in the middle of a disk."""
    what = f"The image {image} did not get to HyperCore. {error.message}"
    if isinstance(error, CapacityExhausted):
        return OutOfSpace(what)
    # What failed in HyperCore's own way may well not do so again.
    is_final = not error.retry and not isinstance(error, PlatformFault)
    return SinkRefused(what) if is_final else SinkLost(what)
