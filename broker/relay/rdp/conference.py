"""What the browser's RDP client tells the guest of itself, and what the relay changes in it on the way.

The MCS Connect Initial (T.125 §11.1) carries a GCC conference request (T.124 §8.7) with blocks of client data
(MS-RDPBCGR §2.2.1.3). Everything is changed in place: no length moves, and channels keep their numbers. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from broker.relay.rdp import der, x224
from broker.relay.rdp.client_info import Account, Start
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.per import per_length
from broker.relay.rdp.x224 import Security

_DATA = b"\x02\xf0\x80"
"""X.224 data, behind the TPKT header."""
_CONNECT_INITIAL = b"\x7f\x65"
_T124 = b"\x00\x05\x00\x14\x7c\x00\x01"
"""The object identifier of T.124, as a choice."""
_CONFERENCE = b"\x00\x08\x00\x10\x00\x01\xc0\x00Duca"
"""A conference request with one set of user data, of Microsoft's."""
_CORE, _NETWORK = 0xC001, 0xC003
_HIGH_COLOUR, _DEPTHS, _CAPABILITIES, _CHOSEN_SECURITY = 140, 142, 144, 212
"""Offsets in CS_CORE, from its header on (MS-RDPBCGR §2.2.1.3.2)."""
_ALL_DEPTHS = 0x000F
_WANTS_32_BPP = 0x0002
_CHANNEL = 12
"""Bytes of a channel: eight of its name, four of options."""

CARRIERS = frozenset({"cliprdr", "rdpdr"})
"""Channels by which text and files leave a desktop or get into it: clipboard and drives."""
NOBODY = b"denied\0\0"
"""A name that no guest serves takes a channel's place."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What the relay changes."""

    asks_32_bpp: bool
    """IronRDP 0.7.0 asks for 16 bits and then draws what xrdp sends sheared (Devolutions/IronRDP#1251)."""
    has_clipboard: bool
    chosen_security: Security | None = None
    """What the guest chose, where the browser was told something else: the guest compares it."""
    account: Account | None = None
    """As whom a guest that did not ask before is signed in to; None: as whom the browser says."""
    start: Start | None = None
    """The program that is the session; None: the desktop."""


def is_connect_initial(frame: bytes) -> bool:
    """Whether a whole TPKT frame is the message that `rewritten` takes."""
    return frame[x224.HEADER : x224.HEADER + 5] == _DATA + _CONNECT_INITIAL


def rewritten(frame: bytes, changes: Changes) -> bytes:
    """The frame with the changes made, of the same length. Raises `Malformed` if it is built in another way than the
    specification says: then it is not known what the guest would make of it."""
    changed = bytearray(frame)
    kinds = []
    for kind, start, end in _blocks(frame):
        kinds.append(kind)
        if kind == _CORE:
            _change_core(changed, start, end, changes)
        elif kind == _NETWORK and not changes.has_clipboard:
            _drop_carriers(changed, start, end)
    if kinds.count(_CORE) != 1 or kinds.count(_NETWORK) > 1:
        raise Malformed("client data without a core, or with blocks twice")
    return bytes(changed)


def _blocks(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, start, end) of each block of client data in the frame."""
    if x224.frame_length(frame) != len(frame) or not is_connect_initial(frame):
        raise Malformed("no MCS connect message")
    at, end = _user_data(frame)
    at = _expect(frame, at, _T124)
    at, _ = per_length(frame, at)  # IronRDP 0.7.0 says two bytes less than there are, and no guest minds
    at = _expect(frame, at, _CONFERENCE)
    at, blocks_end = per_length(frame, at)
    if blocks_end != end:
        raise Malformed("client data of another length than what holds it")
    while at < blocks_end:
        kind, size = int.from_bytes(frame[at : at + 2], "little"), int.from_bytes(frame[at + 2 : at + 4], "little")
        if size < 4 or at + size > blocks_end:
            raise Malformed("a block of client data of an impossible length")
        yield kind, at, at + size
        at += size


def _user_data(frame: bytes) -> tuple[int, int]:
    """Where the last element of the connect message begins and ends: T.125's userData."""
    whole = frame[x224.HEADER + len(_DATA) :]
    # Its tag has two bytes; the reader of elements knows one.
    if der.whole_length(whole[1:]) != len(whole) - 1:
        raise Malformed("an MCS connect message of another length than its frame")
    inside = b"".join(content for _, content in der.elements(whole[1:]))
    *_, (tag, content) = der.elements(inside) if inside else [(0, b"")]
    if tag != der.OCTET_STRING:
        raise Malformed("an MCS connect message without user data")
    return len(frame) - len(content), len(frame)


def _expect(frame: bytes, at: int, what: bytes) -> int:
    if frame[at : at + len(what)] != what:
        raise Malformed("a conference request of another kind")
    return at + len(what)


def _change_core(changed: bytearray, start: int, end: int, changes: Changes) -> None:
    if changes.asks_32_bpp:
        _require(start, end, _CAPABILITIES + 2)
        _put(changed, start + _HIGH_COLOUR, 24, 2)
        _put(changed, start + _DEPTHS, _get(changed, start + _DEPTHS) | _ALL_DEPTHS, 2)
        _put(changed, start + _CAPABILITIES, _get(changed, start + _CAPABILITIES) | _WANTS_32_BPP, 2)
    if changes.chosen_security is not None:
        _require(start, end, _CHOSEN_SECURITY + 4)
        _put(changed, start + _CHOSEN_SECURITY, int(changes.chosen_security), 4)


def _require(start: int, end: int, size: int) -> None:
    if end - start < size:
        raise Malformed("a core of client data that is too short")


def _get(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _put(data: bytearray, at: int, value: int, width: int) -> None:
    data[at : at + width] = value.to_bytes(width, "little")


def _drop_carriers(changed: bytearray, start: int, end: int) -> None:
    count = int.from_bytes(changed[start + 4 : start + 8], "little")
    if end - start != 8 + _CHANNEL * count:
        raise Malformed("a list of channels of an impossible length")
    for at in range(start + 8, end, _CHANNEL):
        name = bytes(changed[at : at + 8]).split(b"\0")[0].decode("latin-1").lower()
        if name in CARRIERS:
            changed[at : at + 8] = NOBODY
