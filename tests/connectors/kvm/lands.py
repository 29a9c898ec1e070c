"""A mover that is killed in the middle of a landing. `python -m tests.connectors.kvm.lands FILE DISKS`

FILE holds settings, installation, key and storage as JSON. So many disks are written and committed, the next one is
written to its middle; then the process ends by SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from connectors.base import Surroundings
from connectors.kvm.connector import KvmConnector
from connectors.kvm.settings import KvmSettings
from connectors.replication import LandingWish
from disks.vault.points import Configuration, Drive

SIZE = 64 << 20
DISKS = ("first", "second")


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    whole = int(sys.argv[2])
    surroundings = Surroundings(installation=told["installation"], workdir=Path(sys.argv[1]).parent)
    connector = KvmConnector(KvmSettings(**told["settings"]), surroundings)
    drives = tuple(Drive(name, "virtio", SIZE) for name in DISKS)
    wish = LandingWish(
        key=told["key"], name="unfinished", configuration=Configuration(1, 128, "bios", disks=drives),
        storage=told["storage"],
    )  # fmt: skip
    landing = connector.land(wish, time.monotonic() + 60)
    for number, name in enumerate(DISKS):
        sink = landing.open(name)
        for at in range(0, SIZE // 4, 1 << 20):
            sink.write(at, os.urandom(1 << 20))
        if number == whole:
            os.kill(os.getpid(), signal.SIGKILL)
        sink.commit()


if __name__ == "__main__":
    main()
