"""Images made front to back, judged by QEMU's own tools."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disks.qcow2 import CLUSTER, Qcow2

MIB = 1 << 20
REGION = 512 * MIB
"""What one table of an image is for."""


def qemu_img(*arguments: str | Path) -> str:
    done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def made(path: Path, size: int, writes: Sequence[tuple[int, bytes]]) -> Qcow2:
    """The image in a file that is only ever appended to, but for its first cluster."""
    image = Qcow2(size)
    with path.open("wb") as file:
        file.write(bytes(CLUSTER))
        for offset, data in writes:
            file.writelines(image.write(offset, data))
        file.writelines(image.finish())
        file.seek(0)
        file.write(image.header())
    return image


def require_same(folder: Path, size: int, writes: Sequence[tuple[int, bytes]]) -> dict[str, object]:
    """QEMU finds no fault with the image, and the disk in it is what was written; what it says of it is returned."""
    image, plain = folder / "image.qcow2", folder / "plain.raw"
    disk = made(image, size, writes)
    with plain.open("wb") as file:
        file.truncate(disk.size)
        for offset, data in writes:
            file.seek(offset)
            file.write(data)
    qemu_img("check", "-f", "qcow2", image)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", image, plain)
    told: dict[str, object] = json.loads(qemu_img("info", "--output=json", "-f", "qcow2", image))
    assert told["virtual-size"] == disk.size
    return told


pieces = st.tuples(st.sampled_from((0, 1, 511, 4096, CLUSTER, 3 * CLUSTER + 7, REGION)), st.integers(1, 5 * CLUSTER))


@given(st.lists(pieces, max_size=6), st.integers(0, 3 * CLUSTER), st.integers(0, 255))
def test_whatever_is_written_in_rising_order_is_the_disk_that_qemu_reads(
    steps: list[tuple[int, int]], after: int, seed: int
) -> None:
    at, writes, random = 0, [], Random(seed)
    for gap, length in steps:
        at += gap
        writes.append((at, random.randbytes(length)))
        at += length
    with tempfile.TemporaryDirectory() as folder:
        require_same(Path(folder), max(1, at + after), writes)


@pytest.mark.parametrize("size", [512, CLUSTER - 512, CLUSTER, REGION, REGION + 512, 5 * REGION - 1024])
def test_a_disk_to_which_nothing_was_written_is_zeros_of_its_size(size: int, tmp_path: Path) -> None:
    told = require_same(tmp_path, size, [])
    assert told["actual-size"] == pytest.approx(4 * CLUSTER, abs=CLUSTER)


def test_a_size_between_two_sectors_is_rounded_up(tmp_path: Path) -> None:
    assert require_same(tmp_path, 1000, [(0, b"x" * 1000)])["virtual-size"] == 1024


def test_the_last_byte_of_a_large_disk_costs_no_more_than_its_cluster(tmp_path: Path) -> None:
    size = 16 << 40
    path = tmp_path / "image.qcow2"
    made(path, size, [(size - 1, b"!")])
    qemu_img("check", "-f", "qcow2", path)
    assert path.stat().st_size < 8 * CLUSTER + size // REGION * 8
    out = qemu_img("map", "--output=json", "-f", "qcow2", path)
    assert [(part["start"], part["length"]) for part in json.loads(out) if part["data"]] == [(size - CLUSTER, CLUSTER)]


def test_more_clusters_than_one_block_counts_are_counted(tmp_path: Path) -> None:
    """2 GiB of clusters fill one block of reference counts."""
    size = 2 * 1024 * MIB + MIB
    path, data = tmp_path / "image.qcow2", Random(7).randbytes(MIB)
    made(path, size, [(offset, data) for offset in range(0, size, MIB)])
    qemu_img("check", "-f", "qcow2", path)


def test_it_says_what_incremental_points_need(tmp_path: Path) -> None:
    told = require_same(tmp_path, MIB, [(0, b"x")])
    details = told["format-specific"]
    assert isinstance(details, dict)
    assert details["data"]["compat"] == "1.1"
    assert "backing-filename" not in told


def test_without_its_header_the_image_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "torn.qcow2"
    made(path, MIB, [(0, b"x" * MIB)])
    with path.open("r+b") as file:
        file.write(bytes(CLUSTER))
    with pytest.raises(AssertionError, match="not in qcow2 format"):
        qemu_img("info", "-f", "qcow2", path)


def test_a_byte_that_is_another_is_found(tmp_path: Path) -> None:
    """The judge itself."""
    image, plain = tmp_path / "image.qcow2", tmp_path / "plain.raw"
    made(image, MIB, [(0, b"x" * MIB)])
    plain.write_bytes(b"x" * (MIB - 1) + b"y")
    with pytest.raises(AssertionError, match="mismatch"):
        qemu_img("compare", "-f", "qcow2", "-F", "raw", image, plain)


def test_whole_blocks_are_passed_on_uncopied() -> None:
    """A mover's blocks are of 1 MiB and begin where multiples of it lie."""
    image, data = Qcow2(REGION), bytes(MIB)
    (piece,) = image.write(4 * MIB, data)
    assert piece is data
