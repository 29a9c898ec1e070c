"""Where disks' bytes come and go: hosts connect here, never the other way, for what they may not be asked over WinRM.

A mover listens for one point or one landing, with a certificate made for it and a token made for it. The host is told
both over WinRM, and pins the certificate by its SHA-256; the token is good for the address that shows it first, until
the dock is closed. Nothing is written down here.

What is asked and answered stands in `asking` (points) and `giving` (landings).
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
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

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


class Answers(Protocol):
    """What stands behind a dock."""

    def answer(self, request: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body, to who has shown the token. May take as long as `LONGEST_POLL_S`."""

    def close(self) -> None:
        """From now on whoever comes is told that it is over. Idempotent."""


class Dock:
    """Listens when made, for whom `inside` answers. `told` is what a host has to know of it."""

    def __init__(self, host: str, settings: HypervSettings, workdir: Path, inside: Answers) -> None:
        """Raises `Unreachable` if none of the ports is free, or the host's name is unknown."""
        self._inside = inside
        self._token = secrets.token_urlsafe(32)
        self._guard = threading.Lock()
        self._peer = ""
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
        """What is inside is closed first, so that the host is told. Idempotent."""
        self._inside.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    def answer(self, peer: str, request: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body. Headers by their names in lower case."""
        shown = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), self._token.encode()):
            return 403, b""
        with self._guard:
            self._peer = self._peer or peer
        if peer != self._peer:
            return 403, b""
        return self._inside.answer(request, headers, body)


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


def as_object(body: bytes) -> dict[str, object]:
    """What a host tells in JSON; empty for what is none."""
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
