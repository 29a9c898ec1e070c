"""Images of every maker; QEMU's own comparison says whether two hold the same disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from disks import images
from disks.copying import copy
from disks.errors import DiskError, OutOfSpace, Refused, SinkRefused, SourceRefused
from disks.images import Format, ImageSink, ImageSource, inspect, require_sound
from disks.raw import RawSink, RawSource
from tests.disks.memory import MemorySink
from tests.support.scratch import scratch_directory

MIB = 1 << 20
SIZE = 20 * MIB + 512 * 7
"""No whole number of cylinders, clusters or blocks of any format."""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.seek(3 * MIB)
        file.write(b"d" * MIB + bytes(MIB) + b"e" * 5000)
        file.seek(SIZE - 512)
        file.write(b"end" * 170 + b"..")
    return path


@pytest.fixture(autouse=True)
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the private folders of the servers lie: nothing is left there.

    Asks for `tmp_path` so that pytest makes its own folder first, which would otherwise lie in this one.
    """
    with scratch_directory("images") as scratch:
        folder = scratch / "s"
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield folder


def copied(raw: Path, path: Path, kind: Format) -> None:
    source, sink = RawSource(raw), ImageSink(path, kind, SIZE)
    copy(source, sink)
    sink.commit()
    source.close()


@pytest.mark.parametrize("kind", Format)
def test_an_image_holds_the_disk_that_was_written(raw: Path, tmp_path: Path, kind: Format, sockets: Path) -> None:
    path = tmp_path / "copy.image"
    copied(raw, path, kind)
    driver = images.DRIVERS.get(kind, kind)
    subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", driver, raw, path], check=True)
    assert inspect(path, kind) == images.Image(SIZE, is_alone=True)

    source, back = ImageSource(path, kind), tmp_path / "back.raw"
    sink = RawSink(back, source.size)
    copy(source, sink)
    sink.commit()
    source.close()
    assert back.read_bytes() == raw.read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"disk.raw", "copy.image", "back.raw"}
    assert not list(sockets.iterdir())


def test_a_streamed_vmdk_is_one(raw: Path, tmp_path: Path) -> None:
    copied(raw, tmp_path / "copy.vmdk", Format.VMDK_STREAM)
    told = subprocess.run(["qemu-img", "info", tmp_path / "copy.vmdk"], capture_output=True, text=True, check=True)
    assert "streamOptimized" in told.stdout


@pytest.mark.parametrize("kind", [Format.QCOW2, Format.VMDK, Format.VHD])
def test_zeros_take_no_room(raw: Path, tmp_path: Path, kind: Format) -> None:
    copied(raw, tmp_path / "copy.image", kind)
    assert (tmp_path / "copy.image").stat().st_blocks * 512 < 8 * MIB


@pytest.mark.parametrize("kind", Format)
def test_an_abandoned_image_leaves_nothing(tmp_path: Path, kind: Format, sockets: Path) -> None:
    sink = ImageSink(tmp_path / "copy.image", kind, SIZE)
    sink.write(0, b"x" * 512)
    sink.abandon()
    sink.abandon()
    assert not list(tmp_path.iterdir())
    assert not list(sockets.iterdir())
    with pytest.raises(ValueError, match="ended"):
        sink.commit()


def test_an_image_that_needs_other_files_is_refused(raw: Path, tmp_path: Path) -> None:
    """A disk that somebody uploads must not read a file of ours."""
    linked = tmp_path / "linked.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, linked], check=True)
    parts = tmp_path / "parts.vmdk"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", parts, "1M"], check=True
    )
    for path, kind in ((linked, Format.QCOW2), (parts, Format.VMDK)):
        with pytest.raises(SourceRefused, match="other files"):
            ImageSource(path, kind)


