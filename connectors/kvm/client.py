"""The wire: opening libvirt over each transport, its event loop, and letting go of it.

libvirt's calls block, and a call on a dead line blocks until keepalive cuts it. So everything here runs in daemon
threads that a caller waits for only until its deadline, and at most one attempt to reach an endpoint is under way.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import libvirt

from connectors.errors import ConnectorError, Unreachable, Unsupported
from connectors.kvm import faults
from connectors.kvm.settings import KvmSettings

Connection = Any
"""libvirt.virConnect; the binding has no types."""

CONNECT_S = 5.0
"""How long a TCP connection may take; libvirt itself would wait for the kernel's two minutes."""
ANOTHER_S = 10.0
"""How long a call waits for a connection of its own before the host counts as lost."""
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
KEEPALIVE_S, KEEPALIVE_COUNT = 5, 3
"""A line is given up after 20 s of silence, and every call waiting on it returns then."""

_loop_lock = threading.Lock()
_loop_pid = 0


def ensure_event_loop() -> None:
    """Register libvirt's own event loop and run it in one daemon thread of this process. Idempotent.

    It must be there before the first connection is opened, or that one has neither events nor keepalive. A forked child
    inherits the registration but not the thread, hence the look at the process id.
    """
    global _loop_pid
    with _loop_lock:
        if _loop_pid == os.getpid():
            return
        libvirt.registerErrorHandler(lambda *_: None, None)  # else libvirt prints every error on standard error
        if _loop_pid == 0:
            libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _loop_pid = os.getpid()


def _run_event_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


