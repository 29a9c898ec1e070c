"""A disk brought up from a vault on a KVM host, and plain `qemu-img convert` of the same disk just before it.

Both end with the qcow2 image on the host's disk, flushed: the landing's commit waits for that, and the converted file
is synced. Both find what they read in the page cache. The host is a real libvirt in namespaces of its own on this
machine, so its share of the work (QEMU's flush, libvirtd's end of the stream) is done by the same cores.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from connectors.base import Surroundings
from connectors.kvm.connector import KvmConnector
from connectors.kvm.settings import KvmSettings
from connectors.replication import LandingWish
from disks.copying import copy
from disks.vault.folder import FolderStore
from disks.vault.points import Configuration, Drive
from disks.vault.vault import Vault
from tests.bench.copying import KEY, copy_in, copy_out, fill, memory, require_equal, timed
from tests.bench.figures import load, report, say
from tests.bench.ground import Ground
from tests.connectors.kvm.worlds import host_settings, local_settings, ssh_settings
from tests.support.kvm_hosts import KvmHost, kvm_hosts_laboratory
from tests.support.prerequisites import tiny_guest

ROUNDS = 5
LIMIT_S = 600
INSTALLATION = "00000000-0000-4000-8000-000000000001"
WAYS: dict[str, Callable[[KvmHost], KvmSettings]] = {
    "local": local_settings,
    "stream": local_settings,
    "ssh": ssh_settings,
    "tls": host_settings,
}
FILE = "file"
"""Not a way to a host: the vault's disk into a raw file, for comparison."""

STREAM = "stream"
"""To this machine too, but the host's paths are not this machine's, as if the mover might not write there."""

PAIRS = (
    ("plain", FILE), ("plain", "local"), ("encrypted", "local"), ("plain", STREAM), ("plain", "tls"), ("plain", "ssh")
)  # fmt: skip
"""Which vault, and which way to the host."""


def run(ground: Ground) -> None:
    folder = ground.folder / "landing"
    folder.mkdir()
    say("filling a disk from /usr, and vaults with it")
    size, data = fill(folder / "disk.raw", ground.is_small)
    for kind in ("plain", "encrypted"):
        (folder / kind).mkdir()
        copy_in(Vault.create(FolderStore(folder / kind), key_of(kind)), folder / "disk.raw")
    with ExitStack() as ground_work:
        (host,) = ground_work.enter_context(kvm_hosts_laboratory(tiny_guest())).take(1)
        host.start_ssh()
        ground_work.enter_context(host.common_pool())
        for kind, way in PAIRS:
            measure(folder, host, kind, way, 1 if ground.is_small else ROUNDS, disk_mib=size, data_mib=data)
        host.wipe()


def measure(folder: Path, host: KvmHost, kind: str, way: str, rounds: int, **params: object) -> None:
    params |= {"vault": kind, "way": way, "rounds": rounds}
    plain, unsynced, took, most = [], [], [], []
    for _ in range(rounds):
        say(f"from a vault ({kind}) to {way}")
        converted_s, synced_s = convert(folder / "disk.raw", host.images.parent / "converted.qcow2")
        unsynced.append(converted_s)
        plain.append(synced_s)
        figures = landed(folder, host, kind, way)
        took.append(figures["seconds"])
        most.append(figures["memory_mib"])
        host.wipe()
    ratios = [one / other for one, other in zip(took, plain, strict=True)]
    each = [round(ratio, 2) for ratio in ratios]
    report("landing", "qemu_img_convert", statistics.median(plain), "s", load=load(), **params)
    report("landing", "qemu_img_convert_unsynced", statistics.median(unsynced), "s", load=load(), **params)
    report("landing", "landing", statistics.median(took), "s", load=load(), **params)
    report("landing", "ratio_to_qemu_img", statistics.median(ratios), "", each=each, load=load(), **params)
    report("landing", "memory", max(most), "MiB", **params)


def convert(disk: Path, target: Path) -> tuple[float, float]:
    """Seconds until QEMU says that it is done, and until all of it has reached the disk."""
    began = time.monotonic()
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, target], check=True)
    converted_s = time.monotonic() - began
    with target.open("rb") as file:
        os.fsync(file.fileno())
    synced_s = time.monotonic() - began
    target.unlink()
    return converted_s, synced_s


def landed(folder: Path, host: KvmHost, kind: str, way: str) -> dict[str, float]:
    """In a process of its own, so that its memory is its own; what arrived is compared with the disk."""
    told = folder / "task.json"
    settings = {} if way == FILE else asdict(WAYS[way](host))
    pool = "here" if way == "local" else "default"
    told.write_text(json.dumps({"vault": kind, "settings": settings, "pool": pool}))
    command = [sys.executable, "-m", "tests.bench.landing", str(folder)]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2"}  # as deploy/supervisord.conf does
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    if way == FILE:
        require_equal(folder / "disk.raw", folder / "restored.raw")
        (folder / "restored.raw").unlink()
    else:
        (image,) = (host.folder / "here" if way == "local" else host.images).glob("deskyard-*")
        require_holds(image, folder / "disk.raw")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def require_holds(image: Path, disk: Path) -> None:
    subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", disk, image], check=True)


def measured(folder: Path) -> dict[str, float]:
    told = json.loads((folder / "task.json").read_text())
    vault = Vault.open(FolderStore(folder / told["vault"]), key_of(told["vault"]))
    point = next(iter(vault.points()))
    if not told["settings"]:
        seconds = timed(lambda: copy_out(vault, point, folder / "restored.raw"))
        return {"seconds": seconds, "memory_mib": memory() / 1024}
    (folder / "work").mkdir(exist_ok=True)
    connector = KvmConnector(KvmSettings(**told["settings"]), Surroundings(INSTALLATION, folder / "work"))
    size = point.disk("vda").size
    shape = Configuration(1, 128, "bios", disks=(Drive("vda", "virtio", size),))
    wish = LandingWish(key=str(uuid4()), name="landed", configuration=shape, storage=told["pool"])
    connector.check(time.monotonic() + 60)
    began = time.monotonic()
    landing = connector.land(wish, began + LIMIT_S)
    sink = landing.open("vda")
    copy(vault.open_disk(point, "vda"), sink)
    sink.commit()
    landing.finish(began + LIMIT_S)
    seconds = time.monotonic() - began
    connector.close()
    return {"seconds": seconds, "memory_mib": memory() / 1024}


def key_of(kind: str) -> bytes | None:
    return KEY if kind == "encrypted" else None


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]))))
