"""`make run` as a newcomer meets it: real processes, real libvirt, real desktops; then what is left when it ends."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.support.prerequisites import REPOSITORY, free_port
from tests.support.process import die_with_us

PROCESSES = ("valkey-server", "uvicorn", "worker", "beat")
PASSWORD = "a demo's password"
LIMIT_S = 240
"""Under emulation on a busy machine."""


class Installation:
    """One installation of its own, started and stopped as a person would."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "var"
        self.log = folder / "output"
        self.port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")},
            "DJANGO_SETTINGS_MODULE": "broker.config.settings",
            "DESKYARD_DATA": str(self.data),
            "DESKYARD_HOST": "127.0.0.1",
            "DESKYARD_PORT": str(self.port),
            "DESKYARD_DEMO_PASSWORD": PASSWORD,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def manage(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", command],
            cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, check=False, timeout=LIMIT_S,
        )  # fmt: skip

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                die_with_us(Path(sys.executable), "manage.py", "run"),
                cwd=REPOSITORY, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def interrupt(self) -> int:
        """Ctrl-C; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)

    def health(self) -> dict[str, Any]:
        """What /healthz says; empty if nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                return {"code": answer.status, **json.load(answer)}
        except urllib.error.HTTPError as error:
            with error:
                return {"code": error.code, **json.load(error)}
        except OSError:
            return {}

    def is_healthy(self) -> bool:
        return self.health().get("code") == 200

    def pids(self) -> dict[str, int]:
        """The processes that supervisor runs for us, by what their command line says."""
        supervisor = (self.data / "run" / "supervisord.pid").read_text().strip()
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in children}
        return {name: pid for name in PROCESSES for pid, line in lines.items() if any(name in part for part in line)}

    def has_replaced(self, name: str, killed: int) -> bool:
        return self.pids().get(name, killed) != killed

    def machines(self) -> dict[str, str]:
        """Desktop's name -> the platform's id of its machine, of all that stand."""
        with closing(sqlite3.connect(f"file:{self.data}/deskyard.sqlite3?mode=ro", uri=True)) as rows:
            return dict(
                rows.execute("SELECT name, machine_id FROM broker_desktop WHERE state <> 'gone' AND machine_id <> ''")
            )

    def wait_until(self, question: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not question():
            assert time.monotonic() < end, f"not within {LIMIT_S} s: {what}\n{self.health()}\n{self.log.read_text()}"
            time.sleep(0.3)


@pytest.fixture
def installation(tmp_path: Path, tiny_image: Path, system_libvirt: str) -> Iterator[Installation]:
    made = Installation(tmp_path)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.interrupt()
        made.manage("clean_demo")


def readable_by_others(data: Path) -> list[Path]:
    """Secrets and rows that another account of the machine could read."""
    kept = [path for pattern in ("*.key", "*.password", "*.sqlite3*") for path in data.glob(pattern)]
    return [path for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077]


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_one_command_runs_desktops_survives_kills_and_takes_itself_away(
    installation: Installation, system_libvirt: str
) -> None:
    """1. Start: healthy, with two ready desktops. 2. Kill each process: it comes back. 3. Ctrl-C: desktops go on.
    4. Start again: the same desktops. 5. Kill the supervisor: nothing is left over. 6. Clean: no machine, no volume."""
    with closing(libvirt.open(system_libvirt)) as conn:
        names_before = {volume.name() for volume in conn.storagePoolLookupByName("default").listAllVolumes()}

        installation.start()
        installation.wait_until(installation.is_healthy, "two desktops are ready")
        assert {part["name"] for part in installation.health()["parts"]} >= {"database", "redis", "worker", "beat"}
        said = installation.log.read_text()
        assert f"http://127.0.0.1:{installation.port}/" in said
        assert f"admin / {PASSWORD}" in said
        assert f"demo / {PASSWORD}" in said
        installation.wait_until(lambda: len(installation.machines()) == 2, "two machines stand")
        machines = installation.machines()

        assert not readable_by_others(installation.data)

        refused = installation.manage("run")
        assert refused.returncode != 0
        assert "runs already" in refused.stderr

        for name in PROCESSES:
            killed = installation.pids()[name]
            os.kill(killed, signal.SIGKILL)
            installation.wait_until(partial(installation.has_replaced, name, killed), f"{name} is back")
        installation.wait_until(installation.is_healthy, "all is well after the kills")

        pids = installation.pids()
        assert installation.interrupt() == 0
        assert not [name for name, pid in pids.items() if _exists(pid)]
        assert all(conn.lookupByUUIDString(machine).isActive() for machine in machines.values())

        installation.start()
        installation.wait_until(installation.is_healthy, "the second start is healthy")
        assert installation.machines() == machines

        pids = installation.pids()
        supervisor = int((installation.data / "run" / "supervisord.pid").read_text())
        os.kill(supervisor, signal.SIGKILL)
        installation.wait_until(lambda: not [pid for pid in pids.values() if _exists(pid)], "all have ended with it")
        assert installation.process is not None
        installation.process.wait(timeout=30)

        cleaned = installation.manage("clean_demo")
        assert cleaned.returncode == 0, cleaned.stderr
        standing = {domain.UUIDString() for domain in conn.listAllDomains()}
        assert not standing & set(machines.values())
        pool = conn.storagePoolLookupByName("default")
        pool.refresh()
        left = {volume.name() for volume in pool.listAllVolumes()} - names_before
        stamp = _installation_id(installation)
        assert not [name for name in left if stamp in name or any(machine in name for machine in machines.values())]


def _installation_id(installation: Installation) -> str:
    with closing(sqlite3.connect(f"file:{installation.data}/deskyard.sqlite3?mode=ro", uri=True)) as rows:
        (found,) = rows.execute("SELECT id FROM broker_installation").fetchone()
    return str(found)[:8]
