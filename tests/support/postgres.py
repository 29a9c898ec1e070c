"""A private PostgreSQL cluster for one test run: own folder, own port; the machine's own is left alone."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.prerequisites import MissingPrerequisite, free_port, require_program
from tests.support.process import die_with_us
from tests.support.scratch import scratch_directory

ATTEMPTS = 5
"""Tries to start: the free port may be taken by somebody else in between."""

START_LIMIT_S = 30

SETTINGS = {
    # A test cluster is thrown away: nothing has to survive a power cut.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",  # several runs may stand beside each other on a small disk
    "max_connections": "300",  # race tests open one connection per thread
    "listen_addresses": "127.0.0.1",
    "log_lock_waits": "on",
}


@contextmanager
def private_postgres(settings: Mapping[str, str] = SETTINGS) -> Iterator[str]:
    """The DATABASE_URL of an empty database `deskyard` while the block lasts; its role may create more databases."""
    binaries = _binaries()
    with scratch_directory("postgres") as folder:
        _hand_to_postgres(folder)
        data = folder / "data"
        _run_as_postgres(binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync",
                         "--locale=C.UTF-8")  # fmt: skip
        server, port = _start(binaries, folder, settings)
        try:
            _run_as_postgres(binaries / "createdb", "-h", folder, "-p", str(port), "-U", "postgres", "deskyard")
            yield f"postgresql://postgres@127.0.0.1:{port}/deskyard"
        finally:
            _stop(server)


def _binaries() -> Path:
    """The folder of the newest server's programs; Debian keeps them off the PATH."""
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if installed:
        return max(installed, key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0))
    return require_program("postgres", "postgresql").resolve().parent


def _start(binaries: Path, folder: Path, settings: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """The server and the port on which it answers."""
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    for _ in range(ATTEMPTS):
        port = free_port()
        with (folder / "log").open("ab") as log:
            server = subprocess.Popen(
                # In this order: the kernel forgets whom to die with when a process changes its user.
                [
                    *_as_postgres(),
                    *die_with_us(binaries / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder, *options),
                ],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if _answers(binaries, server, folder, port):
            return server, port
        _stop(server)
    raise MissingPrerequisite(f"PostgreSQL does not start: {(folder / 'log').read_text()[-1000:]}")


def _answers(binaries: Path, server: subprocess.Popen[bytes], folder: Path, port: int) -> bool:
    """True once it accepts connections; False when it ended or START_LIMIT_S has passed."""
    deadline = time.monotonic() + START_LIMIT_S
    while server.poll() is None and time.monotonic() < deadline:
        asked = subprocess.run(
            [binaries / "pg_isready", "-q", "-h", folder, "-p", str(port)], stdin=subprocess.DEVNULL, check=False
        )
        if asked.returncode == 0:
            return True
        time.sleep(0.05)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Ends it without a checkpoint: the data are thrown away."""
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _hand_to_postgres(folder: Path) -> None:
    if os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise MissingPrerequisite("User postgres is missing (Debian package postgresql)") from None
    shutil.chown(folder, user.pw_uid, user.pw_gid)


def _as_postgres() -> list[str]:
    # The server refuses to run as root; an ordinary user runs it as himself.
    # setpriv, not runuser: it becomes the program instead of waiting for it, so that signals reach the server.
    switch = ["--reuid", "postgres", "--regid", "postgres", "--init-groups"]
    return [str(require_program("setpriv", "util-linux")), *switch] if os.geteuid() == 0 else []


def _run_as_postgres(*arguments: str | Path) -> None:
    done = subprocess.run(
        [*_as_postgres(), *arguments], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise MissingPrerequisite(f"{arguments[0]} failed: {done.stderr.strip()}")
