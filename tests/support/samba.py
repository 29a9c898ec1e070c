"""A private file server (Debian's Samba) for one test run: on loopback, all that it keeps in a folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.prerequisites import MissingPrerequisite, free_port, require_program, require_root
from tests.support.process import die_with_us
from tests.support.scratch import scratch_directory

ATTEMPTS = 5
USER = "nobody"
"""Samba wants an account of the machine for each of its own; this one is everywhere, and may do nothing."""
PASSWORD = "p@ss/w:rd %25;#"
"""Whoever puts it into an address must encode it."""

CONFIGURATION = """
[global]
server role = standalone server
smb ports = {port}
interfaces = 127.0.0.1
bind interfaces only = yes
disable netbios = yes
load printers = no
printcap name = /dev/null
disable spoolss = yes
map to guest = never
server min protocol = SMB3
server smb encrypt = desired
passdb backend = tdbsam:{folder}/private/passdb.tdb
private dir = {folder}/private
lock directory = {folder}/lock
state directory = {folder}/state
cache directory = {folder}/cache
pid directory = {folder}/pid
ncalrpc dir = {folder}/ncalrpc
log file = {folder}/log
max log size = 0
usershare path =

[{share}]
path = {files}
read only = no
force user = root

[read-only]
path = {files}
read only = yes
force user = root
"""


class SambaServer:
    """One share named `share`; what is in it lies in `files`."""

    share = "exports"
    user = USER
    password = PASSWORD

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.files = folder / "files"
        self.port = 0

    @property
    def address(self) -> str:
        """As people write a share, with the port."""
        return f"//127.0.0.1:{self.port}/{self.share}"

    def start(self) -> None:
        """Answers on `port` when this returns. The first start chooses the port. A running server is left alone."""
        if self._process is not None and self._process.poll() is None:
            return
        for _ in range(ATTEMPTS):
            port = self.port or free_port()
            if self._start_on(port):
                self.port = port
                return
        raise MissingPrerequisite(f"smbd does not start: {self._said()}")

    def stop(self) -> None:
        """Ends the server and all its connections, at once."""
        process, self._process = self._process, None
        if process is not None:
            # Each connection has a process of its own, in the server's group.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def freeze(self, *, again: bool = False) -> None:
        """It takes what comes and answers nothing, until it is thawed with `again`."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGCONT if again else signal.SIGSTOP)

    def _start_on(self, port: int) -> bool:
        configuration = self._configure(port)
        program = require_program("smbd", "samba")
        command: list[str | Path] = [program, "--foreground", "--no-process-group", f"--configfile={configuration}"]
        with (self._folder / "output").open("ab") as log:
            self._process = subprocess.Popen(
                die_with_us(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(200):
            if self._process.poll() is not None:
                self._process = None
                return False
            if _listens(port):
                return True
            time.sleep(0.05)
        self.stop()
        return False

    def _configure(self, port: int) -> Path:
        path = self._folder / "smb.conf"
        is_new = not path.exists()
        path.write_text(CONFIGURATION.format(port=port, folder=self._folder, share=self.share, files=self.files))
        if is_new:
            for name in ("private", "lock", "state", "cache", "pid", "ncalrpc", "files"):
                (self._folder / name).mkdir()
            program = require_program("smbpasswd", "samba-common-bin")
            done = subprocess.run(
                [program, "-c", path, "-s", "-a", self.user],
                input=f"{self.password}\n{self.password}\n".encode(), capture_output=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise MissingPrerequisite(f"smbpasswd: {done.stderr.decode()[-500:]}")
        return path

    def _said(self) -> str:
        logs = (self._folder / "output", self._folder / "log")
        return "".join(path.read_text()[-500:] for path in logs if path.exists())


@contextmanager
def private_samba() -> Iterator[SambaServer]:
    """A running server for the length of the block."""
    require_root("A private file server (Samba)")
    with scratch_directory("samba") as folder:
        server = SambaServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
