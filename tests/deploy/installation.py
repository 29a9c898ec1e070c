"""One installation of Deskyard, started, asked and stopped as a person would."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from http.cookiejar import CookieJar
from pathlib import Path
from subprocess import DEVNULL, STDOUT, CompletedProcess, Popen, run
from typing import Any
from urllib.parse import urlencode

from tests.support.prerequisites import free_port

PROCESSES = ("valkey-server", "uvicorn", "worker", "beat")
LIMIT_S = 240
"""Under emulation on a busy machine."""

Launcher = Callable[[str, Mapping[str, str]], list[str]]
"""(a command line of the checkout, its variables) -> a program with its arguments, which must end with the test run."""


class Installation:
    """`data` is its state as the test sees it; `launch` says as whom and where its commands run.
    Without the lab unless the variables ask for it."""

    def __init__(self, data: Path, log: Path, launch: Launcher, variables: Mapping[str, str]) -> None:
        self.data, self.log = data, log
        self.port = free_port()
        self._launch = launch
        fixed = {"DESKYARD_HOST": "127.0.0.1", "DESKYARD_PORT": str(self.port)}
        self._variables = {"DESKYARD_LAB": "0", **variables, **fixed}
        self.process: Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, command: str) -> CompletedProcess[str]:
        """A command to its end, without a terminal."""
        program = self._launch(command, self._variables)
        return run(program, stdin=DEVNULL, capture_output=True, text=True, check=False, timeout=LIMIT_S)

    def call_at_a_terminal(self, command: str, typed: str) -> tuple[int, str]:
        """A command to its end, with a line typed ahead at its terminal; exit status, standard output and error."""
        ours, theirs = os.openpty()
        try:
            os.write(ours, f"{typed}\n".encode())
            program = self._launch(command, self._variables)
            done = run(program, stdin=theirs, capture_output=True, text=True, check=False, timeout=LIMIT_S)
            return done.returncode, done.stdout + done.stderr
        finally:
            os.close(ours)
            os.close(theirs)

    def start(self, command: str) -> None:
        with self.log.open("wb") as log:
            program = self._launch(command, self._variables)
            self.process = Popen(program, stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True)

    def interrupt(self) -> int:
        """Ctrl-C: the whole foreground group hears it. The exit status."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=60)

    def stop(self) -> None:
        """As `interrupt`, whether it runs or not."""
        if self.process is not None and self.process.poll() is None:
            self.interrupt()

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, *reason: object) -> None:
        """Ends it at once; what it started ends with it, or with the account's machine."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def said(self) -> str:
        """What the terminal of the last start shows."""
        return self.log.read_text()

    def has_said(self, text: str) -> bool:
        return text in self.said()

    def health(self) -> dict[str, Any]:
        """What /healthz says; empty if nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:
                return {"code": answer.status, **json.load(answer)}
        except urllib.error.HTTPError as error:
            with error:
                return {"code": error.code, **json.load(error)}
        except OSError:
            return {}

    def is_healthy(self) -> bool:
        return self.health().get("code") == 200

    def lets_in(self, name: str, password: str) -> bool:
        """Whether the sign-in page accepts them."""
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with browser.open(f"{self.url}/sign-in/", timeout=30) as page:
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.read().decode())
        assert token
        form = {"csrfmiddlewaretoken": token[1], "username": name, "password": password}
        try:
            browser.open(f"{self.url}/sign-in/", urlencode(form).encode(), timeout=30).close()
        except urllib.error.HTTPError as refused:
            refused.close()
            if refused.code != 422:
                raise
            return False
        return True

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
        found = self._rows("SELECT name, machine_id FROM broker_desktop WHERE state <> 'gone' AND machine_id <> ''")
        return {str(name): str(machine) for name, machine in found}

    def stamp(self) -> str:
        """What the names of its template and of the template's volumes contain."""
        ((found,),) = self._rows("SELECT id FROM broker_installation")
        return str(found).replace("-", "")[:8]

    def wait_until(self, question: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not question():
            assert time.monotonic() < end, f"not within {LIMIT_S} s: {what}\n{self.health()}\n{self.said()}"
            time.sleep(0.3)

    def _rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.data}/deskyard.sqlite3?mode=ro", uri=True)) as rows:
            return rows.execute(query).fetchall()
