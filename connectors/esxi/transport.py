"""HTTPS to one endpoint: certificates checked on every connection, deadlines kept to the second, connections kept.

It never sends a byte of a request over a connection whose certificate is not the trusted or pinned one. pyvmomi's own
pinning is not used: in 9.1.1 it is skipped whenever ordinary verification succeeds or is off, and after the first
connection.
"""

from __future__ import annotations

import hashlib
import io
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any

from connectors.errors import Busy, CertificateRejected, CredentialsRejected, PlatformFault, Unreachable
from connectors.esxi.settings import EsxiSettings

LARGEST_ANSWER = 256 * 2**20
IDLE_S = 30.0
"""A kept connection older than this is not trusted to be alive: the answer to a changing order might be lost on it."""
CONNECT_S = 10.0
KEPT = 8
SHA1_DIGITS = 40

COME_BACK = {429, 503}
"""The endpoint itself says that it has done nothing."""


class Wire:
    """One endpoint. `post` may be called from several threads."""

    def __init__(self, settings: EsxiSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._idle: list[tuple[float, Connection]] = []
        self._context: ssl.SSLContext | None = None
        self._is_closed = False

    def post(
        self, body: bytes, headers: dict[str, str], deadline: float, *, is_reading: bool
    ) -> tuple[int, bytes, str]:
        """Status (200 or 500), body and Set-Cookie of the answer.

        A reading is tried once more if a kept connection turns out to be dead; anything else never is. Raises
        `Unreachable` (also where an answer was lost), `CertificateRejected`, `Busy`, `CredentialsRejected`.
        """
        connection, is_kept = self._take(deadline)
        try:
            return self._exchange(connection, body, headers, deadline)
        except _Lost as lost:
            if not (is_kept and is_reading) or time.monotonic() >= deadline:
                raise self._unreachable(lost) from None
        self._drop_idle()
        connection, _ = self._take(deadline)
        try:
            return self._exchange(connection, body, headers, deadline)
        except _Lost as lost:
            raise self._unreachable(lost) from None

    def close(self) -> None:
        self._is_closed = True
        self._drop_idle()

    # --- connections ---

    def _take(self, deadline: float) -> tuple[Connection, bool]:
        """A connection, and whether it has been used before."""
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            if kept is None:
                return self._open(deadline), False
            since, connection = kept
            if time.monotonic() - since < IDLE_S and not _has_ended(connection):
                return connection, True
            connection.close()

    def _open(self, deadline: float) -> Connection:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unreachable(f"There was no time left to reach {self._settings.endpoint}.")
        return self.connect(timeout=min(left, CONNECT_S))

    def connect(self, *, timeout: float = CONNECT_S) -> Connection:
        """A connection of the caller's own, to the endpoint. Raises `Unreachable`, `CertificateRejected`."""
        settings = self._settings
        connection = Connection(settings.address, settings.real_port, timeout=timeout, context=self._tls())
        try:
            connection.connect()
            connection.require_pin(settings.pin)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise CertificateRejected(
                f"Endpoint {settings.endpoint} shows a certificate that is not the trusted one. Nothing was sent to "
                "it. If the certificate was renewed, compare it at the host's own console and register the new one.",
                platform_words=getattr(error, "verify_message", "") or str(error),
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            connection.close()
            raise self._unreachable(_Lost(str(error) or type(error).__name__)) from None
        return connection

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                try:
                    self._context = tls_context(self._settings)
                except ssl.SSLError as error:
                    raise CertificateRejected(
                        f"The CA certificate registered for {self._settings.endpoint} cannot be read. Paste it again.",
                        platform_words=str(error),
                    ) from None
            return self._context

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < KEPT and not self._is_closed:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    # --- one exchange ---

    def _exchange(
        self, connection: Connection, body: bytes, headers: dict[str, str], deadline: float
    ) -> tuple[int, bytes, str]:
        try:
            connection.deadline = deadline
            connection.sock.settimeout(max(0.01, deadline - time.monotonic()))
            connection.request("POST", "/sdk", body, headers)
            response = connection.getresponse()
            content = _read(response)
        except (OSError, HTTPException, ValueError) as error:
            connection.close()
            raise _Lost(str(error) or type(error).__name__) from None
        if response.status not in (200, 500):
            connection.close()
            self._refuse(response)
        if response.will_close:
            connection.close()
        else:
            self._give_back(connection)
        return response.status, content, response.getheader("Set-Cookie") or ""

    def _refuse(self, response: HTTPResponse) -> None:
        words = f"HTTP {response.status} {response.reason}"
        endpoint = self._settings.endpoint
        if response.status in COME_BACK:
            after = response.getheader("Retry-After") or ""
            raise Busy(
                f"Endpoint {endpoint} is too busy to answer. It will be tried again.",
                platform_words=words,
                retry_after_s=float(after) if after.isdigit() else None,
            )
        if response.status == 401:
            raise CredentialsRejected(
                f"Endpoint {endpoint} refuses the account. Check user and password.", platform_words=words
            )
        if 400 <= response.status < 500 and response.status != 404:
            raise PlatformFault(
                f"Something between us and {endpoint} refuses the request. See the proxy or firewall on the way.",
                platform_words=words,
            )
        raise Unreachable(
            f"Endpoint {endpoint} answers, but not as vSphere does. Check the address and port "
            f"{self._settings.real_port}.",
            platform_words=words,
        )

    def _unreachable(self, lost: _Lost) -> Unreachable:
        return Unreachable(
            f"No answer from {self._settings.endpoint}. Check the address, port {self._settings.real_port} and that "
            "the host is up.",
            platform_words=str(lost),
        )


class _Lost(Exception):
    """The connection ended or the deadline passed before the whole answer was there."""


def tls_context(settings: EsxiSettings) -> ssl.SSLContext:
    """Verifies by the registered authority, else by the machine's own; not at all only for a pinned certificate, which
    is compared on each connection before anything is sent."""
    authority = settings.ca_certificate.strip()
    if authority:
        return ssl.create_default_context(cadata=authority)
    context = ssl.create_default_context()
    if settings.pin:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Connection(HTTPSConnection):
    """An HTTPS connection whose reads end at `deadline`, a `time.monotonic()` value, however slowly bytes drip in."""

    deadline = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.response_class = self._timed_response  # type: ignore[assignment]

    def connect(self) -> None:
        super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def be_patient(self, silent_s: float) -> None:
        """From now on each read and write may take so long, and there is no deadline."""
        self.response_class = HTTPResponse
        self.sock.settimeout(silent_s)

    def require_pin(self, pin: str) -> None:
        """SHA-256, or SHA-1 where vSphere itself has told it, over a connection that is trusted."""
        digest = hashlib.sha1 if len(pin) == SHA1_DIGITS else hashlib.sha256
        if pin and digest(self.sock.getpeercert(True) or b"").hexdigest() != pin:
            raise ssl.SSLCertVerificationError("the certificate does not have the registered fingerprint")

    def _timed_response(self, sock: socket.socket, *args: Any, **kwargs: Any) -> HTTPResponse:
        return HTTPResponse(_TimedSocket(sock, self.deadline), *args, **kwargs)  # type: ignore[arg-type]


class _TimedSocket:
    """As much of a socket as `HTTPResponse` wants."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._deadline), 65536)


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline passed")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _read(response: HTTPResponse) -> bytes:
    content = response.read(LARGEST_ANSWER)
    if len(content) >= LARGEST_ANSWER:
        raise ValueError("the answer is larger than any inventory")
    if response.length:
        raise ValueError("the answer was cut short")
    return content


def _has_ended(connection: Connection) -> bool:
    """Whether the peer has closed it (or said something unasked)."""
    with suppress(OSError, ValueError):
        readable, _, _ = select.select([connection.sock], [], [], 0)
        return bool(readable)
    return True
