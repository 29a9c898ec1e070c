"""What the doors for people's own programs have in common: they are no browsers, and come by plain TCP.

At most `WAITING` connections without a stream are borne at a door, `WAITING_EACH` of one address; further ones are hung
up on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from broker.relay.closing import BrowserGone, Closing, Code
from broker.relay.sessions import FAREWELL_S
from broker.relay.streams import CHUNK

log = structlog.get_logger()

WAITING, WAITING_EACH = 256, 16
PROGRAM_LIMIT = 64 * 1024
"""asyncio stops reading from a program at twice this, also from one that has not said yet what it wants."""
KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""Who vanished without a word is noticed within two minutes, else their desktop would seem in use."""


class Program:
    """The user's side of a stream: their program, as bytes."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def next(self) -> bytes:
        try:
            data = await self._reader.read(CHUNK)
        except OSError:
            raise BrowserGone from None
        if not data:
            raise BrowserGone
        return data

    async def send(self, data: bytes, /) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            raise BrowserGone from None


class WaitingRoom:
    """Counts those who have no stream yet."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def counted(self, address: str) -> Iterator[bool]:
        """Whether there is room for one more that waits."""
        if self._waiting.total() >= WAITING or self._waiting[address] >= WAITING_EACH:
            log.warning("native.too_many_waiting", address=address)
            yield False
            return
        self._waiting[address] += 1
        try:
            yield True
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]


def address_of(peer: tuple[Any, ...]) -> str:
    """Without a zone, and IPv4 as such: one who comes by either is one address."""
    found = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def farewell(writer: StreamWriter, closing: Closing | None) -> None:
    """What the guest said last still arrives, if it was the guest that closed; else nothing more does."""
    if closing and closing.code is Code.ENDED:
        with suppress(OSError, TimeoutError):
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), FAREWELL_S)
