"""A whole Deskyard of its own for a test: database, Redis, web, worker and beat as real processes that may be killed.

The test itself reads and writes the stack's database through Django's ORM (`with stack.rows():`) and its pages over
HTTP. Processes of a stack die with the test process, whatever happens to it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import dj_database_url
import psycopg
from django.conf import settings
from django.db import connections

from tests.support.prerequisites import REPOSITORY, free_port
from tests.support.process import die_with_us
from tests.support.redis import RedisServer, tasks_queued_at

T = TypeVar("T")

COMMANDS = {
    "web": (
        "-m", "uvicorn", "{asgi}", "--host", "127.0.0.1", "--port", "{port}", "--ws", "websockets-sansio",
        "--ws-per-message-deflate", "false", "--lifespan", "off", "--no-access-log",
    ),
    "worker": (
        "-m", "{worker}", "--app", "broker.config", "worker", "--pool", "threads", "--concurrency", "16",
        "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat",
    ),
    "mover": (
        "-m", "{worker}", "--app", "broker.config", "worker", "--queues", "movers", "--pool", "threads",
        "--concurrency", "16", "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat",
    ),
    "beat": (
        "-m", "celery", "--app", "broker.config", "beat", "--scheduler", "celery.beat:Scheduler", "--pidfile=",
        "--loglevel", "WARNING",
    ),
}  # fmt: skip


class Stack:
    """One installation. `start("worker")`, `kill("worker")`; many workers: `start("worker", "worker-2")`."""

    def __init__(
        self, folder: Path, database_url: str, redis: RedisServer, django_settings: str, extra: Mapping[str, str]
    ) -> None:
        self.folder, self.database_url, self.redis = folder, database_url, redis
        self.port = free_port()
        self.environment = {
            **os.environ,
            "DESKYARD_DATA": str(folder),
            "DESKYARD_HOST": "127.0.0.1",
            "DESKYARD_PORT": str(self.port),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis.url,
            "DJANGO_SETTINGS_MODULE": django_settings,
            "PYTHONUNBUFFERED": "1",
            **extra,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def vault_keys(self) -> list[str]:
        """The key its processes made, or the one they are to find."""
        file = self.folder / "vault.key"
        if not file.exists():
            file.write_text(settings.VAULT_KEYS[0])
        return file.read_text().strip().split(",")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def manage(self, *arguments: str) -> str:
        """Run a management command; its output. A failure is an error with what it printed."""
        command = [sys.executable, str(REPOSITORY / "manage.py"), *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode:
            raise RuntimeError(f"manage.py {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def start(
        self, kind: str, name: str = "", *, extra: Mapping[str, str] | None = None, module: str = "celery"
    ) -> int:
        """Start a process; its pid. `module` replaces Celery's own start by one that is to die at a given point."""
        name = name or kind
        arguments = [
            part.format(asgi="broker.config.asgi:application", port=self.port, worker=module) for part in COMMANDS[kind]
        ]
        if kind in ("worker", "mover"):
            arguments += ["--hostname", f"{name}@test"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                die_with_us(Path(sys.executable), *arguments),
                env={**self.environment, **(extra or {})},
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.processes[name].pid

    def start_all(self) -> None:
        """But a mover: who tests replication starts one."""
        for kind in COMMANDS.keys() - {"mover"}:
            self.start(kind)
        self.wait_for_web()

    def wait_for_web(self) -> None:
        wait_until(self._answers, 60, "the web server answers", self.log_tail)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/sign-in/", timeout=10):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """End a process as a crash would (SIGKILL)."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def has_died(self, name: str) -> bool:
        return self.processes[name].poll() is not None

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()

    def log_tail(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))

    @contextmanager
    def rows(self) -> Iterator[None]:
        """Django's ORM, nudges and vault of this process on the stack's database and Redis while the block lasts."""
        from broker.hypervisors import gate
        from broker.selectors import pulse
        from broker.services import nudges

        cached: list[Any] = [gate.installation_id, pulse.connection, nudges.waiting_connection]
        before = {name: getattr(settings, name) for name in ("REDIS_URL", "VAULT_KEYS")}
        old = connections.settings["default"]
        connections["default"].close()
        connections.settings["default"] = connections.configure_settings(
            {"default": dj_database_url.parse(self.database_url)}
        )["default"]
        del connections["default"]
        settings.REDIS_URL = self.redis.url
        settings.VAULT_KEYS = self.vault_keys
        for function in cached:
            function.cache_clear()
        try:
            with tasks_queued_at(self.redis.url):
                yield
        finally:
            connections["default"].close()
            connections.settings["default"] = old
            del connections["default"]
            for name, value in before.items():
                setattr(settings, name, value)
            for function in cached:
                function.cache_clear()


@contextmanager
def database(server_url: str, name: str, template: str = "template1") -> Iterator[str]:
    """A fresh database on a PostgreSQL server, empty or a copy of another one; its DATABASE_URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield f"{server_url.rsplit('/', 1)[0]}/{name}"
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def stack(
    folder: Path,
    database_url: str,
    redis: RedisServer,
    *,
    django_settings: str = "broker.config.settings",
    extra: Mapping[str, str] | None = None,
    is_migrated: bool = False,
) -> Iterator[Stack]:
    """A migrated, empty installation with nothing running yet; everything it started has ended afterwards."""
    made = Stack(folder, database_url, redis, django_settings, extra or {})
    if not is_migrated:
        made.manage("migrate", "--verbosity", "0")
    try:
        yield made
    finally:
        made.stop()


def wait_until(
    question: Callable[[], T], limit_s: float, what: str, tell: Callable[[], str] = str, pause_s: float = 0.2
) -> T:
    """The first true answer. Fails after the limit with what was waited for and what `tell` knows."""
    end = time.monotonic() + limit_s
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"Not within {limit_s:.0f} s: {what}. {tell()}")
        time.sleep(pause_s)
