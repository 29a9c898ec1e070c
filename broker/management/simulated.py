"""The lab of this installation: simulated platforms of every maker, run as a process beside the broker.

It is a program of its own (`python -m lab`); the broker meets it only over the wire, as it meets real platforms. What
an administrator would enter to register them stands in a file that the lab writes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

POOL, TEMPLATE = "All makers", "Simulated desktop"
START_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Simulated:
    """One platform of the lab: what would be entered to register it."""

    kind: str
    name: str
    values: Mapping[str, str] = field(repr=False)
    template: str
    """Platform id of its golden image."""


def folder() -> Path:
    """Where worlds, ports and certificates are kept."""
    return Path(settings.DATA_DIR) / "lab"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lab", "--data", str(folder()), *arguments]


def platforms(limit_s: float = 0.0) -> list[Simulated]:
    """What the lab offers, once it is up; empty if it is not within the limit."""
    told, last = folder() / "lab.json", time.monotonic() + limit_s
    while not told.exists():
        if time.monotonic() >= last:
            return []
        time.sleep(0.2)
    return [
        Simulated(one["kind"], one["name"], {**one["settings"], **one["secrets"]}, one["template"])
        for one in json.loads(told.read_text())["platforms"]
    ]


def control_address() -> str:
    """URL of the control port; empty while the lab is not up."""
    told = folder() / "lab.json"
    return str(json.loads(told.read_text())["control"]) if told.exists() else ""


@contextmanager
def running() -> Iterator[None]:
    """The lab is up while the block lasts, if it was ever set up: what stands there can be deleted only then."""
    if not folder().exists() or platforms():
        yield
        return
    process = subprocess.Popen(command(), cwd=settings.BASE_DIR, stdin=subprocess.DEVNULL)
    try:
        platforms(START_LIMIT_S)
        yield
    finally:
        process.terminate()
        process.wait()