class Line:
    """Connections to one endpoint, as many as there are calls under way at once; they live and die together.

    One call a connection: of several that wait on the same one only the first returns when keepalive gives it up. The
    others wait on, for ever if the other end's kernel still answers, and when they are woken the process may crash
    (seen with libvirt 9.0; `virNetClientIOEventLoop` in its virnetclient.c polls without a timeout and leaves its
    watches behind).

    libvirt frees a connection when it is closed, also under the feet of a thread that waits for an answer on it; and
    closing may itself wait until keepalive finds the other end dead. So users come and go by `using`, in threads that
    may wait, and once the line is retired each connection is closed when nobody is in it, in a thread of its own.
    """

    def __init__(self, connection: Connection, generation: int, open_another: Callable[[], Connection]) -> None:
        self.generation = generation
        """Different for every line of an endpoint: what was registered on an earlier one is gone."""
        self._open_another = open_another
        self._all = [connection]
        self._idle = [connection]
        self._callbacks: list[tuple[Connection, int]] = []
        self._lock = threading.Lock()
        self._is_retired = False

    @contextmanager
    def using(self) -> Iterator[Connection]:
        """A connection that is the caller's alone for the length of the block. Raises Unreachable, also if the line
        was retired; what `_open_another` raises if all are in use."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _take(self) -> Connection:
        with self._lock:
            if self._is_retired:
                raise Unreachable("The connection was closed.")
            if self._idle:
                return self._idle.pop()
        another = self._open_another()
        with self._lock:
            self._all.append(another)
        return another

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if not self._is_retired:
                self._idle.append(connection)
                return
        self._close([connection])

    @property
    def is_alive(self) -> bool:
        """What libvirt knows of the line without asking the other end."""
        with self._lock:
            return not self._is_retired and all(is_alive(connection) for connection in self._all)

    def keep(self, connection: Connection, callbacks: list[int]) -> None:
        """Remember event registrations: libvirt never closes a connection that still has some."""
        with self._lock:
            self._callbacks.extend((connection, callback) for callback in callbacks)

    def retire(self) -> None:
        """Nobody new may use it. Idempotent; returns at once."""
        with self._lock:
            self._is_retired = True
            idle, self._idle = self._idle, []
        self._close(idle)

    def _close(self, connections: list[Connection]) -> None:
        """Each in a thread of its own: on a dead line one may take as long as the other."""
        for connection in connections:
            with self._lock:
                callbacks = [callback for holder, callback in self._callbacks if holder is connection]
                self._all = [other for other in self._all if other is not connection]
            closing = (connection, callbacks)
            threading.Thread(target=_close_quietly, args=closing, name="libvirt-close", daemon=True).start()


class Endpoint:
    """One libvirt and the line to it, opened when first needed and again after it was lost. Thread-safe."""

    def __init__(self, settings: KvmSettings, workdir: Path) -> None:
        self._settings = settings
        self._workdir = workdir
        self._lock = threading.Lock()
        self._line: Line | None = None
        self._lines = 0
        self._attempt: _Attempt | None = None
        self._files: Path | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        return self._settings.endpoint

    @property
    def is_local(self) -> bool:
        """Whether the host is, as far as the settings say, this machine."""
        return self._settings.transport == "local"

    def line(self, deadline: float) -> Line:
        """A live line. Raises Unreachable, CertificateRejected, CredentialsRejected or Unsupported by the deadline."""
        with self._lock:
            if self._line is not None and self._line.is_alive:
                return self._line
            self._let_go()
            if self._is_closed:
                raise Unreachable(f"{self.name}: the connector was closed.")
            self._settings.require_complete()
            attempt = self._attempt
            if attempt is None or attempt.has_failed:
                attempt = self._attempt = _Attempt(self._open, deadline)
        return self._take(attempt, deadline)

    def _take(self, attempt: _Attempt, deadline: float) -> Line:
        if not attempt.ended.wait(max(0.0, deadline - time.monotonic())):
            raise Unreachable(f"Cannot reach {self.name}: no answer in time. {faults.ADVICE[Unreachable]}")
        with self._lock:
            if self._attempt is attempt:
                self._attempt = None
                if attempt.connection is not None:
                    self._lines += 1
                    self._line = Line(attempt.connection, self._lines, self._open_another)
                    attempt.connection = None
                if self._is_closed:
                    self._let_go()
            if self._line is not None:
                return self._line
        raise attempt.error or Unreachable(f"{self.name}: the connection was lost.")

    def _open_another(self) -> Connection:
        """For a line whose connections are all in use. Waits for it; raises what `line` raises."""
        attempt = _Attempt(self._open, time.monotonic() + ANOTHER_S)
        if not attempt.ended.wait(ANOTHER_S):
            attempt.abandon()
            raise Unreachable(f"Cannot reach {self.name}: no answer in time. {faults.ADVICE[Unreachable]}")
        connection, attempt.connection = attempt.connection, None
        if connection is None:
            raise attempt.error or Unreachable(f"{self.name}: the connection was lost.")
        return connection

    def lose(self, line: Line) -> None:
        """Forget a line that proved dead; the next caller opens a new one."""
        with self._lock:
            if self._line is line:
                self._let_go()

    def _let_go(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.retire()

    def close(self) -> None:
        """Let go of the line and remove key files. Idempotent; never raises; never waits for a dead line."""
        with self._lock:
            self._is_closed = True
            self._let_go()
            files, self._files = self._files, None
        if files is not None:
            shutil.rmtree(files, ignore_errors=True)

    # --- opening, in a thread of its own ---

    def _open(self, deadline: float) -> Connection:
        ensure_event_loop()
        self._knock(deadline)
        try:
            connection = libvirt.openAuth(self.uri(), [_CREDENTIALS, self._answer, None], 0)
        except libvirt.libvirtError as error:
            # A daemon that dies during the handshake looks as if it refused us; one that refused us still listens.
            self._knock(deadline)
            raise faults.ours(error, "opening the connection", self.name) from error
        try:
            connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # drivers without a wire have none
                raise faults.ours(error, "opening the connection", self.name) from error
        return connection

    def _knock(self, deadline: float) -> None:
        """A TCP connection of our own first: it ends in time where libvirt's would not."""
        if self._settings.uri or self._settings.transport == "local":
            return
        place = (self._settings.address, self._settings.real_port)
        try:
            socket.create_connection(place, timeout=max(0.1, min(CONNECT_S, deadline - time.monotonic()))).close()
        except OSError as error:
            raise Unreachable(
                f"Cannot reach {self.name} on port {place[1]}. {faults.ADVICE[Unreachable]}", platform_words=str(error)
            ) from error

    def uri(self) -> str:
        """The libvirt URI. Names files with keys where a transport needs them, never a password."""
        settings = self._settings
        if settings.uri:
            return settings.uri
        if settings.transport == "local":
            if settings.socket:
                # A system's daemon answers to "session" too, a user's daemon to nothing else.
                return f"qemu+unix:///session?{urlencode({'socket': settings.socket}, quote_via=quote, safe='/')}"
            return "qemu:///system"
        user = f"{quote(settings.user, safe='')}@" if settings.transport == "ssh" and settings.user else ""
        host = f"[{settings.address}]" if ":" in settings.address else settings.address
        scheme = {"tls": "qemu+tls", "tcp": "qemu+tcp", "ssh": "qemu+libssh2"}[settings.transport]
        base = f"{scheme}://{user}{host}:{settings.real_port}/system"
        query = urlencode(self._file_parameters(), quote_via=quote, safe="/")
        return f"{base}?{query}" if query else base

    def ssh_command(self, *remote: str) -> tuple[str, ...]:
        """A program that runs `remote` on the host, with the key and the known hosts of the connection. Its words are
        one shell command there, so they may hold only what no shell reads anything into. Raises `Unsupported`."""
        if any(not _PLAIN.fullmatch(word) for word in remote):
            raise Unsupported(f"{self.name}: {' '.join(remote)!a} cannot be run by SSH: it holds special characters.")
        files, settings = self._file_parameters(), self._settings
        return (
            "ssh", "-F", "/dev/null", "-i", files["keyfile"], "-p", str(settings.real_port),
            "-o", f"UserKnownHostsFile={files['known_hosts']}", "-o", "StrictHostKeyChecking=yes",
            "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", f"ConnectTimeout={CONNECT_S:.0f}",
            *(("-l", settings.user) if settings.user else ()), "--", settings.address, *remote,
        )  # fmt: skip

    def _file_parameters(self) -> dict[str, str]:
        settings = self._settings
        if settings.transport == "tls":
            directory = self._write({
                "cacert.pem": settings.ca_certificate,
                "clientcert.pem": settings.client_certificate,
                "clientkey.pem": settings.client_key,
            })  # fmt: skip
            return {"pkipath": str(directory)}
        if settings.transport == "ssh":
            directory = self._write({"key": settings.ssh_key, "known_hosts": settings.known_hosts})
            return {
                "keyfile": str(directory / "key"),
                "known_hosts": str(directory / "known_hosts"),
                "known_hosts_verify": "normal",
                "sshauth": "privkey",
            }
        return {}

    def _write(self, files: dict[str, str]) -> Path:
        """Key material in a directory that only we can read; empty files are left out."""
        with self._lock:
            if self._files is not None:
                return self._files
            if self._is_closed:
                raise Unreachable(f"{self.name}: the connector was closed.")
            directory = self._files = Path(tempfile.mkdtemp(prefix="kvm-", dir=self._workdir))
        for name, text in files.items():
            if text.strip():
                descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    file.write(text.replace("\r\n", "\n").rstrip("\n") + "\n")
        return directory

    def _answer(self, questions: list[list[Any]], _: object) -> int:
        """libvirt asks for credentials: [type, prompt, challenge, default, answer] each."""
        for question in questions:
            if question[0] == libvirt.VIR_CRED_AUTHNAME:
                question[4] = self._settings.user
            elif question[0] in (libvirt.VIR_CRED_PASSPHRASE, libvirt.VIR_CRED_NOECHOPROMPT):
                question[4] = self._settings.password
            else:
                return -1
        return 0


