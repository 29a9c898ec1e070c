from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from tests.support.prerequisites import REPOSITORY
from tests.support.scratch import remove_abandoned, scratch_root


def test_the_private_cluster_answers_and_may_create_databases(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE second_one")
        names = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        connection.execute("DROP DATABASE second_one")
    assert {"deskyard", "second_one"} <= names


def test_a_killed_test_run_leaves_no_server_and_no_folder() -> None:
    program = (
        "from tests.support.postgres import private_postgres\nimport time\n"
        "with private_postgres() as url:\n    print(url, flush=True)\n    time.sleep(600)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    url = run.stdout.readline().strip()
    psycopg.connect(url).close()
    (folder,) = (path for path in scratch_root().glob("postgres-*") if _server_pid(path) and f":{_port(path)}/" in url)
    server = _server_pid(folder)

    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()

    for _ in range(100):
        if not _is_running(server):
            break
        time.sleep(0.05)
    assert not _is_running(server)
    remove_abandoned("postgres")
    assert not folder.exists()


def _lines(folder: Path) -> list[str]:
    pid_file = folder / "data" / "postmaster.pid"
    return pid_file.read_text().splitlines() if pid_file.exists() else []


def _server_pid(folder: Path) -> int:
    lines = _lines(folder)
    return int(lines[0]) if lines else 0


def _port(folder: Path) -> str:
    return _lines(folder)[3]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
