"""A host's line to a mover: HTTPS to whatever address it was told, and to nobody who shows another certificate.

The certificate is made for one transfer and signed by nobody: its SHA-256 is compared after the handshake, before
anything is sent.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

ANSWER_S = 30.0


class WrongCertificate(Exception):
    """Somebody else is there."""


@dataclass(frozen=True, slots=True)
class Mover:
    host: str
    port: int
    thumbprint: str
    token: str

    @staticmethod
    def of(told: Mapping[str, Any]) -> Mover:
        return Mover(str(told["host"]), int(told["port"]), str(told["thumbprint"]), str(told["token"]))


class Courier:
    """One connection, opened with the first request. Raises OSError and http.client's errors when it breaks."""

    def __init__(self, mover: Mover) -> None:
        self._mover = mover
        self._line: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        line = self._line or self._open()
        line.request(method, path, body, {"Authorization": f"Bearer {self._mover.token}", **(headers or {})})
        answer = line.getresponse()
        return answer.status, answer.read()

    def _open(self) -> http.client.HTTPConnection:
        mover = self._mover
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the pin below stands instead
        plain = socket.create_connection((mover.host, mover.port), ANSWER_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sealed = context.wrap_socket(plain)
            shown = hashlib.sha256(sealed.getpeercert(binary_form=True) or b"").hexdigest()
        except BaseException:
            plain.close()
            raise
        if shown.lower() != mover.thumbprint.lower():
            sealed.close()
            raise WrongCertificate(shown)
        line = http.client.HTTPConnection(mover.host, mover.port, timeout=ANSWER_S)
        line.sock = sealed
        self._line = line
        return line

    def cut(self) -> None:
        """From another thread: whoever waits for an answer gets none."""
        line = self._line
        if line is not None and line.sock is not None:
            with suppress(OSError):
                line.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
