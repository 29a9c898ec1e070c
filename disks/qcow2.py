"""A new qcow2 image, made front to back for a wire that takes bytes in order only, such as an upload.

    cluster 0        the header, sent last: the image is nothing before it is there
    then             the disk's data in the order in which they come, and after each 512 MiB of the disk the table that
                     says where those lie (L2)
    at the end       the table of those tables (L1), and the reference counts, which are all 1

Format: QEMU's docs/interop/qcow2.txt, version 3, clusters of 64 KiB. Nothing is read or guessed: what a guest wrote on
its disk ends in data clusters, whatever it looks like. An image over another one (its backing file, qcow2 too) holds
what differs from that.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator

CLUSTER = 64 << 10
"""What QEMU makes unless told otherwise, and the grain of its dirty bitmaps."""
SECTOR = 512
"""QEMU counts a disk's size in these."""
_ENTRIES = CLUSTER // 8
"""Of a table."""
_COUNTS = CLUSTER // 2
"""Clusters counted by a block of reference counts, 16 bits each."""
_OWNED = 1 << 63
"""QCOW_OFLAG_COPIED: referred to once, so it may be written in place."""
_ZEROS = 1
"""An entry that reads as zeros whatever lies below, and takes no room."""
_BACKING_FORMAT = 0xE2792ACA
"""Of the header extension that says in which format the backing file is: nobody has to guess it from its bytes."""
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")


class Qcow2:
    """The bytes of one image. What the methods return is to be appended, in this order, from byte `CLUSTER` on; then
    `header` goes into the beginning.

    Memory: a table of 64 KiB, one cluster, and 8 bytes for each 512 MiB of the disk.
    """

    def __init__(self, size: int, backing: str = "") -> None:
        """A size that is no multiple of 512 is rounded up to one; the rest reads as zeros.

        `backing`: path of a qcow2 image, below this one: what is left out here reads as there.
        """
        self.size = -(-size // SECTOR) * SECTOR
        self._backing = backing.encode()
        self._end = CLUSTER
        """Of the file so far; always a multiple of CLUSTER."""
        self._l1 = array("Q", bytes(8 * -(-self.size // (CLUSTER * _ENTRIES))))
        self._l2 = _empty_table()
        self._region = -1
        """Which entry of L1 the table `_l2` is for."""
        self._cluster = -1
        """Of the disk, the one that is being gathered in `_gathered`."""
        self._gathered = bytearray()
        self._l1_at = self._counts_at = 0
        self._counts_clusters = 0

    def write(self, offset: int, data: bytes) -> Iterator[bytes]:
        """Offsets rise from call to call and ranges do not overlap; what is left out reads as zeros.

        Over another image, whole clusters only: nothing is known of the rest of one.
        """
        self._require_whole(offset, len(data))
        rest = memoryview(data)
        while rest:
            cluster, inside = divmod(offset, CLUSTER)
            if cluster != self._cluster:
                yield from self._end_cluster()
            whole = len(rest) // CLUSTER if inside == 0 and cluster != self._cluster else 0
            if whole:
                whole = min(whole, _ENTRIES - cluster % _ENTRIES)
                taken = whole * CLUSTER
                yield from self._place(cluster, whole)
                yield data if taken == len(data) else bytes(rest[:taken])
            else:
                taken = min(len(rest), CLUSTER - inside)
                self._gather(cluster, inside, rest[:taken])
            offset, rest = offset + taken, rest[taken:]

    def zero(self, offset: int, length: int) -> Iterator[bytes]:
        """The range reads as zeros. As `write`."""
        if not self._backing:
            return
        self._require_whole(offset, length)
        yield from self._end_cluster()
        for cluster in range(offset // CLUSTER, -(-(offset + length) // CLUSTER)):
            region, entry = divmod(cluster, _ENTRIES)
            yield from self._begin_region(region)
            self._l2[entry] = _ZEROS

    def _require_whole(self, offset: int, length: int) -> None:
        if self._backing and (offset % CLUSTER or (length % CLUSTER and offset + length < self.size)):
            raise ValueError(f"{length} bytes at {offset} are no whole clusters")

    def _gather(self, cluster: int, inside: int, piece: memoryview) -> None:
        if cluster != self._cluster:
            self._cluster, self._gathered = cluster, bytearray(CLUSTER)
        self._gathered[inside : inside + len(piece)] = piece

    def _end_cluster(self) -> Iterator[bytes]:
        if self._cluster < 0:
            return
        cluster, self._cluster = self._cluster, -1
        yield from self._place(cluster, 1)
        yield bytes(self._gathered)

    def _place(self, cluster: int, count: int) -> Iterator[bytes]:
        """Note that so many clusters of the disk, all of one region, come next in the file."""
        region, first = divmod(cluster, _ENTRIES)
        yield from self._begin_region(region)
        for entry in range(count):
            self._l2[first + entry] = self._end + entry * CLUSTER | _OWNED
        self._end += count * CLUSTER

    def _begin_region(self, region: int) -> Iterator[bytes]:
        if region != self._region:
            yield from self._end_region()
            self._region = region

    def _end_region(self) -> Iterator[bytes]:
        if self._region < 0:
            return
        self._l1[self._region] = self._end | _OWNED
        table, self._l2 = self._l2, _empty_table()
        yield self._appended(table)

    def _appended(self, table: array[int]) -> bytes:
        """The table as it goes into the file, which grows by it."""
        if sys.byteorder == "little":
            table.byteswap()
        told = table.tobytes()
        padding = -len(told) % CLUSTER
        self._end += len(told) + padding
        return told + bytes(padding)

    def finish(self) -> Iterator[bytes]:
        """What comes after the last data."""
        yield from self._end_cluster()
        yield from self._end_region()
        self._l1_at = self._end
        yield self._appended(self._l1)
        first = clusters = self._end // CLUSTER
        while clusters < (needed := _with_counts(first, clusters)):
            clusters = needed  # the counts are counted too
        blocks = -(-clusters // _COUNTS)
        for block in range(blocks):
            yield self._appended_counts(min(_COUNTS, clusters - block * _COUNTS))
        self._counts_at = self._end
        self._counts_clusters = clusters - first - blocks
        yield self._appended(array("Q", ((first + block) * CLUSTER for block in range(blocks))))

    def _appended_counts(self, used: int) -> bytes:
        self._end += CLUSTER
        return b"\0\1" * used + bytes(2 * (_COUNTS - used))

    def header(self) -> bytes:
        """Once `finish` has returned everything: the first cluster."""
        extension = struct.pack(">II8s", _BACKING_FORMAT, 5, b"qcow2") + bytes(8) if self._backing else b""
        name_at = _HEADER.size + len(extension) if self._backing else 0
        fields = _HEADER.pack(
            b"QFI\xfb", 3, name_at, len(self._backing), CLUSTER.bit_length() - 1, self.size, 0,
            len(self._l1), self._l1_at, self._counts_at, self._counts_clusters,
            0, 0,  # no snapshots
            0, 0, 0,  # no features
            4, _HEADER.size,  # counts of 2**4 bits
        )  # fmt: skip
        return (fields + extension + self._backing).ljust(CLUSTER, b"\0")


def _with_counts(first: int, clusters: int) -> int:
    """How many clusters there are if as many are counted and the counts begin at the first."""
    blocks = -(-clusters // _COUNTS)
    return first + blocks + -(-blocks // _ENTRIES)


def _empty_table() -> array[int]:
    return array("Q", bytes(CLUSTER))
