"""RDP as a stream's speech: the first messages both ways are looked at one by one, the rest flows."""

from __future__ import annotations

from broker.relay.closing import Closing, Code
from broker.relay.rdp import client_info, conference, der, x224
from broker.relay.rdp.conference import Changes
from broker.relay.rdp.der import Malformed

SIGN_IN_LIMIT = 64 * 1024
"""Bytes of the longest message of a sign-in (CredSSP) that is waited for."""
SINGLES = 64
"""So many messages of the guest go to the browser one by one: more than its connection takes to stand. IronRDP 0.7.0
loses what comes together with the last of that, and then takes the midst of a picture for the head of a message."""
_FAST_PATH = 0x03
"""The bits of a message's first byte that are unset in fast-path input (MS-RDPBCGR §2.2.8.1.2): keys and mouse."""


class Rdp:
    """Holds the browser's bytes back until each message is whole, up to and with the last one that may be changed.

    They come in this order: messages of a sign-in (CredSSP), the conference's, some that are nobody's concern, and who
    signs in. What is not understood ends the stream: it would pass unchanged.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._held = bytearray()
        self._has_conference = False
        self._has_begun = False
        self._singles = SINGLES
        self._cut = bytearray()

    def is_input(self, data: bytes, /) -> bool:
        return self._has_begun and data[:1] != b"" and data[0] & _FAST_PATH == 0

    def passed(self, data: bytes, /) -> bytes:
        if self._has_begun:
            return data
        self._held += data
        try:
            return self._whole_messages()
        except Malformed as fault:
            raise Closing(Code.BAD_BROWSER, f"The viewer sent {fault}.") from None

    def _whole_messages(self) -> bytes:
        ready = bytearray()
        while not self._has_begun and (length := self._length()) and length <= len(self._held):
            message = bytes(self._held[:length])
            del self._held[:length]
            ready += self._changed(message)
        if self._has_begun:
            ready += self._held
            self._held.clear()
        return bytes(ready)

    def _changed(self, message: bytes) -> bytes:
        if message[0] == der.SEQUENCE:
            return message
        if not self._has_conference:
            self._has_conference = True
            return conference.rewritten(message, self._changes)
        if client_info.is_client_info(message):
            self._has_begun = True
            return client_info.signing_in(message, self._changes.account, self._changes.start)
        return message

    def _length(self) -> int | None:
        """Of the message that begins what is held; None while that is not known. Raises `Malformed`."""
        if not self._held:
            return None
        if self._held[0] != der.SEQUENCE:
            return x224.frame_length(bytes(self._held[: x224.HEADER]))
        length = der.whole_length(bytes(self._held[: der.HEADER_LIMIT]))
        if length is not None and length > SIGN_IN_LIMIT:
            raise Malformed("a sign-in that is too long")
        return length

    def messages(self, data: bytes, /) -> list[bytes]:
        self._cut += data
        ready = []
        while self._singles and (length := _length_from_guest(self._cut)) and length <= len(self._cut):
            ready.append(bytes(self._cut[:length]))
            del self._cut[:length]
            self._singles -= 1
        if not self._singles and self._cut:
            ready.append(bytes(self._cut))
            self._cut.clear()
        return ready


def _length_from_guest(data: bytearray) -> int | None:
    """Of the message that begins here: CredSSP, a TPKT frame, or fast-path output (MS-RDPBCGR §2.2.9.1.2); None while
    that is not known. Never 0."""
    if len(data) < x224.HEADER:
        return None
    if data[0] == der.SEQUENCE:
        return der.whole_length(bytes(data[: der.HEADER_LIMIT]))
    if data[0] & _FAST_PATH == _FAST_PATH:
        return max(int.from_bytes(data[2:4], "big"), 1)
    return max(int.from_bytes(data[1:3], "big") & 0x7FFF if data[1] & 0x80 else data[1], 1)
