"""RDCleanPath: the first message each way between the IronRDP web client and its proxy, and nothing else.

The browser sends its ticket and the X.224 connection request; we answer with the guest's X.224 confirmation and
certificate, or an error. From then on plain RDP flows. Layout as in IronRDP, crates/ironrdp-rdcleanpath/src/lib.rs
(version 3390), seen with @devolutions/iron-remote-desktop-rdp 0.7.0. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.relay.rdp import der
from broker.relay.rdp.der import Malformed

VERSION = 3390
LIMIT = 16 * 1024
"""Bytes of the longest request that is taken."""
GENERAL, NEGOTIATION = 1, 2
"""Error codes."""
_VERSION, _ERROR, _TICKET, _X224, _CERTIFICATES, _ADDRESS = 0, 1, 3, 6, 7, 9


@dataclass(frozen=True, slots=True)
class Request:
    ticket: str = field(repr=False)
    """What stands in `proxy_auth`. The destination that the browser names is not even read."""
    x224: bytes


def length_of(data: bytes) -> int | None:
    """Bytes that the message beginning here has; None while that is not known. Raises `Malformed`."""
    if data and data[0] != der.SEQUENCE:
        raise Malformed("no RDCleanPath message")
    length = der.whole_length(data)
    if length is not None and length > LIMIT:
        raise Malformed("a message that is too long")
    return length


def read_request(data: bytes) -> Request:
    """Raises `Malformed` for anything but a request of our version with a ticket and an X.224 request."""
    found = der.fields(data)
    if der.number(found.get(_VERSION, b"")) != VERSION:
        raise Malformed("another version of RDCleanPath")
    if _TICKET not in found or _X224 not in found:
        raise Malformed("a request without ticket or X.224 message")
    return Request(der.text(found[_TICKET]), der.only(found[_X224], der.OCTET_STRING))


def response(*, x224: bytes, certificates: Sequence[bytes], address: str) -> bytes:
    """The way is clear. `certificates` in DER, the guest's own first: the browser binds its sign-in to that."""
    chain = b"".join(der.encode(der.OCTET_STRING, certificate) for certificate in certificates)
    return _message(
        (_X224, der.encode(der.OCTET_STRING, x224)),
        (_CERTIFICATES, der.encode(der.SEQUENCE, chain)),
        (_ADDRESS, der.encode(der.UTF8_STRING, address.encode())),
    )


def refusal(code: int, *, http_status: int | None = None, socket_error: int | None = None, x224: bytes = b"") -> bytes:
    """Why there is no way. `socket_error` is a Windows Sockets number, as the client knows them."""
    numbers = ((0, code), (1, http_status), (2, socket_error))
    error = b"".join(der.encode(der.context(tag), der.integer(value)) for tag, value in numbers if value is not None)
    parts = [(_ERROR, der.encode(der.SEQUENCE, error))]
    if x224:
        parts.append((_X224, der.encode(der.OCTET_STRING, x224)))
    return _message(*parts)


def _message(*parts: tuple[int, bytes]) -> bytes:
    every = ((_VERSION, der.integer(VERSION)), *parts)
    return der.encode(der.SEQUENCE, b"".join(der.encode(der.context(tag), content) for tag, content in every))
