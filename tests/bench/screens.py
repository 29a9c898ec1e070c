"""A screen that shows at a steady pace, and viewers that look on: processes of their own, without Django.

Both speak just enough RFB 3.8 (RFC 6143 §7.1) to get past the opening; the viewers reach the screen directly, through a
plain TCP proxy, or through the relay's WebSocket.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized

VERSION = b"RFB 003.008\n"
OPENING = VERSION + b"\x01" + b"\x01"
"""All that a viewer says: version, security type none, ClientInit."""
SERVER_INIT = bytes([2, 128, 1, 224]) + bytes(16) + (4).to_bytes(4, "big") + b"test"
PICTURE = os.urandom(33_334)
PICTURES_A_SECOND = 30
"""Together 1 MB/s."""


def show(told: Connection, pictures_a_second: int) -> None:
    """Listen on a free port, say which, and show to whoever comes; 0 pictures a second: as fast as they look."""
    asyncio.run(_show(told, pictures_a_second))


async def _show(told: Connection, pictures_a_second: int) -> None:
    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(VERSION)
            await reader.readexactly(len(VERSION))
            writer.write(b"\x01\x01")
            await reader.readexactly(1)
            writer.write(bytes(4))
            await reader.readexactly(1)
            writer.write(SERVER_INIT)
            await _paint(writer, pictures_a_second)
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0, backlog=200)
    told.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _paint(writer: asyncio.StreamWriter, pictures_a_second: int) -> None:
    clock = asyncio.get_running_loop().time
    due = clock()
    while True:
        writer.write(PICTURE)
        await writer.drain()
        if pictures_a_second:
            due += 1 / pictures_a_second
            await asyncio.sleep(max(0.0, due - clock()))


def look(
    port: int, subprotocols: Sequence[str], viewers: int, seen: Synchronized[int], is_reading: bool = True
) -> None:
    """So many viewers, through the relay if there are subprotocols (one viewer's each), until the process is ended."""
    asyncio.run(_look(port, subprotocols, viewers, seen, is_reading))


async def _look(
    port: int, subprotocols: Sequence[str], viewers: int, seen: Synchronized[int], is_reading: bool
) -> None:
    await asyncio.gather(
        *(_view(port, subprotocols[n] if subprotocols else "", seen, is_reading) for n in range(viewers))
    )


async def _view(port: int, subprotocol: str, seen: Synchronized[int], is_reading: bool) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**18)
    if subprotocol:
        await _upgrade(reader, writer, port, subprotocol)
        writer.write(bytes([0x82, 0x80 | len(OPENING)]) + bytes(4) + OPENING)
    else:
        writer.write(OPENING)
    while not is_reading:
        await asyncio.sleep(1)
    while data := await reader.read(2**18):
        with seen.get_lock():
            seen.value += len(data)
    raise ConnectionError("The stream ended.")


async def _upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, subprotocol: str) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        "GET /relay/screen HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Origin: http://127.0.0.1:{port}",
        "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}",
        f"Sec-WebSocket-Protocol: {subprotocol}", "", "",
    ]  # fmt: skip
    writer.write("\r\n".join(lines).encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in answer.splitlines()[0]:
        raise ConnectionError(f"The relay refused: {answer!r} {await reader.read(500)!r}")
