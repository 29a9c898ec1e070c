"""Raw files with holes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from disks.base import Extent
from disks.copying import copy
from disks.errors import DiskError, OutOfSpace, SinkLost, SinkRefused, SourceLost, SourceRefused
from disks.raw import RawSink, RawSource

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """5 MiB and a bit, of which the second MiB and the last bytes are data."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(5 * MIB + 512)
        file.seek(MIB)
        file.write(b"d" * MIB)
        file.seek(5 * MIB)
        file.write(b"e" * 512)
    return path


def test_holes_are_zeros_and_everything_is_named(disk: Path) -> None:
    source = RawSource(disk)
    assert source.size == 5 * MIB + 512
    assert list(source.extents()) == [
        Extent(0, MIB, is_zero=True),
        Extent(MIB, MIB),
        Extent(2 * MIB, 3 * MIB, is_zero=True),
        Extent(5 * MIB, 512),
    ]
    source.close()
    source.close()


def test_a_file_of_nothing_but_a_hole_is_zeros(tmp_path: Path) -> None:
    path = tmp_path / "empty.raw"
    with path.open("wb") as file:
        file.truncate(MIB)
    source = RawSource(path)
    assert list(source.extents()) == [Extent(0, MIB, is_zero=True)]
    source.close()


def test_a_copy_is_equal_and_as_sparse(disk: Path, tmp_path: Path) -> None:
    source, target = RawSource(disk), tmp_path / "copy.raw"
    sink = RawSink(target, source.size)
    copy(source, sink)
    sink.commit()
    source.close()
    assert target.read_bytes() == disk.read_bytes()
    assert target.stat().st_blocks <= disk.stat().st_blocks + 8


def test_nothing_has_the_name_before_the_commit(tmp_path: Path) -> None:
    target = tmp_path / "copy.raw"
    target.write_bytes(b"before")
    sink = RawSink(target, 512)
    sink.write(0, b"x" * 512)
    assert target.read_bytes() == b"before"
    sink.commit()
    sink.abandon()
    assert target.read_bytes() == b"x" * 512
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(ValueError, match="ended"):
        sink.write(0, b"x")


def test_an_abandoned_copy_leaves_nothing(tmp_path: Path) -> None:
    sink = RawSink(tmp_path / "copy.raw", 512)
    sink.write(0, b"x")
    sink.abandon()
    sink.abandon()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path, Path("/dev/null")):
        with pytest.raises(SourceRefused) as raised:
            RawSource(path)
        assert str(path) in raised.value.message


def test_a_disk_that_shrinks_while_it_is_read_is_lost(disk: Path) -> None:
    source = RawSource(disk)
    os.truncate(disk, MIB)
    with pytest.raises(SourceLost):
        source.read(MIB - 10, 20)
    source.close()


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, OutOfSpace), (errno.EROFS, SinkRefused), (errno.EIO, SinkLost)],
)
def test_a_write_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[DiskError]
) -> None:
    sink = RawSink(tmp_path / "copy.raw", 512)

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(error):
            sink.write(0, b"x")
    sink.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkRefused):
        RawSink(tmp_path / "nowhere" / "copy.raw", 512)


def test_a_disk_too_large_for_the_file_system_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        RawSink(tmp_path / "copy.raw", 1 << 62)
    assert list(tmp_path.iterdir()) == []
