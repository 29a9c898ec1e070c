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

VERSION = b"RFB 003.008\n"
NONE, VNC = 1, 2
"""Security types."""
GREETING = VERSION
OFFER_NONE = bytes([1, NONE])
GOOD = bytes(4)
LONGEST_REASON = 4096


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
