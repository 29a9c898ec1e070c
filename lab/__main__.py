"""`python -m lab --data FOLDER`: one simulated platform of each maker, until SIGTERM or SIGINT.

Writes FOLDER/lab.json once all are up: the control port and, for each platform, what an administrator would enter to
register it (secrets too: the file is readable by this account alone). Worlds, ports and certificates are kept there and
outlive the process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lab.clock import Clock
from lab.control import Control
from lab.platform import KINDS, Platform, Site, site, stand_up
from lab.screens import GuestScreens

SAVE_EVERY_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    os.umask(0o077)
    options.data.mkdir(parents=True, exist_ok=True)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    run(options.data, options.kinds, seed=options.seed, speed=options.speed, over=over)
    return 0


def run(folder: Path, kinds: Sequence[str], *, seed: int, speed: float, over: threading.Event) -> None:
    """Until `over` is set."""
    clock = Clock(speed)
    kept = folder / "ports.json"
    ports: dict[str, int] = json.loads(kept.read_text()) if kept.exists() else {}
    screens = GuestScreens([], ports.get("screens", 0))
    sites = [site(kind, folder, clock, seed=seed, screens_port=screens.port) for kind in kinds]
    platforms = [stand_up(at) for at in sites]
    screens.worlds = [platform.world for platform in platforms]
    control = Control(clock, platforms, ports.get("control", 0))
    with screens, control:
        kept.write_text(json.dumps({"screens": screens.port, "control": control.port}))
        for platform in platforms:
            platform.start()
        _tell(folder / "lab.json", control, platforms)
        saved = [(-1, -1)] * len(platforms)
        while not over.wait(SAVE_EVERY_S):
            saved = [_saved(*each) for each in zip(sites, platforms, saved, strict=True)]
        for platform in platforms:
            platform.stop()
        for at, platform in zip(sites, platforms, strict=True):
            at.save(platform)
    (folder / "lab.json").unlink(missing_ok=True)


def _saved(at: Site, platform: Platform, then: tuple[int, int]) -> tuple[int, int]:
    """Saves a world of which machines or the bytes on disks have changed since; where both stand now."""
    now = platform.world.sequence, platform.world.contents.sequence
    if now != then:
        at.save(platform)
    return now


def _tell(path: Path, control: Control, platforms: Sequence[Platform]) -> None:
    told = {"control": control.url, "platforms": [asdict(platform.registration) for platform in platforms]}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(told))
    os.replace(fresh, path)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab", description="Simulated hypervisors of several makers.")
    parser.add_argument("--data", type=Path, required=True, help="where worlds, ports and certificates are kept")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same world")
    parser.add_argument("--speed", type=float, default=1.0, help="so many virtual seconds a second")
    parser.add_argument("--kind", action="append", dest="kinds", choices=KINDS, help="may be repeated; default: all")
    options = parser.parse_args(arguments)
    options.kinds = options.kinds or list(KINDS)
    return options


if __name__ == "__main__":
    sys.exit(main())
