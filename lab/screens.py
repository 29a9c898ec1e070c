"""What guests show: a small VNC server that answers at every guest's own address, with its name and state.

One listening socket serves all guests of all worlds, bound to the loopback device: which guest is meant is told by the
address that was called. RFB 3.8 (RFC 6143), no password, raw encoding, 32 bits a pixel.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lab.nouns import Machine
from lab.world import World

WIDTH, HEIGHT = 800, 600
LOOK_S = 0.1
"""How often a waiting viewer's picture is compared with what there is to show."""


class GuestScreens:
    """`port` is the same at every guest's address."""

    def __init__(self, worlds: Sequence[World], port: int = 0) -> None:
        self.worlds = worlds
        self._server = _Listener(self, port)
        self.port: int = self._server.server_address[1]

    def start(self) -> GuestScreens:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="guest screens", daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def find(self, address: str) -> tuple[World, Machine] | None:
        """The guest that is up at this address."""
        for world in self.worlds:
            with world:
                if machine := world.at_address(address):
                    return world, machine
        return None

    def __enter__(self) -> GuestScreens:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, screens: GuestScreens, port: int) -> None:
        self.screens = screens
        super().__init__(("", port), _Viewer, bind_and_activate=False)
        # All of 127.64.0.0/10 by one socket, and nothing that comes from beyond this machine.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        self.server_bind()
        self.server_activate()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that leaves is nothing to print."""
        import sys

        if not isinstance(sys.exc_info()[1], (OSError, EOFError)):
            super().handle_error(request, client_address)


class _Viewer(socketserver.BaseRequestHandler):
    """One viewer of one guest."""

    request: socket.socket

    def handle(self) -> None:
        found = self.server.screens.find(self.request.getsockname()[0])  # type: ignore[attr-defined]
        if found is None:
            return
        self.world, self.machine = found
        self.boots = self.machine.guest.boots
        self.request.settimeout(None)
        self.format = (16, 8, 0)
        self.shown: tuple[str, ...] = ()
        self.asked = threading.Event()
        self.is_full = True
        self.is_over = False
        with suppress(OSError, EOFError):
            self._greet()
            threading.Thread(target=self._paint, daemon=True).start()
            while True:
                self._take_message()
        self.is_over = True
        self.asked.set()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.request.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _greet(self) -> None:
        self.request.sendall(b"RFB 003.008\n")
        self._read(12)
        self.request.sendall(b"\x01\x01")
        self._read(1)
        self.request.sendall(struct.pack(">I", 0))
        self._read(1)
        name = self.machine.guest.hostname.encode()
        pixel = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, *self.format)
        self.request.sendall(struct.pack(">HH", WIDTH, HEIGHT) + pixel + struct.pack(">I", len(name)) + name)

    def _take_message(self) -> None:
        (kind,) = self._read(1)
        if kind == 0:
            bits, _, is_big, _, _, _, _, red, green, blue = struct.unpack(">3xBBBBHHHBBB3x", self._read(19))
            if bits != 32 or is_big:
                raise EOFError
            self.format = (red, green, blue)
        elif kind == 2:
            (number,) = struct.unpack(">xH", self._read(3))
            self._read(4 * number)
        elif kind == 3:
            (incremental,) = struct.unpack(">B8x", self._read(9))
            self.is_full = self.is_full or not incremental
            self.asked.set()
        elif kind == 4:
            is_down, key = struct.unpack(">B2xI", self._read(7))
            if is_down:
                self._type(key)
        elif kind == 5:
            self._read(5)
        elif kind == 6:
            (length,) = struct.unpack(">3xI", self._read(7))
            self._read(min(length, 1_000_000))
        else:
            raise EOFError

    def _type(self, key: int) -> None:
        with self.world:
            guest = self.machine.guest
            if key == 0xFF0D:
                guest.typed += "\n"
            elif key == 0xFF08:
                guest.typed = guest.typed[:-1]
            elif 0x20 <= key < 0x7F:
                guest.typed += chr(key)
            guest.typed = guest.typed[-2000:]

    def _paint(self) -> None:
        """Answers an update request once there is something new to show."""
        with suppress(OSError):
            while True:
                self.asked.wait()
                if self.is_over:
                    return
                lines = self._lines()
                if lines is None:
                    self.request.shutdown(socket.SHUT_RDWR)
                    return
                if lines == self.shown and not self.is_full:
                    time.sleep(LOOK_S)
                    continue
                self.asked.clear()
                self.is_full, self.shown = False, lines
                head = struct.pack(">BxHHHHHi", 0, 1, 0, 0, WIDTH, HEIGHT, 0)
                self.request.sendall(head + self._pixels(draw(lines)))

    def _lines(self) -> tuple[str, ...] | None:
        """What there is to read on the screen; None once the guest is down or another one."""
        with self.world:
            guest, host = self.machine.guest, self.world.hosts.get(self.machine.host)
            if not guest.is_up or guest.boots != self.boots or self.machine.id not in self.world.machines:
                return None
            return (
                guest.hostname,
                f"{self.machine.vcpus} CPUs, {self.machine.memory_mib} MiB on {host.name if host else '-'}",
                f"{guest.address}  ({self.world.name}, simulated)",
                "",
                *guest.typed.split("\n")[-16:],
            )

    def _pixels(self, image: Image.Image) -> bytes:
        planes = {shift: image.getchannel(channel) for channel, shift in zip("RGB", self.format, strict=True)}
        empty = Image.new("L", image.size)
        return Image.merge("RGBA", [planes.get(8 * place, empty) for place in range(4)]).tobytes()


def draw(lines: Sequence[str]) -> Image.Image:
    """The picture of a guest: its name on top, what was typed below."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (24, 32, 48))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, WIDTH, 120), fill=(38, 84, 124))
    name, *rest = lines
    pen.text((24, 22), name, fill=(255, 255, 255), font=ImageFont.load_default(36))
    for place, line in enumerate(rest):
        top = 76 + 22 * place if place < 2 else 110 + 24 * place
        pen.text((24, top), line, fill=(214, 226, 240), font=ImageFont.load_default(16))
    return image
