"""The doors for people's programs, as the process that they are, and a Remote Desktop program's first message."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.relay.rdp.x224 import Security
from tests.broker.relay.serving import DOOR_PORT, VNC_DOOR_PORT
from tests.support.prerequisites import REPOSITORY
from tests.support.process import die_with_us


@dataclass
class Door:
    process: subprocess.Popen[bytes]
    log: Path
    port: int = DOOR_PORT

    def said(self) -> bytes:
        return self.log.read_bytes()

    def knock(self, source: str = "127.0.0.1") -> socket.socket:
        """A connection from that address of this machine."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20, source_address=(source, 0))

    def show(self, ticket: str, source: str = "127.0.0.1") -> socket.socket:
        """A connection that has shown this ticket."""
        program = self.knock(source)
        program.sendall(first_message(ticket))
        return program

    @property
    def memory_kib(self) -> int:
        with open(f"/proc/{self.process.pid}/smaps_rollup") as rollup:
            return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def opened(environment: dict[str, str], port: int = DOOR_PORT) -> Iterator[Door]:
    """The door for Remote Desktop programs."""
    with _running(environment | {"DESKYARD_RDP_PORT": str(port)}, port) as door:
        yield door


@contextmanager
def vnc_opened(environment: dict[str, str], pki: Path) -> Iterator[Door]:
    """The door for Remote Viewer, with a certificate of an authority whose files stand in `pki`."""
    files = {
        "DESKYARD_VNC_CERTIFICATE": str(pki / "servercert.pem"),
        "DESKYARD_VNC_KEY": str(pki / "serverkey.pem"),
    }
    with _running(environment | files | {"DESKYARD_VNC_PORT": str(VNC_DOOR_PORT)}, VNC_DOOR_PORT) as door:
        yield door


@contextmanager
def _running(environment: dict[str, str], port: int) -> Iterator[Door]:
    with tempfile.NamedTemporaryFile(prefix="deskyard-door-") as log:
        door = subprocess.Popen(
            die_with_us(sys.executable, "-m", "broker.config.doors"),
            cwd=REPOSITORY,
            env=environment | {"DESKYARD_DOORS_HOST": "127.0.0.1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_until_it_listens(door, port)
            yield Door(door, Path(log.name), port)
        finally:
            door.terminate()
            door.wait(20)


def _wait_until_it_listens(door: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert door.poll() is None, "the door's process ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the door does not open")


def first_message(ticket: str, asked: Security = Security.TLS | Security.NLA, rest: bytes = b"") -> bytes:
    """As a program sends it whose file has that ticket."""
    token = f"Cookie: msts={ticket}\r\n".encode()
    body = bytes([0xE0, 0, 0, 0, 0, 0]) + token + bytes([1, 0, 8, 0]) + int(asked).to_bytes(4, "little") + rest
    return bytes([3, 0]) + (5 + len(body)).to_bytes(2, "big") + bytes([len(body)]) + body


def is_hung_up_on(program: socket.socket) -> bool:
    """Whether the door closes it, within 20 s, without a word."""
    with program:
        try:
            return program.recv(1) == b""
        except ConnectionResetError:
            return True
