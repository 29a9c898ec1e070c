"""Disks over NBD, served by qemu-nbd."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from disks.base import Extent
from disks.copying import copy
from disks.errors import DiskError, SinkLost, SinkRefused, SourceLost, SourceRefused
from disks.nbd import ALLOCATION, Export, NbdSink, NbdSource, Tls, _both, _Connection
from disks.raw import RawSource
from tests.disks.memory import MemorySink, MemorySource
from tests.support.pki import new_authority
from tests.support.prerequisites import free_port
from tests.support.process import die_with_us

MIB = 1 << 20
SIZE = 8 * MIB


class Server:
    """qemu-nbd on one image; it serves until it is ended."""

    def __init__(self, image: Path, *options: str, socket: Path | None = None) -> None:
        self.socket = socket or image.with_suffix(".socket")
        where = [] if any(option.startswith("--port") for option in options) else [f"--socket={self.socket}"]
        command = die_with_us("qemu-nbd", "--persistent", "--shared=4", *where, *options, str(image))
        self.process = subprocess.Popen(command)
        while where and not self.socket.exists():
            assert self.process.poll() is None
            time.sleep(0.01)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    running: list[Server] = []
    yield running
    for server in running:
        server.end()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A qcow2 of 8 MiB with data at 1 and 5 MiB."""
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(SIZE)], check=True)
    io(path, f"write -P 97 {MIB} {MIB}", f"write -P 98 {5 * MIB} 65536")
    return path


def io(image: Path, *commands: str) -> None:
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *arguments, image], check=True, stdout=subprocess.DEVNULL)


def serve(servers: list[Server], image: Path, *options: str) -> Export:
    servers.append(Server(image, "--format=qcow2", *options))
    return Export(socket=servers[-1].socket)


def content(image: Path) -> bytes:
    raw = image.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-U", image, raw], check=True)
    return raw.read_bytes()


def test_what_is_zero_is_named_so_and_everything_is_named(servers: list[Server], image: Path) -> None:
    source = NbdSource(serve(servers, image, "--read-only"))
    assert source.size == SIZE
    assert list(source.extents()) == [
        Extent(0, MIB, is_zero=True),
        Extent(MIB, MIB),
        Extent(2 * MIB, 3 * MIB, is_zero=True),
        Extent(5 * MIB, 65536),
        Extent(5 * MIB + 65536, 3 * MIB - 65536, is_zero=True),
    ]
    sink = MemorySink(bytes(SIZE))
    copy(source, sink)
    source.close()
    source.close()
    assert sink.content == content(image)
    assert sink.written == MIB + 65536


def test_a_bitmap_names_only_what_changed_and_what_of_that_is_zero(servers: list[Server], image: Path) -> None:
    before = content(image)
    subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", image, "since"], check=True)
    io(image, f"write -P 99 {MIB + 65536} 65536", f"write -z -u {5 * MIB} 65536")
    source = NbdSource(serve(servers, image, "--read-only", "--bitmap=since"), bitmap="since")
    assert list(source.extents()) == [Extent(MIB + 65536, 65536), Extent(5 * MIB, 65536, is_zero=True)]
    replica = MemorySink(before)
    copy(source, replica)
    source.close()
    assert replica.content == content(image)


def test_a_bitmap_that_nobody_knows_is_refused(servers: list[Server], image: Path) -> None:
    with pytest.raises(SourceRefused) as raised:
        NbdSource(serve(servers, image, "--read-only"), bitmap="since")
    assert "since" in raised.value.message


