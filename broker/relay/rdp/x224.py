"""The opening of an RDP connection: TPKT frames and the X.224 messages in them. Pure.

MS-RDPBCGR §2.2.1.1 (request) and §2.2.1.2 (confirmation).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from broker.relay.rdp.der import Malformed

HEADER = 4
"""Bytes of a TPKT header: version 3, a zero, the frame's length (RFC 1006 §6)."""
FRAME_LIMIT = 16 * 1024
REQUEST, _CONFIRM = 0xE0, 0xD0
"""Kinds of X.224 messages."""
_NEGOTIATION_REQUEST, _NEGOTIATION_RESPONSE, _NEGOTIATION_FAILURE = 1, 2, 3
_NEGOTIATION_AT = 11
"""Where the negotiation stands in a message without cookie."""
_NEGOTIATION_SIZE = 8


class Security(IntFlag):
    """Kinds of security, as they are asked for and chosen."""

    PLAIN = 0
    TLS = 1
    NLA = 2
    """CredSSP: who signs in is known before the guest shows anything."""
    NLA_EX = 8


@dataclass(frozen=True, slots=True)
class Confirmation:
    security: Security | None
    """What the guest chose; None if it refused what was asked for."""
    failure: int = 0
    """RDP_NEG_FAILURE's code: 5 is that it wants NLA."""


def frame_length(data: bytes) -> int | None:
    """Bytes of the TPKT frame that begins here; None while its header is not all there. Raises `Malformed`."""
    if data and data[0] != 3:
        raise Malformed("no TPKT frame")
    if len(data) < HEADER:
        return None
    length = int.from_bytes(data[2:4], "big")
    if not HEADER + 3 <= length <= FRAME_LIMIT:
        raise Malformed("a TPKT frame of an impossible length")
    return length


def request(security: Security) -> bytes:
    """A connection request of our own, without cookie."""
    negotiation = bytes([_NEGOTIATION_REQUEST, 0, _NEGOTIATION_SIZE, 0]) + int(security).to_bytes(4, "little")
    return _frame(bytes([REQUEST, 0, 0, 0, 0, 0]), negotiation)


def asked_for(data: bytes) -> Security:
    """The kinds of security that a connection request offers. Raises `Malformed`.

    Its cookie, which may name a user or a place behind a load balancer, is for nobody here.
    """
    length = frame_length(data)
    if length != len(data) or len(data) < _NEGOTIATION_AT or data[5] != REQUEST:
        raise Malformed("no X.224 connection request")
    negotiation = data[-_NEGOTIATION_SIZE:] if len(data) >= _NEGOTIATION_AT + _NEGOTIATION_SIZE else b""
    if negotiation[:1] != bytes([_NEGOTIATION_REQUEST]) or negotiation[2:4] != bytes([_NEGOTIATION_SIZE, 0]):
        return Security.PLAIN
    return Security(int.from_bytes(negotiation[4:8], "little"))


def telling(confirmation: bytes, security: Security) -> bytes:
    """A guest's confirmation that names another kind of security as chosen."""
    at = _NEGOTIATION_AT + 4
    return confirmation[:at] + int(security).to_bytes(4, "little") + confirmation[at + 4 :]


def read_confirmation(data: bytes) -> Confirmation:
    """What the guest answered. Raises `Malformed` for what is no X.224 connection confirmation.

    One without negotiation comes from servers that know RDP's own, old security only.
    """
    if frame_length(data) != len(data) or len(data) < _NEGOTIATION_AT or data[5] != _CONFIRM:
        raise Malformed("no X.224 connection confirmation")
    negotiation = data[_NEGOTIATION_AT:]
    if len(negotiation) < _NEGOTIATION_SIZE:
        return Confirmation(Security.PLAIN)
    word = int.from_bytes(negotiation[4:8], "little")
    if negotiation[0] == _NEGOTIATION_FAILURE:
        return Confirmation(None, word)
    if negotiation[0] != _NEGOTIATION_RESPONSE or word not in (0, 1, 2, 8):
        raise Malformed("a security negotiation of an unknown kind")
    return Confirmation(Security(word))


def _frame(head: bytes, negotiation: bytes) -> bytes:
    size = len(head) + len(negotiation)
    return bytes([3, 0]) + (HEADER + 1 + size).to_bytes(2, "big") + bytes([size]) + head + negotiation
