"""A VNC client that knocks: the handshake of RFC 6143 and one look."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import SocketIO

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

VNC_AUTHENTICATION = 2
LIMIT_S = 10


def lets_in(host: str, port: int, password: str) -> bool:
    """Whether the password is accepted. Raises AssertionError where none is asked for."""
    with socket.create_connection((host, port), timeout=LIMIT_S) as peer, peer.makefile("rwb", buffering=0) as stream:
        return _is_accepted(stream, password)


@contextmanager
def viewer(host: str, port: int, password: str) -> Iterator[Callable[[], bool]]:
    """Look at a screen; what is yielded tells whether it can still be seen."""
    with socket.create_connection((host, port), timeout=LIMIT_S) as peer, peer.makefile("rwb", buffering=0) as stream:
        assert _is_accepted(stream, password)
        stream.write(b"\x01")  # others may look on
        width, height = struct.unpack(">HH", _exactly(stream, 4))
        _exactly(stream, 16)
        _exactly(stream, int.from_bytes(_exactly(stream, 4), "big"))

        def is_seen() -> bool:
            stream.write(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
            return _exactly(stream, 1) == b"\0"

        yield is_seen


def _is_accepted(stream: SocketIO, password: str) -> bool:
    assert _exactly(stream, 12).startswith(b"RFB 003.")
    stream.write(b"RFB 003.008\n")
    offered = _exactly(stream, _exactly(stream, 1)[0])
    assert list(offered) == [VNC_AUTHENTICATION], "the screen must ask for a password"
    stream.write(bytes([VNC_AUTHENTICATION]))
    stream.write(_answer(_exactly(stream, 16), password))
    return _exactly(stream, 4) == bytes(4)


def _exactly(stream: SocketIO, count: int) -> bytes:
    read = b""
    while len(read) < count:
        more = stream.read(count - len(read))
        assert more, "the screen hung up"
        read += more
    return read


def _answer(challenge: bytes, password: str) -> bytes:
    """DES with the password as key, the bits of each byte in reverse (RFC 6143, 7.2.2, and its erratum)."""
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode()[:8].ljust(8, b"\0"))
    cipher = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()  # noqa: S305 - VNC's own, see above
    return cipher.update(challenge) + cipher.finalize()
