"""A guest's RDP server as far as the relay opens it: X.224, TLS, and then it sends back what it gets."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.rdp_servers import make_certificate

TLS = bytes.fromhex("030000130ed000001234000200080001000000")
WANTS_NLA = bytes.fromhex("030000130ed000001234000300080005000000")


@dataclass
class RdpGuest:
    address: str
    port: int
    folder: Path
    confirmation: bytes = TLS
    requests: list[bytes] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    connected: int = 0

    def renew(self) -> None:
        """Another certificate, as of another machine."""
        make_certificate(self.folder)


@contextmanager
def rdp_guest(address: str, folder: Path) -> Iterator[RdpGuest]:
    make_certificate(folder)
    listener = socket.create_server((address, 0))
    guest = RdpGuest(address, listener.getsockname()[1], folder)
    serving = threading.Thread(target=_serve, args=(listener, guest))
    serving.start()
    try:
        yield guest
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join(30)


def _serve(listener: socket.socket, guest: RdpGuest) -> None:
    threads = []
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threads.append(threading.Thread(target=_talk, args=(connection, guest)))
            threads[-1].start()
    for thread in threads:
        thread.join(30)


def _talk(plain: socket.socket, guest: RdpGuest) -> None:
    with plain, suppress(OSError):
        guest.requests.append(plain.recv(1024))
        plain.sendall(guest.confirmation)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(guest.folder / "certificate.pem", guest.folder / "key.pem")
        with context.wrap_socket(plain, server_side=True) as secure:
            guest.connected += 1
            try:
                while data := secure.recv(65536):
                    guest.received += data
                    secure.sendall(data)
            finally:
                guest.connected -= 1
