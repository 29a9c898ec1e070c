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
from importlib import import_module
from pathlib import Path

from lab.clock import Clock
from lab.control import Control
from lab.platform import Platform, Site
from lab.screens import GuestScreens

KINDS = ("esxi", "hyperv", "nutanix", "hypercore")
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
    screens_site = _site(folder, "screens", 0, clock, seed, 0)
    screens = GuestScreens([], screens_site.port())
    sites = [_site(folder, kind, KINDS.index(kind), clock, seed, screens.port) for kind in kinds]
    platforms = [_stand_up(kind, site) for kind, site in zip(kinds, sites, strict=True)]
    screens.worlds = [platform.world for platform in platforms]
    screens_site.keep_ports([screens.port])
    control_site = _site(folder, "control", 0, clock, seed, 0)
    control = Control(clock, platforms, control_site.port())
    with screens, control:
        control_site.keep_ports([control.port])
        for site, platform in zip(sites, platforms, strict=True):
            platform.start()
            site.keep_ports([server.port for server in platform.servers])
        _tell(folder / "lab.json", control, platforms)
        saved = [-1] * len(platforms)
        while not over.wait(SAVE_EVERY_S):
            saved = [_saved(*each) for each in zip(sites, platforms, saved, strict=True)]
        for platform in platforms:
            platform.stop()
        for site, platform in zip(sites, platforms, strict=True):
            site.save(platform.world)
    (folder / "lab.json").unlink(missing_ok=True)


def _stand_up(kind: str, site: Site) -> Platform:
    platform: Platform = import_module(f"lab.{kind}").stand_up(site)
    return platform


def _site(folder: Path, name: str, number: int, clock: Clock, seed: int, screens_port: int) -> Site:
    (folder / name).mkdir(exist_ok=True)
    return Site(name, folder / name, clock, seed, f"127.{64 + number}.0.0/16", screens_port)


def _saved(site: Site, platform: Platform, sequence: int) -> int:
    """Saves a world that has changed since; its sequence now."""
    if platform.world.sequence != sequence:
        site.save(platform.world)
    return platform.world.sequence


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
