"""The HTTP side of every server of the lab: TLS, keep-alive, a record of what was asked, and faults.

A platform's server is a subclass with `handle` (a request in, a response out) and, where the path does not tell what is
asked, `label`. Listens on loopback only.
"""

from __future__ import annotations

import errno
import socket
import ssl
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from lab.certificates import Certificate, kept, make
from lab.faults import Rule
from lab.world import World

LARGEST_BODY = 64 * 1024 * 1024
PIECE = 1024 * 1024
COME_BACK_S = 10.0


@dataclass(slots=True)
class Request:
    method: str
    path: str
    """Decoded, without the query."""
    raw_path: str
    """As it was sent, with the query."""
    query: dict[str, str]
    headers: Message
    body: bytes
    connection: dict[str, Any]
    """Whatever a server keeps with the TCP connection."""
    is_tls: bool
    label: str = ""
    """What is asked, in a few words: faults go by it."""
    file: BinaryIO | None = None
    """Where the body lies, at its beginning, if the server wanted it there (`LabServer.place_for`)."""


@dataclass(slots=True)
class Response:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Iterator[bytes] | None = None
    """Instead of a body: sent as they come. Each is made without the world's lock; one that raises `Dropped` ends the
    connection."""
    length: int | None = None
    """Of all pieces together. None: they are sent in chunks, and nobody is told beforehand."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came in, and how it was answered (0: not at all)."""

    label: str
    method: str
    raw_path: str
    headers: Mapping[str, str]
    body: bytes
    status: int


def free_port(*addresses: str) -> int:
    """A port that nobody listens on at any of these addresses."""
    with socket.socket() as first:
        first.bind((addresses[0], 0))
        port: int = first.getsockname()[1]
    try:
        for address in addresses:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
    except OSError:
        return free_port(*addresses)
    return port


class Dropped(Exception):
    """The connection ends here."""


class LabServer:
    """One endpoint of a platform. `url` and `certificate` tell clients where it is and what to trust."""

    protocol = "HTTP/1.1"
    server_header = "lab"

    def __init__(
        self,
        world: World,
        address: str = "127.0.0.2",
        port: int = 0,
        *,
        tls: bool = True,
        certificate_folder: Path | None = None,
    ) -> None:
        """Port 0: a free one. The certificate is kept in the folder, if there is one, and else made anew each time."""
        if not ip_address(address).is_loopback:
            raise ValueError(f"{address} is not on loopback: the lab stays there")
        self.world = world
        self.address = address
        self.port = port
        self.faults = world.faults
        self.requests: deque[Seen] = deque(maxlen=20_000)
        """What was asked, oldest first."""
        self._temporary = tempfile.TemporaryDirectory(prefix="lab-") if tls and certificate_folder is None else None
        self._folder = certificate_folder or (Path(self._temporary.name) if self._temporary else None)
        self.certificate: Certificate | None = None
        self._context: ssl.SSLContext | None = None
        self._server: _Http | None = None
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        if tls and self._folder is not None:
            self._show(kept(self._folder) or make(self.address, self._folder))

    # --- what a platform's server brings ------------------------------------------------------------------------------

    def handle(self, request: Request) -> Response:
        """The answer. Called without the world's lock; raise `Dropped` to end the connection."""
        raise NotImplementedError

    def label(self, request: Request) -> str:
        return f"{request.method} {request.path}"

    def expire_sessions(self) -> None:
        """Forget who has signed in."""

    def place_for(self, method: str, path: str) -> BinaryIO | None:
        """A fresh file for the body of such a request, which may be larger than memory; None: it is read at once."""
        return None

    def readable(self, request: Request) -> bytes:
        """The body for the record: a server that gets sealed bodies puts the plain text here."""
        return request.body

    # --- running ------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://{self.address}:{self.port}"

    def start(self) -> LabServer:
        """Listens when this returns; `port` is the real one then."""
        self._server = _Http(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name=self.url, daemon=True).start()
        return self

    def stop(self) -> None:
        """Idempotent."""
        self.cut_off()
        if self._temporary is not None:
            self._temporary.cleanup()

    def cut_off(self) -> None:
        """Nobody is there any more: connections break, new ones are refused."""
        self.faults.cleared.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        with self._guard:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """After `cut_off`: at the same address and port, for which it waits: a client that asked meanwhile may hold it.

        (A connection to a port of the range that systems choose from can get that very port as its own.)
        """
        until = time.monotonic() + COME_BACK_S
        while self._server is None:
            try:
                self.start()
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def change_certificate(self) -> Certificate:
        """Another one, for connections from now on."""
        if self._context is None or self._folder is None:
            raise ValueError("without TLS there is no certificate")
        return self._show(make(self.address, self._folder))

    def _show(self, certificate: Certificate) -> Certificate:
        self.certificate = certificate
        self._context = certificate.context()
        return certificate

    def __enter__(self) -> LabServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- a request ----------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> tuple[Response, Rule | None]:
        """With the fault that strikes. Raises `Dropped`."""
        request.label = self.label(request)
        rule = self.faults.take(request.label, *_HTTP_FAULTS)
        status = 0
        try:
            response = self._answer(request, rule)
            status = response.status
            return response, rule
        finally:
            self.requests.append(
                Seen(
                    request.label,
                    request.method,
                    request.raw_path,
                    dict(request.headers),
                    self.readable(request),
                    status,
                )
            )

    def _answer(self, request: Request, rule: Rule | None) -> Response:
        kind = rule.kind if rule else ""
        if rule is not None and rule.delay_s:
            self.faults.cleared.wait(rule.delay_s)
        if kind == "hang":
            self.faults.cleared.wait()
            raise Dropped
        if kind == "drop_before":
            raise Dropped
        if kind == "session_expires":
            self.expire_sessions()
        if rule is not None and kind == "status":
            return Response(rule.status, rule.body.encode(), {"Content-Type": "text/html"} | rule.headers)
        response = self.handle(request)
        if kind == "drop_after":
            raise Dropped
        return response


