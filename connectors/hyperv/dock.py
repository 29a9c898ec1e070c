"""Where disks' bytes come and go: hosts connect here, never the other way, for what they may not be asked over WinRM.

A mover listens for one point or one landing, with a certificate made for it and a token made for it. The host is told
both over WinRM, and pins the certificate by its SHA-256; the token is good for the address that shows it first, until
the dock is closed. Nothing is written down here.

    POST /work    a host that holds disks open: its body answers the last question, the answer is the next one
    GET /image    a host that fetches a disk image, by ranges
    POST /done    it has the image whole, or says what went wrong
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import ssl
import sys
import tempfile
import threading
import time
import zlib
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors.errors import Unreachable
from connectors.hyperv.settings import HypervSettings

LONGEST_POLL_S = 5.0
"""A host that asks for work is told to wait after so long, so that it knows that we live."""
LARGEST_PIECE = 8 << 20
IDLE_S = 90.0
"""A connection that says nothing for so long is dropped."""


class Failed(Exception):
    """The host could not do what it was asked; what it told."""

    def __init__(self, fault: Mapping[str, object]) -> None:
        super().__init__(str(fault.get("id")))
        self.fault = fault


class Silent(Exception):
    """The host has not been heard of for too long."""


@dataclass(eq=False)
class Question:
    number: int
    what: str
    disk: str
    offset: int
    length: int
    answered: threading.Event = field(default_factory=threading.Event)
    result: bytes = b""
    fault: Mapping[str, object] | None = None

    def told(self) -> dict[str, object]:
        return {
            "number": self.number, "what": self.what, "disk": self.disk, "offset": self.offset, "length": self.length
        }  # fmt: skip


class Dock:
    """Listens when made. `told` is what a host has to know of it."""

    def __init__(self, host: str, settings: HypervSettings, workdir: Path) -> None:
        """Raises `Unreachable` if none of the ports is free, or the host's name is unknown."""
        self._token = secrets.token_urlsafe(32)
        self._changed = threading.Condition()
        self._waiting: deque[Question] = deque()
        self._given: Question | None = None
        self._numbers = 0
        self._turn = 0
        """Counts who came for work: only the last one is given any, the others' lines are broken."""
        self._peer = ""
        self._is_closed = False
        self._image: tuple[Path, int] | None = None
        self._end: Mapping[str, object] | None = None
        self.heard_at = 0.0
        """When the host last said anything that was taken; 0: never."""
        self.sent = 0
        """Bytes of the image that have been asked for."""
        address = settings.mover_address or _local_address(host, settings.real_port)
        context, self.thumbprint = _certificate(workdir)
        self._server = _listening(address, settings.mover_port_range, self, context)
        self._address, self.port = address, int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"dock {self.port}", daemon=True
        )
        self._thread.start()

    @property
    def told(self) -> dict[str, object]:
        return {"host": self._address, "port": self.port, "thumbprint": self.thumbprint, "token": self._token}

    @property
    def name(self) -> str:
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"https://{host}:{self.port}"

    def close(self) -> None:
        """The host is told that it is over when it asks next; who waits for it is told too. Idempotent."""
        with self._changed:
            self._is_closed = True
            waiting, self._given = [*self._waiting, self._given], None
            self._waiting.clear()
            for question in waiting:
                if question is not None:
                    question.answered.set()
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    # --- asking a host that holds disks open ---

    def wait_for_host(self, until: float) -> bool:
        """Whether it has been heard of by then."""
        with self._changed:
            self._changed.wait_for(lambda: self.heard_at or self._is_closed, max(0.0, until - time.monotonic()))
            return bool(self.heard_at)

    def ask(self, what: str, disk: str, offset: int, length: int, silence_s: float) -> bytes:
        """May be called from several threads. Raises `Failed`, `Silent`; also `Silent` once the dock is closed."""
        with self._changed:
            self._numbers += 1
            question = Question(self._numbers, what, disk, offset, length)
            if self._is_closed:
                raise Silent
            self._waiting.append(question)
            self._changed.notify_all()
        asked_at = time.monotonic()
        while not question.answered.wait(min(1.0, silence_s / 4)):
            if time.monotonic() > max(self.heard_at, asked_at) + silence_s:
                raise Silent
        if question.fault is not None:
            raise Failed(question.fault)
        if self._is_closed:
            raise Silent
        return question.result

    def _work(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        with self._changed:
            self._turn += 1
            mine, given, self._given = self._turn, self._given, None
            if given is not None and not self._settle(given, headers, body):
                self._waiting.appendleft(given)  # the answer was lost on its way, or the host begins anew
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._is_closed or self._turn != mine, LONGEST_POLL_S)
            if self._is_closed:
                return 200, _json({"what": "end"})
            if self._turn != mine:
                return 200, _json({"what": "wait"})
            self._given = self._waiting.popleft() if self._waiting else None
            return 200, _json(self._given.told() if self._given is not None else {"what": "wait"})

    def _settle(self, given: Question, headers: Mapping[str, str], body: bytes) -> bool:
        if headers.get("x-answer") != str(given.number):
            return False
        try:
            if headers.get("x-fault"):
                given.fault = as_object(body)
            elif headers.get("content-encoding") == "deflate":
                given.result = _inflated(body, given.length)
            else:
                given.result = body
            if given.what == "read" and given.fault is None and len(given.result) != given.length:
                raise ValueError("not as many bytes as asked for")
        except (ValueError, zlib.error):
            given.fault = {"id": "Deskyard.LineLost"}
        given.answered.set()
        return True

    # --- an image that a host fetches ---

    def offer(self, image: Path) -> None:
        with self._changed:
            self._image, self._end, self.sent = (image, image.stat().st_size), None, 0
            self.heard_at = 0.0

    def wait_for_end(self, seconds: float) -> bool:
        """Whether the host has told how it ended. Raises `Failed`."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None, seconds)
            if self._end:
                raise Failed(self._end)
            return self._end is not None

    def _range(self, headers: Mapping[str, str]) -> tuple[int, bytes]:
        if self._image is None:
            return 404, b""
        path, size = self._image
        try:
            first, last = (int(number) for number in headers.get("range", "").removeprefix("bytes=").split("-"))
        except ValueError:
            return 416, b""
        if not 0 <= first <= last < size or last - first >= LARGEST_PIECE:
            return 416, b""
        with path.open("rb") as file:
            file.seek(first)
            data = file.read(last - first + 1)
        self.sent = max(self.sent, last + 1)
        return 206, data

    def _done(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        with self._changed:
            self._end = (as_object(body) or {"id": "Deskyard.LineLost"}) if headers.get("x-fault") else {}
            self._changed.notify_all()
        return 200, b""

    # --- a request ---

    def answer(self, peer: str, request: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body. Headers by their names in lower case."""
        shown = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), self._token.encode()):
            return 403, b""
        with self._changed:
            self._peer = self._peer or peer
            if peer != self._peer or (self._is_closed and request != "POST /work"):
                return 403, b""
            self.heard_at = time.monotonic()
            self._changed.notify_all()
        match request:
            case "POST /work":
                return self._work(headers, body)
            case "GET /image":
                return self._range(headers)
            case "POST /done":
                return self._done(headers, body)
            case _:
                return 404, b""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, place: tuple[str, int], family: socket.AddressFamily, dock: Dock, tls: ssl.SSLContext) -> None:
        self.dock, self._tls = dock, tls
        self._open: set[socket.socket] = set()
        self.address_family = family
        super().__init__(place, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a client that stalls in the handshake keeps nobody waiting."""
        connection: socket.socket = request
        with suppress(OSError):  # what breaks off is begun anew by the host
            connection.settimeout(IDLE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.add(connection)
            try:
                _Handler(connection, client_address, self)
            finally:
                self._open.discard(connection)
                with suppress(OSError):
                    connection.close()

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are nothing to print; faults of ours are."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def _go(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > LARGEST_PIECE:
            self.close_connection = True
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return
        request = f"{self.command} {self.path}"
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, data = self.server.dock.answer(self.client_address[0], request, headers, body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _go

    def version_string(self) -> str:
        return "mover"

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a transfer has thousands of requests."""


def _listening(address: str, ports: range | None, dock: Dock, tls: ssl.SSLContext) -> _Server:
    """At that address if it is one of this machine's; at all of them else, for it may be translated on the way."""
    for port in ports or (0,):
        for place, family in _places(address):
            with suppress(OSError):
                return _Server((place, port), family, dock, tls)
    raise Unreachable("Nothing is free among the movers' ports. Give them more, or let fewer runs go at once.")


def _places(address: str) -> list[tuple[str, socket.AddressFamily]]:
    found = []
    with suppress(OSError):
        found = [(str(it[4][0]), it[0]) for it in socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)]
    return [*found, ("::", socket.AF_INET6), ("0.0.0.0", socket.AF_INET)]  # noqa: S104 - shown a token or refused


