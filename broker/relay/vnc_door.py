"""The door for VNC programs: RFB under TLS of ours in, the machine's screen out.

1. RFB 3.8 is spoken, and of its kinds of security VeNCrypt alone, with a certificate, a name and a password
   (X509Plain): a file's ticket is the password, so it is seen by nobody on the way. Nothing is read beyond what each
   step needs: what was said in clear can never count as said under TLS.
2. `services/native` admits the ticket and orders the screen, and the relay waits for its address and signs in there, as
   for a browser. What goes wrong so far is told in words, as RFB can.
3. Bytes flow both ways until somebody hangs up or the right ends. A pool without clipboard has none here either.

VeNCrypt 0.2: the RFB registry's security type 19, as gtk-vnc, TigerVNC and QEMU speak it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import IncompleteReadError, StreamReader, StreamReaderProtocol, StreamWriter
from dataclasses import dataclass
from pathlib import Path

import structlog
from django.db import DatabaseError

from broker.relay import rfb, screen
from broker.relay.closing import BrowserGone, Closing, Code
from broker.relay.programs import PROGRAM_LIMIT, WAITING, Program, WaitingRoom, address_of, farewell, keep_alive
from broker.relay.registry import Registry, registry
from broker.relay.rows import ask
from broker.relay.sessions import carry_session
from broker.services import native, screens
from broker.services.errors import Clash, Forbidden

log = structlog.get_logger()

OPENING_S = 10
"""How long everything up to the ticket may take."""
VENCRYPT, X509_PLAIN = 19, 262
VERSION = bytes([0, 2])
LONGEST_WORD = 256
"""Bytes of a name or password."""


class FrontDoor:
    """One listener and its connections."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises `OSError`, also for what is no certificate with its key."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(certificate, key)
        self._room = WaitingRoom()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int) -> None:
        """Raises `OSError` if nobody can listen there."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=WAITING)
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._listener))
        log.info("native.door_open", host=host, port=port, protocol=screens.VNC)

    async def close(self) -> None:
        """End all streams; their rows say so when this returns."""
        tasks = [*self._tasks, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener:
            self._listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or gone before it was met
                log.warning("native.not_accepted", reason=type(error).__name__)
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._serve(connection, address_of(peer)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket, address: str) -> None:
        writer: StreamWriter | None = None
        here = registry()
        try:
            keep_alive(connection)
            async with here.present():
                with self._room.counted(address) as may_wait:
                    if not may_wait:
                        return
                    async with asyncio.timeout(OPENING_S):
                        await _agree(connection)
                        reader, writer = await self._secure(connection)
                        ticket = await _password(reader)
                    program = Program(reader, writer)
                    opened = await _let_in(here, address, ticket, program)
                closing = await _carry(here, address, opened, program)
            await farewell(writer, closing)
        except (TimeoutError, IncompleteReadError, OSError, BrowserGone, Closing, rfb.BadBrowser) as fault:
            log.info("native.turned_away", address=address, reason=str(fault) or type(fault).__name__)
        finally:
            if writer:
                writer.transport.abort()
            else:
                connection.close()

    async def _secure(self, connection: socket.socket) -> tuple[StreamReader, StreamWriter]:
        """TLS from the next byte on."""
        loop = asyncio.get_running_loop()
        reader = StreamReader(PROGRAM_LIMIT)
        protocol = StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=OPENING_S
        )
        return reader, StreamWriter(transport, protocol, reader, loop)


async def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(connection, size - len(data))
        if not more:
            raise IncompleteReadError(data, size)
        data += more
    return data


async def _agree(connection: socket.socket) -> None:
    """Version and kind of security. Raises `BadBrowser` for a program that knows no other, or none of these."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, rfb.VERSION)
    if await _exactly(connection, 12) != rfb.VERSION:
        raise rfb.BadBrowser("It speaks another version of RFB than 3.8.")
    await loop.sock_sendall(connection, bytes([1, VENCRYPT]))
    if await _exactly(connection, 1) != bytes([VENCRYPT]):
        raise rfb.BadBrowser("It chose a kind of security that was not offered.")
    await loop.sock_sendall(connection, VERSION)
    if await _exactly(connection, 2) != VERSION:
        raise rfb.BadBrowser("It speaks another version of VeNCrypt than 0.2.")
    await loop.sock_sendall(connection, bytes([0, 1]) + X509_PLAIN.to_bytes(4, "big"))
    if await _exactly(connection, 4) != X509_PLAIN.to_bytes(4, "big"):
        raise rfb.BadBrowser("It chose a kind of VeNCrypt that was not offered.")
    await loop.sock_sendall(connection, bytes([1]))


async def _password(reader: StreamReader) -> str:
    """What was given as password; the name is nobody's concern. Raises `BadBrowser`."""
    head = await reader.readexactly(8)
    name, password = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
    if name > LONGEST_WORD or password > LONGEST_WORD:
        raise rfb.BadBrowser("It sent a name or password that is too long.")
    await reader.readexactly(name)
    return (await reader.readexactly(password)).decode("latin-1")


@dataclass(frozen=True, slots=True)
class Opened:
    """A screen that is signed in to, and by what right."""

    admission: screens.Admission
    target: screens.Target
    reader: StreamReader
    writer: StreamWriter


async def _let_in(here: Registry, address: str, ticket: str, program: Program) -> Opened:
    """The screen of the ticket. Raises `Closing` once the program has been told why not."""
    try:
        admission = await ask(native.admit, ticket=ticket, address=address, protocol=screens.VNC)
        await ask(native.order_screen, admission=admission)
        target = await screen.target_of(here, admission)
        return Opened(admission, target, *await screen.open_screen(target))
    except (Closing, Forbidden, Clash, DatabaseError) as failure:
        closing = _closing(failure)
        words = closing.reason.encode()
        # RFC 6143 §7.1.3: failed, and why.
        await program.send((1).to_bytes(4, "big") + len(words).to_bytes(4, "big") + words)
        raise closing from None


async def _carry(here: Registry, address: str, opened: Opened, program: Program) -> Closing | None:
    """Returns why the stream ended; None if the program left."""
    admission = opened.admission
    try:
        await program.send(rfb.GOOD)
        speech = rfb.Rfb(opened.target.has_clipboard)
        closing = await carry_session(address, here, admission, speech, program, opened.reader, opened.writer)
    except BrowserGone:
        return None
    finally:
        opened.writer.transport.abort()
    if closing.code is Code.IDLE:
        await ask(native.void, admission=admission)
    log.info("native.closed", desktop=str(admission.desktop_id), code=int(closing.code), reason=closing.reason)
    return closing


def _closing(failure: Closing | Forbidden | Clash | DatabaseError) -> Closing:
    if isinstance(failure, Closing):
        return failure
    if isinstance(failure, DatabaseError):
        log.error("screen.rows_unreachable", reason=type(failure).__name__)
        return Closing(Code.AWAY, "The broker cannot reach its database. Try again in a moment.")
    return Closing(Code.NOT_ALLOWED, failure.message)