def test_a_server_that_answers_for_less_than_asked_is_asked_again(
    servers: list[Server], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = NbdSource(serve(servers, image, "--read-only"))
    whole, flags, asked = list(source.extents()), _Connection.flags, list[int]()

    def short(connection: _Connection, offset: int, length: int) -> dict[str, list[tuple[int, int]]]:
        asked.append(offset)
        return flags(connection, offset, min(length, 300_032))

    monkeypatch.setattr(_Connection, "flags", short)
    assert list(source.extents()) == whole
    assert len(asked) == -(-SIZE // 300_032)
    source.close()


def test_a_server_that_answers_for_nothing_is_lost(
    servers: list[Server], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = NbdSource(serve(servers, image, "--read-only"))
    monkeypatch.setattr(_Connection, "flags", lambda *_: {ALLOCATION: [(0, 0)]})
    with pytest.raises(SourceLost):
        list(source.extents())
    source.close()


def test_the_two_words_about_a_range_are_cut_to_each_other() -> None:
    zeros, dirty = [(10, 0), (10, 3), (20, 1)], [(5, 1), (10, 0), (40, 1)]
    assert list(_both(100, 130, zeros, dirty)) == [Extent(100, 5), Extent(115, 5, is_zero=True), Extent(120, 10)]


def test_a_disk_that_is_written_holds_it_after_the_commit(servers: list[Server], image: Path) -> None:
    wanted = bytearray(content(image))
    wanted[3 : 3 + MIB] = b"n" * MIB
    wanted[5 * MIB : 6 * MIB] = bytes(MIB)
    sink = NbdSink(serve(servers, image))
    assert sink.size == SIZE
    copy(MemorySource(bytes(wanted), [Extent(3, MIB), Extent(5 * MIB, MIB, is_zero=True)]), sink)
    sink.commit()
    sink.abandon()
    assert content(image) == wanted


def test_a_read_only_disk_is_refused(servers: list[Server], image: Path) -> None:
    with pytest.raises(SinkRefused):
        NbdSink(serve(servers, image, "--read-only"))


def test_who_does_not_answer_is_lost(tmp_path: Path) -> None:
    nobody = Export("vda", socket=tmp_path / "nobody")
    for opened, error in ((NbdSource, SourceLost), (NbdSink, SinkLost)):
        with pytest.raises(error) as raised:
            opened(nobody)
        assert "vda" in str(raised.value)


def test_a_server_that_dies_is_lost_and_never_reads_as_zeros(servers: list[Server], image: Path) -> None:
    export = serve(servers, image)
    source, sink = NbdSource(export), NbdSink(export)
    servers[0].end()
    with pytest.raises(SourceLost):
        source.read(0, 512)
    with pytest.raises(SourceLost):
        list(source.extents())
    with pytest.raises(DiskError):
        sink.write(0, b"x" * 512)
    source.close()
    sink.abandon()


def test_several_threads_may_read(servers: list[Server], image: Path) -> None:
    source, wanted = NbdSource(serve(servers, image, "--read-only")), content(image)
    wrong: list[int] = []

    def read(start: int) -> None:
        for offset in range(start, SIZE, 4 * 65536):
            if source.read(offset, 65536) != wanted[offset : offset + 65536]:
                wrong.append(offset)

    threads = [threading.Thread(target=read, args=(start * 65536,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    source.close()
    assert not wrong


def test_a_long_read_is_cut_to_what_servers_take(tmp_path: Path, servers: list[Server]) -> None:
    path = tmp_path / "large.raw"
    with path.open("wb") as file:
        file.truncate(80 * MIB)
        file.seek(40 * MIB)
        file.write(b"here")
    servers.append(Server(path, "--format=raw", "--read-only"))
    source, raw = NbdSource(Export(socket=servers[0].socket)), RawSource(path)
    assert source.read(10, 70 * MIB) == raw.read(10, 70 * MIB)
    source.close()
    raw.close()


def test_over_tls_only_the_server_with_the_right_certificate_is_read(
    servers: list[Server], image: Path, tmp_path: Path
) -> None:
    ours, foreign, pki = new_authority("ours"), new_authority("theirs"), tmp_path / "pki"
    ours.issue_server(pki / "server", "127.0.0.1", "127.0.0.1")
    ours.issue_client(pki / "client", "mover")
    foreign.issue_client(pki / "foreign", "mover")
    port, served = free_port(), qemu_folder(pki / "server", "server")
    servers.append(
        Server(
            image,
            "--format=qcow2",
            "--read-only",
            "--bind=127.0.0.1",
            f"--port={port}",
            f"--object=tls-creds-x509,id=tls,endpoint=server,verify-peer=on,dir={served}",
            "--tls-creds=tls",
        )
    )

    def opened(tls: Tls | None) -> NbdSource:
        until = time.monotonic() + 10
        while True:
            try:
                return NbdSource(Export(host="127.0.0.1", port=port, tls=tls))
            except SourceLost as lost:
                if "refused" not in lost.message or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    source = opened(Tls(qemu_folder(pki / "client", "client")))
    assert source.read(MIB, 4) == b"aaaa"
    source.close()
    for tls in (None, Tls(qemu_folder(pki / "foreign", "client"))):
        with pytest.raises(SourceLost):
            opened(tls)


def qemu_folder(folder: Path, role: str) -> Path:
    """The files under the names that QEMU and libnbd look for."""
    for ours, theirs in (("cacert", "ca-cert"), (f"{role}cert", f"{role}-cert"), (f"{role}key", f"{role}-key")):
        (folder / f"{ours}.pem").rename(folder / f"{theirs}.pem")
    return folder