_HTTP_FAULTS = ("slow", "hang", "drop_before", "drop_after", "truncate", "status", "session_expires")


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, lab: LabServer) -> None:
        self.lab = lab
        super().__init__((lab.address, lab.port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a client that stalls in the handshake keeps nobody waiting."""
        lab = self.lab
        connection: socket.socket = request
        with suppress(ConnectionError, TimeoutError, ssl.SSLError, OSError):
            connection.settimeout(120)
            if lab._context is not None:
                connection = lab._context.wrap_socket(connection, server_side=True)
            with lab._guard:
                lab._open.add(connection)
            try:
                _Handler(connection, client_address, self)
            finally:
                with lab._guard:
                    lab._open.discard(connection)
                with suppress(OSError):
                    connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are nothing to print; faults of the lab itself are."""
        import sys

        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    wbufsize = -1
    """One packet an answer, else every answer waits for the client's acknowledgement."""
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.protocol_version = self.server.lab.protocol
        self.kept: dict[str, Any] = {}
        super().setup()

    def version_string(self) -> str:
        return self.server.lab.server_header

    def log_message(self, format: str, *arguments: object) -> None:
        """The record is `LabServer.requests`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        file = self.server.lab.place_for(self.command, unquote(parts.path))
        try:
            body = self._read_body() if file is None else self._read_into(file)
            if body is None:
                self.close_connection = True
                return
            request = Request(
                self.command, unquote(parts.path), self.path, dict(parse_qsl(parts.query, keep_blank_values=True)),
                self.headers, body, self.kept, self.server.lab._context is not None, file=file,
            )  # fmt: skip
            response, rule = self.server.lab.answer(request)
            self._send(response, cut=rule is not None and rule.kind == "truncate")
        except Dropped:
            self._drop()
        finally:
            if file is not None:
                file.close()

    def _read_into(self, file: BinaryIO) -> bytes | None:
        """None if it was cut short."""
        is_chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        left = 0 if is_chunked else int(self.headers.get("Content-Length") or 0)
        while True:
            if is_chunked and not left and not (left := int(self.rfile.readline().split(b";")[0] or b"0", 16)):
                self.rfile.readline()
                break
            if not left:
                break
            data = self.rfile.read(min(left, PIECE))
            if not data:
                return None
            file.write(data)
            left -= len(data)
            if is_chunked and not left:
                self.rfile.readline()
        file.seek(0)
        return b""

    def _read_body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        length = int(self.headers.get("Content-Length") or 0)
        if length > LARGEST_BODY:
            self.send_error(413)
            return None
        return self.rfile.read(length)

    def _send(self, response: Response, *, cut: bool) -> None:
        self.send_response(response.status)
        headers = {"Content-Type": "application/json"} | response.headers
        for name, value in headers.items():
            self.send_header(name, value)
        if response.pieces is not None:
            self._send_pieces(response, response.pieces, cut=cut)
            return
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body[: len(response.body) // 2] if cut else response.body)
        self.wfile.flush()
        if cut:
            self._drop()

    def _send_pieces(self, response: Response, pieces: Iterator[bytes], *, cut: bool) -> None:
        """Cut: half of them, or where nobody knows how many there are, half of the first."""
        is_chunked = response.length is None
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(response.length))
        self.end_headers()
        room = (response.length or 0) // 2
        for piece in pieces if self.command != "HEAD" else ():
            kept = piece if not cut else piece[: len(piece) // 2 if is_chunked else room]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(kept), kept) if is_chunked and kept else kept)
            self.wfile.flush()
            room -= len(kept)
            if cut and (is_chunked or not room):
                self._drop()
                return
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _drop(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
