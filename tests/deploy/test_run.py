"""`make run` as a newcomer meets it: real processes, real libvirt, real desktops; then what is left when it ends."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.deploy.account import HYPERVISOR_PACKAGES, INSIDE, account, home_of_an_account
from tests.deploy.installation import PROCESSES, Installation
from tests.support.guests import wait_for_agent
from tests.support.prerequisites import REPOSITORY
from tests.support.process import die_with_us

PASSWORD = "a demo's password"
RUN, CLEAN = "deploy/run.sh", "manage.py clean_demo"


def launch(command: str, variables: Mapping[str, str]) -> list[str]:
    """As ourselves, in the tests' checkout and environment, where nothing is left to install."""
    known = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")} | {
        "DJANGO_SETTINGS_MODULE": "broker.config.settings",
        "DESKYARD_VENV": sys.prefix,
        "PIP_NO_INDEX": "1",
        **variables,
    }
    settings = [f"{name}={value}" for name, value in known.items()]
    program = [sys.executable] if command.startswith("manage.py") else []
    return die_with_us("env", "-i", f"--chdir={REPOSITORY}", *settings, *program, *command.split())


@pytest.fixture
def two_installations(
    tmp_path: Path, tiny_image: Path, system_libvirt: str
) -> Iterator[tuple[Installation, Installation]]:
    """On one libvirt. What they made is gone afterwards."""
    with ExitStack() as after:

        def make(name: str) -> Installation:
            data = tmp_path / name
            variables = {"DESKYARD_DATA": str(data), "DESKYARD_DEMO_PASSWORD": PASSWORD}
            made = Installation(data, tmp_path / f"{name}.output", launch, variables)
            after.callback(made.call, f"{CLEAN} --yes")
            after.callback(made.stop)
            return made

        yield make("var"), make("neighbour")


@pytest.fixture(scope="module")
def home(tiny_image: Path) -> Iterator[Path]:
    with home_of_an_account(tiny_image) as folder:
        yield folder


@pytest.fixture
def visible(system_libvirt: str) -> Iterator[Callable[[Installation], set[str]]]:
    """What of an installation stands in the machine's libvirt: running desktops, template, volumes."""
    with closing(libvirt.open(system_libvirt)) as conn:
        yield lambda made: _visible(conn, [made.stamp(), *made.machines().values()])


def _visible(conn: Any, marks: list[str]) -> set[str]:
    """Machines, with what they do, and volumes that bear one of the marks in their name or identity."""
    pool = conn.storagePoolLookupByName("default")
    pool.refresh()
    machines = {f"{one.UUIDString()} {one.name()}": one.isActive() for one in conn.listAllDomains()}
    found = {f"{name} {'runs' if runs else 'is off'}" for name, runs in machines.items()}
    found |= {volume.name() for volume in pool.listAllVolumes()}
    return {name for name in found if any(mark in name for mark in marks)}


