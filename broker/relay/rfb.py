"""The opening of the RFB protocol, 3.8, on both sides: the password stays here, the browser needs none.

RFC 6143 §7.1 (version, security types, result) and §7.2.2 (VNC authentication). What follows the security result,
beginning with ClientInit, is the browser's and the screen's own business.
"""

from __future__ import annotations

import re
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from typing import Protocol

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from broker.relay.closing import Closing, Code

VERSION = b"RFB 003.008\n"
NONE, VNC = 1, 2
"""Security types."""
GREETING = VERSION
OFFER_NONE = bytes([1, NONE])
GOOD = bytes(4)
LONGEST_REASON = 4096


INPUT = frozenset({4, 5, 6, 255})
"""RFC 6143 §7.5 messages that a person causes: key, pointer, cut text, and QEMU's extended key. Asking for the next
picture (3) is the viewer's own doing and does not count as presence."""


EXTENDED_CLIPBOARD = 0xC0A1E5CE.to_bytes(4, "big")
"""The encoding by which a viewer says that it takes more than plain text."""
LONGEST_MESSAGE = 64 * 1024
SIZES = {0: 20, 3: 10, 4: 8, 5: 6, 150: 10, 250: 4}
"""Client messages of fixed size: pixel format, update request, key, pointer, continuous updates, xvp."""
_ENCODINGS, _CUT_TEXT, _FENCE, _DESKTOP_SIZE, _QEMU = 2, 6, 248, 251, 255
HEADS = {_ENCODINGS: 4, _CUT_TEXT: 8, _FENCE: 9, _DESKTOP_SIZE: 8, _QEMU: 2}
"""The others, and the bytes that tell how long each is."""


class Rfb:
    """RFB as the stream's speech. Without clipboard the browser's messages are read one by one, and its cut text falls
    by the way."""

    def __init__(self, has_clipboard: bool) -> None:
        self._has_clipboard = has_clipboard
        self._is_init = False
        self._held = bytearray()
        self._skips = 0

    def is_input(self, data: bytes, /) -> bool:
        return data[:1] != b"" and data[0] in INPUT

    def messages(self, data: bytes, /) -> tuple[bytes, ...]:
        return (data,)

    def passed(self, data: bytes, /) -> bytes:
        if self._has_clipboard:
            return data
        skipped = min(self._skips, len(data))
        self._skips -= skipped
        self._held += data[skipped:]
        ready = bytearray()
        if not self._is_init and self._held:
            self._is_init = True
            ready += self._take(1)  # ClientInit
        while not self._skips and self._held and (size := self._size()):
            if self._held[0] == _CUT_TEXT:
                self._skips = size - len(self._take(size))
            elif size > len(self._held):
                break
            else:
                ready += _without_clipboard(self._take(size))
        return bytes(ready)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def _size(self) -> int | None:
        """Of the message that begins what is held; None while that is not known. Raises `Closing`."""
        kind = self._held[0]
        if kind in HEADS and len(self._held) < HEADS[kind]:
            return None
        size = SIZES.get(kind) or _size_of(bytes(self._held[:9]))
        if size is None or (size > LONGEST_MESSAGE and kind != _CUT_TEXT):
            words = "The viewer sent what the relay does not know, and this desktop has no clipboard."
            raise Closing(Code.BAD_BROWSER, words)
        return size


def _size_of(head: bytes) -> int | None:
    """Of a client message of variable size; None for an unknown one."""
    if head[0] == _ENCODINGS:
        return 4 + 4 * int.from_bytes(head[2:4], "big")
    if head[0] == _CUT_TEXT:  # negative lengths are those of the extended clipboard
        return 8 + abs(int.from_bytes(head[4:8], "big", signed=True))
    if head[0] == _FENCE:
        return 9 + head[8]
    if head[0] == _DESKTOP_SIZE:
        return 8 + 16 * head[6]
    return 12 if head[:2] == bytes([_QEMU, 0]) else None


def _without_clipboard(message: bytes) -> bytes:
    """SetEncodings says nothing of the extended clipboard; Raw, which every screen has, stands in its place."""
    if message[0] != _ENCODINGS:
        return message
    encodings = [message[at : at + 4] for at in range(4, len(message), 4)]
    return message[:4] + b"".join(bytes(4) if one == EXTENDED_CLIPBOARD else one for one in encodings)


class ScreenRefused(Exception):
    """The screen does not let us in; the message says why, without the platform's words."""


class BadBrowser(Exception):
    """The browser's side does not speak RFB 3.8."""


class Exact(Protocol):
    async def readexactly(self, n: int, /) -> bytes: ...


def response(password: str, challenge: bytes) -> bytes:
    """The answer to a VNC challenge: DES in ECB mode under the password's first 8 bytes, each with its bits reversed.

    Three times the same key makes Triple DES plain DES.
    """
    key = password.encode("latin-1", "replace")[:8].ljust(8, b"\0")
    reversed_bits = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)
    encryptor = Cipher(TripleDES(reversed_bits * 3), modes.ECB()).encryptor()  # noqa: S305 - the protocol's own
    return encryptor.update(challenge) + encryptor.finalize()


async def sign_in(reader: StreamReader, writer: StreamWriter, password: str) -> None:
    """Pass the screen's security, by VNC authentication if it offers that. Raises `ScreenRefused`."""
    try:
        await _choose_version(reader, writer)
        await _authenticate(reader, writer, password)
    except IncompleteReadError:
        raise ScreenRefused("It hung up.") from None


async def _choose_version(reader: StreamReader, writer: StreamWriter) -> None:
    version = await reader.readexactly(12)
    if not re.fullmatch(rb"RFB 003\.\d{3}\n", version):
        raise ScreenRefused("What answers there is not a VNC screen.")
    if version < VERSION:
        raise ScreenRefused("It speaks an old VNC version.")
    writer.write(VERSION)


async def _authenticate(reader: StreamReader, writer: StreamWriter, password: str) -> None:
    count = (await reader.readexactly(1))[0]
    if count == 0:
        await _skip_reason(reader)
        raise ScreenRefused("It takes no viewer at the moment.")
    offered = await reader.readexactly(count)
    if VNC in offered:
        writer.write(bytes([VNC]))
        writer.write(response(password, await reader.readexactly(16)))
    elif NONE in offered:
        writer.write(bytes([NONE]))
    else:
        raise ScreenRefused("It asks for a kind of sign-in that is not known here.")
    if await reader.readexactly(4) != GOOD:
        raise ScreenRefused("Its one-time password was refused or has expired.")


async def _skip_reason(reader: StreamReader) -> None:
    length = int.from_bytes(await reader.readexactly(4), "big")
    await reader.readexactly(min(length, LONGEST_REASON))


async def welcome(browser: Exact, send: SendBytes) -> None:
    """Speak the server's part to the browser: version, one security type (none), all good. Raises `BadBrowser`."""
    await send(GREETING)
    if await browser.readexactly(12) != VERSION:
        raise BadBrowser("The viewer speaks another version of RFB than 3.8.")
    await send(OFFER_NONE)
    if (await browser.readexactly(1))[0] != NONE:
        raise BadBrowser("The viewer chose a kind of sign-in that was not offered.")
    await send(GOOD)


class SendBytes(Protocol):
    async def __call__(self, data: bytes, /) -> None: ...
