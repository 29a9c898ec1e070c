"""The first message of a Remote Desktop program: where it wants to go, and what is left of it for the guest. Pure.

MS-RDPBCGR §2.2.1.1: after the X.224 head a cookie or routing token that ends with CR LF, then what it asks for.
Programs send there, unchanged, what `loadbalanceinfo` of their file says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from broker.relay.rdp import x224
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.x224 import Security

LIMIT = 5 + 254
"""Bytes of the longest request: X.224 says its length in one byte. With a ticket of ours it has about a hundred."""
HEAD = 11
"""Bytes of TPKT and X.224 before the token."""
_ASKS = re.compile(rb"\x01.\x08\x00(.{4})", re.DOTALL)
"""RDP_NEG_REQ; what may follow it (RDP_NEG_CORRELATION_INFO) is the guest's to read."""
_TOKEN = re.compile(rb"Cookie: msts=([A-Za-z0-9_-]{16,128})\r\n")


@dataclass(frozen=True, slots=True)
class Routed:
    ticket: str = field(repr=False)
    request: bytes
    """As the guest is to have it: without the ticket."""
    asked: Security


def length_of(head: bytes) -> int:
    """Bytes of the request that begins with these four. Raises `Malformed` for what is none."""
    length = x224.frame_length(head)
    if length is None or not HEAD <= length <= LIMIT:
        raise Malformed("no connection request")
    return length


def read(data: bytes) -> Routed:
    """Raises `Malformed` for what is no connection request with a ticket in it."""
    is_whole = len(data) >= HEAD and length_of(data[: x224.HEADER]) == len(data) and data[4] == len(data) - 5
    if not is_whole or data[5] != x224.REQUEST:
        raise Malformed("no connection request")
    found = _TOKEN.match(data, HEAD)
    if not found:
        raise Malformed("no ticket")
    rest = data[found.end() :]
    size = HEAD + len(rest)
    request = bytes([3, 0]) + size.to_bytes(2, "big") + bytes([size - 5]) + data[5:HEAD] + rest
    asks = _ASKS.match(rest)
    asked = Security(int.from_bytes(asks[1], "little")) if asks else Security.PLAIN
    return Routed(found[1].decode("ascii"), request, asked)