def readable_by_others(data: Path) -> list[Path]:
    """Secrets and rows that another account of the machine could read."""
    kept = [path for pattern in ("*.key", "*.password", "*.sqlite3*") for path in data.glob(pattern)]
    return [path for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077]


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_one_command_runs_desktops_survives_kills_and_takes_only_itself_away(
    two_installations: tuple[Installation, Installation], visible: Callable[[Installation], set[str]]
) -> None:
    """1. Start: healthy, with two ready desktops; a neighbour too. 2. Kill each process: it comes back. 3. Ctrl-C:
    desktops go on. 4. Start again: the same desktops. 5. Kill the supervisor: nothing is left over. 6. Clean, asked
    first: no machine, no volume; all of the neighbour's stands and runs."""
    installation, neighbour = two_installations
    installation.start(RUN)
    neighbour.start(RUN)
    for one in two_installations:
        one.wait_until(one.is_healthy, "a desktop is ready")
        one.wait_until(partial(one.has_said, "2 desktops are ready"), "both are")
    assert neighbour.interrupt() == 0
    neighbours = visible(neighbour)
    assert len([name for name in neighbours if name.endswith(" runs")]) == 2
    assert {part["name"] for part in installation.health()["parts"]} >= {"database", "redis", "worker", "beat"}
    said = installation.said()
    assert f"{installation.url}/" in said
    assert f"admin / {PASSWORD}" in said
    assert f"demo / {PASSWORD}" in said
    machines = installation.machines()
    assert len(machines) == 2
    standing = visible(installation)

    assert not readable_by_others(installation.data)

    refused = installation.call("manage.py run")
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
    assert visible(installation) == standing

    installation.start(RUN)
    installation.wait_until(installation.is_healthy, "the second start is healthy")
    assert installation.machines() == machines

    pids = installation.pids()
    supervisor = int((installation.data / "run" / "supervisord.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    installation.wait_until(lambda: not [pid for pid in pids.values() if _exists(pid)], "all have ended with it")
    assert installation.process is not None
    installation.process.wait(timeout=30)

    standing = visible(installation)
    status, said = installation.call_at_a_terminal(CLEAN, "no")
    assert status != 0
    # Two, or more while one that fell silent is being replaced.
    assert re.search(r"desktops with their disks: [2-9]\b", said), said
    assert visible(installation) == standing

    status, said = installation.call_at_a_terminal(CLEAN, "yes")
    assert status == 0, said
    assert re.search(r"Removed [2-9] desktops", said), said
    with closing(libvirt.open("qemu:///system")) as conn:
        assert not _visible(conn, [installation.stamp(), *machines.values()])
    assert visible(neighbour) == neighbours


def test_without_rights_desktops_run_on_a_libvirt_of_ones_own(home: Path) -> None:
    """All by default but the port. 1. Start: a password that nobody chose, guests with user networking. 2. Ctrl-C: they
    go on. 3. Their daemon ends too, as with the machine: the next start brings the same desktops back. 4. Clean."""
    with (
        account(home) as me,
        Installation(home / "deskyard" / "var", home / "output", me.launch, {}) as installation,
    ):
        installation.start("make run")
        installation.wait_until(installation.is_healthy, "a desktop is ready")
        installation.wait_until(partial(installation.has_said, "2 desktops are ready"), "both are")
        password = (installation.data / "demo.password").read_text()
        assert installation.has_said(f"admin / {password}\n")
        assert installation.lets_in("admin", password)
        assert not installation.lets_in("admin", "another")
        assert not readable_by_others(installation.data)

        machines = installation.machines()
        marks = [installation.stamp(), *machines.values()]
        with closing(libvirt.open(me.libvirt_uri)) as conn:
            for machine in machines.values():
                domain = conn.lookupByUUIDString(machine)
                assert "<interface type='user'>" in domain.XMLDesc()
                wait_for_agent(domain)
            installation.interrupt()
            assert installation.has_said("Deskyard has stopped")
            assert all(conn.lookupByUUIDString(machine).isActive() for machine in machines.values())

        daemon = me.libvirt_pid()
        os.kill(daemon, signal.SIGTERM)
        installation.wait_until(lambda: not _exists(daemon), "the daemon has ended")
        installation.start("make run")
        installation.wait_until(installation.is_healthy, "the second start is healthy")
        assert me.libvirt_pid() != daemon
        assert installation.machines() == machines
        with closing(libvirt.open(me.libvirt_uri)) as conn:
            assert all(conn.lookupByUUIDString(machine).isActive() for machine in machines.values())
        installation.interrupt()

        cleaned = installation.call("make clean-demo")
        assert cleaned.returncode == 0, cleaned.stderr
        assert re.search(r"desktops with their disks: [2-9]\b", cleaned.stdout), cleaned.stdout
        with closing(libvirt.open(me.libvirt_uri)) as conn:
            assert not _visible(conn, marks)


def test_without_rights_and_hypervisor_one_line_says_what_to_install_and_the_lab_has_desktops(home: Path) -> None:
    variables = {"DESKYARD_DATA": f"{INSIDE}/home/var", "DESKYARD_LAB": "1"}
    with (
        account(home, without=list(HYPERVISOR_PACKAGES.values())) as me,
        Installation(home / "home" / "var", home / "output", me.launch, variables) as installation,
    ):
        installation.start("make run")
        installation.wait_until(partial(installation.has_said, "No demo desktops"), "it says that there are none")
        assert installation.has_said("on platforms of 4 makers")
        installation.wait_until(installation.is_healthy, "desktops are ready in the lab")
        (line,) = [line for line in installation.said().splitlines() if "apt" in line or "nstall" in line]
        assert line.startswith("Missing packages. As root: apt-get install ")
        assert set(line.split()) >= set(HYPERVISOR_PACKAGES)
        assert installation.lets_in("admin", (installation.data / "demo.password").read_text())
