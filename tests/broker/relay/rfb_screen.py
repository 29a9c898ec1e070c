"""A VNC server of our own for the relay's tests: real RFB 3.8 with VNC authentication, a picture that floods or echoes.

Its DES is the table-driven one below, written from FIPS 46-3, so that the relay is not checked against its own code.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.broker.relay.des import encrypt_block

CHALLENGE = bytes(range(16))
SERVER_INIT = bytes([2, 128, 1, 224]) + bytes(16) + (4).to_bytes(4, "big") + b"test"
"""640 x 480, no pixel format to speak of, name "test"."""
FLOOD_CHUNK = bytes(16 * 1024)


class RfbScreen:
    """Runs in a thread of its own until closed.

    `mode`: echo; quiet (only listens); flood (as fast as the viewer reads); mute (accepts the connection and never says
    a word); deaf (never reads after ServerInit); hang up (right after ServerInit).
    """

    def __init__(self, password: str, mode: str = "echo", pause_s: float = 0.0) -> None:
        self.password = password
        self.mode = mode
        self.pause_s = pause_s
        self.viewers = 0
        """How many have signed in so far."""
        self.connected = 0
        """How many are connected now."""
        self.sent = 0
        self.received = bytearray()
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="rfb-screen")
        self._thread.start()
        self._started.wait(30)

    def hang_up(self) -> None:
        """Drop all viewers, as a machine that is switched off does."""
        for writer in list(self._writers):
            self._loop.call_soon_threadsafe(writer.transport.abort)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        self._writers.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                if self.mode == "mute":
                    await reader.read()
                elif await self._let_in(reader, writer):
                    self.viewers += 1
                    await self._show(reader, writer)
        finally:
            self.connected -= 1
            self._writers.discard(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"RFB 003.008\n")
        assert await reader.readexactly(12) == b"RFB 003.008\n"
        writer.write(bytes([1, 2]))
        assert await reader.readexactly(1) == bytes([2])
        writer.write(CHALLENGE)
        key = self.password.encode()[:8].ljust(8, b"\0")
        expected = encrypt_block(key, CHALLENGE[:8]) + encrypt_block(key, CHALLENGE[8:])
        if await reader.readexactly(16) != expected:
            writer.write((1).to_bytes(4, "big") + (5).to_bytes(4, "big") + b"wrong")
            await writer.drain()
            return False
        writer.write(bytes(4))
        return True

    async def _show(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)  # ClientInit
        writer.write(SERVER_INIT)
        if self.mode == "hang up":
            return
        if self.mode == "deaf":
            await self._stop.wait()
        listening = asyncio.create_task(self._listen(reader, writer))
        try:
            while self.mode == "flood":
                writer.write(FLOOD_CHUNK)
                await writer.drain()
                self.sent += len(FLOOD_CHUNK)
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)
            await listening
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.received += data
            if self.mode == "echo":
                writer.write(data)
                await writer.drain()


def keys(said: bytes) -> list[tuple[int, bool]]:
    """The key events (keysym, down) in what a viewer said after ClientInit. RFC 6143 §7.5."""
    found, at = [], 0
    while at < len(said):
        kind = said[at]
        if kind == 4:
            found.append((int.from_bytes(said[at + 4 : at + 8], "big"), bool(said[at + 1])))
        if kind == 2:
            at += 4 + 4 * int.from_bytes(said[at + 2 : at + 4], "big")
        else:
            at += {0: 20, 3: 10, 4: 8, 5: 6}[kind]
    return found


@contextmanager
def screen(mode: str = "echo", pause_s: float = 0.0) -> Iterator[RfbScreen]:
    shown = RfbScreen("pa55word", mode, pause_s)
    try:
        yield shown
    finally:
        shown.close()
