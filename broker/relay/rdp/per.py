"""Lengths in PER (X.691 §10.9), as T.124 and T.125 use them. Pure."""

from __future__ import annotations

from broker.relay.rdp.der import Malformed


def per_length(data: bytes, at: int) -> tuple[int, int]:
    """(where the content begins, where it ends) of the length that stands at `at`. Raises `Malformed`."""
    head = data[at : at + 2]
    if len(head) < 2 or head[0] & 0xC0 == 0xC0:
        raise Malformed("a length of an unknown form")
    size, width = (int.from_bytes(head, "big") & 0x3FFF, 2) if head[0] & 0x80 else (head[0], 1)
    return at + width, at + width + size
