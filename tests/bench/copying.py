"""A whole copy into a vault, and `qemu-img convert -c -o compression_type=zstd` of the same disk before it.

The disk holds what a system's does: files from under /usr. Both read a raw file and write to the same file system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from disks.copying import copy
from disks.raw import RawSink, RawSource
from disks.vault.folder import FolderStore
from disks.vault.points import Configuration, Origin, RecoveryPoint
from disks.vault.vault import Vault
from tests.bench.figures import load, report, say
from tests.bench.ground import Ground

MIB = 1 << 20
DISK, DATA = 2048 * MIB, 417 * MIB
SMALL_DISK, SMALL_DATA = 64 * MIB, 16 * MIB
ROUNDS = 3
KEY = bytes(range(32))


def run(ground: Ground) -> None:
    folder = ground.folder / "copying"
    folder.mkdir()
    say("filling a disk from /usr")
    size, data = fill(folder / "disk.raw", ground.is_small)
    for number in range(1 if ground.is_small else ROUNDS):
        say(f"round {number + 1}")
        qemu_s = timed(lambda: convert(folder))
        for kind in ("plain", "encrypted"):
            measure(folder, kind, qemu_s, size=size, data=data)


def fill(path: Path, is_small: bool) -> tuple[int, int]:
    """Size of the disk and how much of it is data, in MiB."""
    size, wanted = (SMALL_DISK, SMALL_DATA) if is_small else (DISK, DATA)
    filled, at = 0, MIB
    with path.open("wb") as disk:
        disk.truncate(size)
        for content in _contents():
            if filled >= wanted:
                break
            disk.seek(at)
            filled += disk.write(content)
            at += -(-len(content) // 4096) * 4096  # as a file system places them
    return size // MIB, filled // MIB


def _contents() -> Iterator[bytes]:
    for top in ("/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share", "/usr/lib"):
        for folder, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_file() and not file.is_symlink():
                    with file.open("rb") as opened:
                        yield opened.read(8 * MIB)


def measure(folder: Path, kind: str, qemu_s: float, **params: object) -> None:
    """In a process of its own, so that its memory is its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.copying", str(folder), kind], check=True, capture_output=True, text=True
    )
    figures = json.loads(done.stdout)
    params |= {"vault": kind, "load": load()}
    report("copy", "full_copy", figures["copy_s"], "s", qemu_img_s=round(qemu_s, 3), **params)
    report("copy", "ratio_to_qemu_img", figures["copy_s"] / qemu_s, "", **params)
    report("copy", "unchanged_copy", figures["again_s"], "s", **params)
    report("copy", "verification", figures["verify_s"], "s", **params)
    report("copy", "restore", figures["restore_s"], "s", **params)
    report("copy", "memory", figures["memory_mib"], "MiB", **params)
    report("copy", "stored", figures["stored_mib"], "MiB", **params)


def convert(folder: Path) -> None:
    target = folder / "disk.qcow2"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd"]
    subprocess.run([*command, folder / "disk.raw", target], check=True)
    target.unlink()


def timed(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def measured(folder: Path, kind: str) -> dict[str, float]:
    place = folder / "vault"
    place.mkdir()
    vault = Vault.create(FolderStore(place), KEY if kind == "encrypted" else None)
    copy_s = timed(lambda: copy_in(vault, folder / "disk.raw"))
    memory_kib = memory()
    again_s = timed(lambda: copy_in(vault, folder / "disk.raw"))
    point = next(iter(vault.points()))
    figures = {
        "copy_s": copy_s,
        "again_s": again_s,
        "memory_mib": memory_kib / 1024,
        "verify_s": timed(lambda: vault.verify(point)),
        "stored_mib": sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / MIB,
    }
    figures["restore_s"] = timed(lambda: copy_out(vault, point, folder / "restored.raw"))
    require_equal(folder / "disk.raw", folder / "restored.raw")
    subprocess.run(["rm", "-r", place, folder / "restored.raw"], check=True)
    return figures


def copy_in(vault: Vault, path: Path) -> None:
    """A whole copy, with nothing inherited."""
    run, source = vault.begin("bench", "disk"), RawSource(path)
    disk = run.disk("vda", source.size)
    copy(source, disk)
    disk.commit()
    run.commit(origin=Origin("1", "disk"), configuration=Configuration(1, 1024, "bios"), read_at=datetime.now(UTC))
    source.close()


def copy_out(vault: Vault, point: RecoveryPoint, path: Path) -> None:
    source = vault.open_disk(point, "vda")
    sink = RawSink(path, source.size)
    copy(source, sink)
    sink.commit()


def memory() -> int:
    """The most that this process had at once, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def require_equal(one: Path, other: Path) -> None:
    subprocess.run(["cmp", "--quiet", one, other], check=True)


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]), sys.argv[2])))