_CREDENTIALS = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]


def is_alive(connection: Connection) -> bool:
    try:
        return connection is not None and bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


class _Attempt:
    """One try to open, in a daemon thread: the caller may stop waiting, and a second caller joins instead of
    doubling."""

    def __init__(self, open_it: Any, deadline: float) -> None:
        self.ended = threading.Event()
        self.connection: Connection = None
        self.error: ConnectorError | None = None
        self._open_it = open_it
        self._deadline = deadline
        self._lock = threading.Lock()
        self._is_unwanted = False
        threading.Thread(target=self._run, name="libvirt-open", daemon=True).start()

    @property
    def has_failed(self) -> bool:
        return self.ended.is_set() and self.connection is None

    def abandon(self) -> None:
        """Nobody waits any more: a connection that comes late is closed."""
        with self._lock:
            self._is_unwanted = True
            late, self.connection = self.connection, None
        if late is not None:
            _close_quietly(late, [])

    def _run(self) -> None:
        try:
            connection = self._open_it(self._deadline)
            with self._lock:
                if not self._is_unwanted:
                    self.connection, connection = connection, None
            if connection is not None:
                _close_quietly(connection, [])
        except ConnectorError as error:
            self.error = error
        except OSError as error:
            self.error = Unreachable("Key files for the connection cannot be written.", platform_words=str(error))
        finally:
            self.ended.set()


def _close_quietly(connection: Connection, callbacks: list[int]) -> None:
    for close in (
        *(partial(connection.domainEventDeregisterAny, callback) for callback in callbacks),
        connection.close,
    ):
        try:
            close()
        except libvirt.libvirtError:
            continue  # a dead line: nothing to let go of at the other end