def _local_address(host: str, port: int) -> str:
    """Of the way to the host. Nothing is sent. Raises `Unreachable`."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as way:
            way.connect(place)
            return str(way.getsockname()[0])
    except OSError as error:
        raise Unreachable(f"There is no way from this mover to host {host}. Check its name and the network.") from error


def _certificate(workdir: Path) -> tuple[ssl.SSLContext, str]:
    """Made for this dock, signed by itself; its SHA-256 is what hosts are told."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "deskyard mover")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # OpenSSL reads them from files alone: these are there for a moment, for nobody else.
    with tempfile.NamedTemporaryFile(dir=workdir, prefix="hyperv-dock-", suffix=".pem") as file:
        file.write(secret + certificate.public_bytes(serialization.Encoding.PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context, sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _inflated(body: bytes, length: int) -> bytes:
    """Raises zlib.error, ValueError for what would be larger than was asked for."""
    unpack = zlib.decompressobj(-15)
    data = unpack.decompress(body, length + 1)
    if len(data) > length:
        raise ValueError("more bytes than asked for")
    return data


def _json(told: Mapping[str, object]) -> bytes:
    return json.dumps(told).encode("ascii")


def as_object(body: bytes) -> dict[str, object]:
    """What a host tells in JSON; empty for what is none."""
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
