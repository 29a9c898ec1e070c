"""A VNC client that only knocks: the handshake of RFC 6143 up to the security result."""

from __future__ import annotations

import socket

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

VNC_AUTHENTICATION = 2


def lets_in(host: str, port: int, password: str) -> bool:
    """Whether the password is accepted. Raises AssertionError where none is asked for."""
    with socket.create_connection((host, port), timeout=10) as peer, peer.makefile("rwb", buffering=0) as stream:
        assert stream.read(12).startswith(b"RFB 003.")
        stream.write(b"RFB 003.008\n")
        offered = stream.read(stream.read(1)[0])
        assert list(offered) == [VNC_AUTHENTICATION], "the screen must ask for a password"
        stream.write(bytes([VNC_AUTHENTICATION]))
        stream.write(_answer(stream.read(16), password))
        return stream.read(4) == bytes(4)


def _answer(challenge: bytes, password: str) -> bytes:
    """DES with the password as key, the bits of each byte in reverse (RFC 6143, 7.2.2, and its erratum)."""
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode()[:8].ljust(8, b"\0"))
    cipher = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()  # noqa: S305 - VNC's own, see above
    return cipher.update(challenge) + cipher.finalize()