def test_an_image_whose_end_is_missing_is_not_sound_though_it_can_be_read(raw: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    require_sound(image, Format.QCOW2)
    require_sound(raw, Format.RAW)
    os.truncate(image, image.stat().st_size - (128 << 10))
    ImageSource(image, Format.QCOW2).close()
    with pytest.raises(SourceRefused, match="is damaged"):
        require_sound(image, Format.QCOW2)


def test_a_format_is_believed_and_not_guessed(raw: Path, tmp_path: Path) -> None:
    copied(raw, tmp_path / "copy.qcow2", Format.QCOW2)
    for kind in (Format.VHDX, Format.VHD, Format.VMDK):
        with pytest.raises(SourceRefused):
            ImageSource(tmp_path / "copy.qcow2", kind)
    whole = ImageSource(tmp_path / "copy.qcow2", Format.RAW)
    assert whole.read(0, 3) == b"QFI"
    whole.close()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused) as raised:
        ImageSource(tmp_path / "nowhere.qcow2", Format.QCOW2)
    assert "nowhere.qcow2" in raised.value.message
    with pytest.raises(SinkRefused):
        ImageSink(tmp_path / "nowhere" / "copy.qcow2", Format.QCOW2, SIZE)


def test_a_path_that_looks_like_an_option_or_a_protocol_is_a_path(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-O", "nbd:localhost:1", "json:{}"):
        copied(raw, Path(name), Format.QCOW2)
        source = ImageSource(Path(name), Format.QCOW2)
        assert source.read(3 * MIB, 1) == b"d"
        source.close()


def test_a_server_that_dies_makes_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sockets: Path) -> None:
    sink = ImageSink(tmp_path / "copy.qcow2", Format.QCOW2, SIZE)
    sink.write(0, b"x" * 512)
    server = sink._server
    assert server is not None
    server._process.kill()
    server._process.wait()
    with pytest.raises(DiskError):
        sink.commit()
    sink.abandon()
    assert not list(tmp_path.iterdir())
    assert not list(sockets.iterdir())


def in_front_of_qemu(folder: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A qemu-nbd that first binds its socket without listening on it, then does this."""
    folder.mkdir()
    program = folder / "qemu-nbd"
    program.write_text(
        f"#!{sys.executable}\nimport os, signal, socket, sys, time\n"
        "at = next(one for one in sys.argv if one.startswith('--socket=')).removeprefix('--socket=')\n"
        f"socket.socket(socket.AF_UNIX).bind(at)\n{lines}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_server_that_does_not_listen_yet_is_waited_for(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"time.sleep(0.3); os.unlink(at); os.execv({shutil.which('qemu-nbd')!r}, sys.argv)"
    in_front_of_qemu(tmp_path / "bin", lines, monkeypatch)
    copied(raw, tmp_path / "copy.vhdx", Format.VHDX)
    source = ImageSource(tmp_path / "copy.vhdx", Format.VHDX)
    assert source.read(3 * MIB, 512) == b"d" * 512
    source.close()


def test_a_server_that_never_listens_and_does_not_hear_is_ended(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_front_of_qemu(tmp_path / "bin", "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)", monkeypatch)
    monkeypatch.setattr(images, "READY_S", 0.5)
    monkeypatch.setattr(images, "STOP_S", 0.2)
    with pytest.raises(SourceRefused, match="Cannot serve"):
        ImageSource(raw, Format.RAW)


def test_without_qemus_tools_it_says_which_package_to_install(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="qemu-utils"):
        ImageSource(raw, Format.RAW)


def test_a_full_file_system_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "qemu-img: x: error: No space left on device\n")

    monkeypatch.setattr(images, "_run", full)
    with pytest.raises(OutOfSpace):
        ImageSink(tmp_path / "copy.qcow2", Format.QCOW2, SIZE)


def test_reading_an_image_gives_extents_that_cover_it(raw: Path, tmp_path: Path) -> None:
    copied(raw, tmp_path / "copy.vmdk", Format.VMDK)
    source = ImageSource(tmp_path / "copy.vmdk", Format.VMDK)
    extents = list(source.extents())
    assert sum(extent.length for extent in extents) == SIZE
    sink = MemorySink(b"\xff" * SIZE)
    copy(source, sink)
    source.close()
    assert sink.content == raw.read_bytes()
