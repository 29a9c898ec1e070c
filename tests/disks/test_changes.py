"""What differs between two points of a disk, and images that hold only that."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disks.copying import copy
from disks.qcow2 import CLUSTER, Qcow2
from disks.vault.folder import FolderStore
from disks.vault.objects import LEAF_CHUNKS
from disks.vault.points import Configuration, Origin, RecoveryPoint
from disks.vault.vault import Vault
from tests.disks.test_qcow2 import made, qemu_img

CHUNK = 64 << 10
LEAF = LEAF_CHUNKS * CHUNK


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.create(FolderStore(tmp_path), chunk_size=CHUNK)


def committed(vault: Vault, size: int, pieces: dict[int, bytes]) -> RecoveryPoint:
    run = vault.begin("here", "disk")
    sink = run.disk("disk", size)
    for offset in sorted(pieces):
        sink.write(offset, pieces[offset])
    sink.commit()
    return run.commit(origin=Origin("1", "one"), configuration=Configuration(1, 1, "bios"), read_at=datetime.now(UTC))


def differing(vault: Vault, before: RecoveryPoint, after: RecoveryPoint) -> list[tuple[int, int, bool]]:
    source = vault.open_changes(after, "disk", before)
    return [(extent.offset // CHUNK, extent.length // CHUNK, extent.is_zero) for extent in source.extents()]


def test_only_what_differs_is_named_in_runs_of_data_and_zeros(vault: Vault) -> None:
    one, two, more = (bytes([number]) * CHUNK for number in (1, 2, 3))
    before = committed(vault, 2 * LEAF, {0: one, CHUNK: one, 5 * CHUNK: two, LEAF: two})
    after = committed(vault, 2 * LEAF, {0: one, CHUNK: two, 2 * CHUNK: more, LEAF: two, LEAF + CHUNK: one})
    assert differing(vault, before, after) == [(1, 2, False), (5, 1, True), (LEAF_CHUNKS + 1, 1, False)]
    assert differing(vault, after, after) == []


def test_what_lies_beyond_the_end_of_the_smaller_disk_differs(vault: Vault) -> None:
    one = bytes([1]) * CHUNK
    before = committed(vault, 3 * CHUNK, {0: one})
    after = committed(vault, 6 * CHUNK, {0: one, 4 * CHUNK: one})
    assert differing(vault, before, after) == [(3, 1, True), (4, 1, False), (5, 1, True)]
    assert differing(vault, after, before) == []


blocks = st.lists(st.sampled_from((b"", b"a", b"b")), min_size=12, max_size=12)


@given(blocks, blocks, st.integers(0, 3))
def test_an_image_over_another_holds_what_differs_and_reads_as_the_later_one(
    first: list[bytes], second: list[bytes], more: int
) -> None:
    def pieces(told: list[bytes]) -> dict[int, bytes]:
        return {number * CLUSTER: letter * CLUSTER for number, letter in enumerate(told) if letter}

    with tempfile.TemporaryDirectory() as named:
        folder = Path(named)
        (folder / "vault").mkdir()
        vault = Vault.create(FolderStore(folder / "vault"), chunk_size=CHUNK)
        size, grown = 12 * CLUSTER, (12 + more) * CLUSTER
        before, after = committed(vault, size, pieces(first)), committed(vault, grown, pieces(second))
        base, over, plain = folder / "base.qcow2", folder / "over.qcow2", folder / "plain.raw"
        made(base, size, sorted(pieces(first).items()))
        image = Qcow2(grown, str(base))
        with over.open("wb") as file:
            file.write(bytes(CLUSTER))
            copy(vault.open_changes(after, "disk", before), Appending(image, file.write))
            file.writelines(image.finish())
            file.seek(0)
            file.write(image.header())
        with plain.open("wb") as file:
            file.truncate(grown)
            for offset, data in pieces(second).items():
                file.seek(offset)
                file.write(data)
        qemu_img("check", "-f", "qcow2", over)
        qemu_img("compare", "-f", "qcow2", "-F", "raw", over, plain)


class Appending:
    """A sink that makes an image."""

    def __init__(self, image: Qcow2, append: Callable[[bytes], object]) -> None:
        self._image, self._append = image, append

    def write(self, offset: int, data: bytes) -> None:
        for piece in self._image.write(offset, data):
            self._append(piece)

    def zero(self, offset: int, length: int) -> None:
        for piece in self._image.zero(offset, length):
            self._append(piece)

    def commit(self) -> None: ...

    def abandon(self) -> None: ...


def test_over_another_image_only_whole_clusters_are_taken() -> None:
    image = Qcow2(4 * CLUSTER, "/base")
    for offset, length in ((1, CLUSTER), (CLUSTER, CLUSTER - 1)):
        with pytest.raises(ValueError, match="no whole clusters"):
            list(image.write(offset, bytes(length)))
        with pytest.raises(ValueError, match="no whole clusters"):
            list(image.zero(offset, length))
