"""The door for Remote Desktop programs: TCP in, the guest's own remote desktop out. No WebSocket, no TLS of ours.

1. The first message, in clear and at most `routing.LIMIT` bytes long, is awaited for `REQUEST_S`. It carries a file's
   ticket, which `services/native` admits. Who has none is hung up on: the protocol knows no words for it.
2. The guest is reached at its own address within `REACH_S` and gets the message without the ticket.
3. Bytes flow both ways until somebody hangs up or the right ends. The program does TLS and CredSSP with the guest
   itself: the relay sees none of it, so it neither signs anybody in nor judges the guest's certificate.
"""

from __future__ import annotations

import asyncio
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from contextlib import suppress

import structlog
from django.db import DatabaseError

from broker.relay.closing import BrowserGone, Closing, Code
from broker.relay.programs import PROGRAM_LIMIT, WAITING, Program, WaitingRoom, address_of, farewell, keep_alive
from broker.relay.rdp import routing, x224
from broker.relay.rdp.address import way_to
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.routing import Routed
from broker.relay.rdp.x224 import Security
from broker.relay.registry import registry
from broker.relay.rows import ask
from broker.relay.sessions import carry_session
from broker.relay.streams import READ_LIMIT
from broker.services import native, screens
from broker.services.errors import Forbidden
from broker.services.guests import Way

log = structlog.get_logger()

REQUEST_S = 10
REACH_S = 15
ATTEMPT_S = 3
"""How long one address of the guest is given."""
PAUSE_S = 0.5
SECURE = Security.TLS | Security.NLA | Security.NLA_EX


class Sealed:
    """RDP under TLS of program and guest as the stream's speech: bytes that tell nothing.

    Whatever a program sends counts as somebody being there, since key and mouse cannot be told from the rest.
    """

    def is_input(self, data: bytes, /) -> bool:
        return bool(data)

    def passed(self, data: bytes, /) -> bytes:
        return data

    def messages(self, data: bytes, /) -> tuple[bytes, ...]:
        return (data,)


class FrontDoor:
    """One listener and its connections."""

    def __init__(self) -> None:
        self._room = WaitingRoom()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> None:
        """Raises `OSError` if nobody can listen there."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=PROGRAM_LIMIT, backlog=WAITING)
        log.info("native.door_open", host=host, port=port, protocol=screens.RDP)

    async def close(self) -> None:
        """End all streams; their rows say so when this returns."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        address = address_of(writer.get_extra_info("peername"))
        keep_alive(writer.get_extra_info("socket"))
        try:
            with self._room.counted(address) as may_wait:
                if not may_wait:
                    return
                routed = await _request(reader)
                admission = await ask(native.admit, ticket=routed.ticket, address=address)
                way = await way_to(admission)
                guest_reader, guest_writer = await _reach(way, routed.request)
            closing = await _carry(address, admission, Program(reader, writer), guest_reader, guest_writer)
            await farewell(writer, closing)
        except (Closing, Forbidden) as refusal:
            log.info("native.turned_away", address=address, reason=str(refusal))
        except DatabaseError as error:
            log.error("screen.rows_unreachable", reason=type(error).__name__)
        finally:
            writer.transport.abort()


async def _request(reader: StreamReader) -> Routed:
    """The program's first message. Raises `Closing`."""
    try:
        async with asyncio.timeout(REQUEST_S):
            head = await reader.readexactly(x224.HEADER)
            routed = routing.read(head + await reader.readexactly(routing.length_of(head) - len(head)))
    except (TimeoutError, IncompleteReadError, OSError):
        raise Closing(Code.BAD_BROWSER, "It did not say in time what it wants.") from None
    except Malformed as fault:
        raise Closing(Code.BAD_BROWSER, f"It sent {fault}.") from None
    if not routed.asked & SECURE:
        raise Closing(Code.BAD_BROWSER, "It asks for a connection without TLS.")
    return routed


async def _reach(way: Way, request: bytes) -> tuple[StreamReader, StreamWriter]:
    """A connection to the guest, which has been told what the program asks for. Raises `Closing`."""
    try:
        async with asyncio.timeout(REACH_S):
            while True:
                for address in way.addresses:
                    with suppress(OSError, TimeoutError):
                        async with asyncio.timeout(ATTEMPT_S):
                            reader, writer = await asyncio.open_connection(address, way.port, limit=READ_LIMIT)
                        writer.write(request)
                        return reader, writer
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        log.warning("screen.unreachable", addresses=list(way.addresses), port=way.port)
        raise Closing(Code.UNREACHABLE, "The desktop's remote desktop (RDP) does not answer.") from None


async def _carry(
    address: str, admission: screens.Admission, program: Program, reader: StreamReader, writer: StreamWriter
) -> Closing | None:
    """Returns why the stream ended; None if the program left."""
    facts = {"desktop": str(admission.desktop_id), "user": admission.user_id}
    here = registry()
    try:
        keep_alive(writer.get_extra_info("socket"))
        async with here.present():
            closing = await carry_session(address, here, admission, Sealed(), program, reader, writer)
    except BrowserGone:
        log.info("native.left", **facts)
        return None
    finally:
        writer.transport.abort()
    log.info("native.closed", code=int(closing.code), reason=closing.reason, **facts)
    if closing.code is Code.IDLE:
        await ask(native.void, admission=admission)
    return closing
