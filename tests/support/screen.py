"""A person at a VNC screen, by an independent client."""

from __future__ import annotations

import asyncvnc
import numpy
from numpy.typing import NDArray

SHIFTED = frozenset('~!@#$%^&*()_+{}|:"<>?ABCDEFGHIJKLMNOPQRSTUVWXYZ')
"""Characters that need Shift on an American keyboard, which the tiny guest has. QEMU presses the key that bears the
character and leaves Shift to the client: a lone ">" arrives as "."."""


async def type_line(host: str, port: int, line: str, password: str | None = None) -> None:
    """Types the line and Return. `line` holds printable ASCII only."""
    async with asyncvnc.connect(host, port, password=password) as client:
        for character in line:
            with client.keyboard.hold(*(["Shift_L"] if character in SHIFTED else [])):
                client.keyboard.press(character)
        client.keyboard.press("Return")
        await client.drain()


async def see(host: str, port: int, password: str | None = None) -> NDArray[numpy.uint8]:
    """The screen's pixels: height x width x RGBA."""
    async with asyncvnc.connect(host, port, password=password) as client:
        pixels: NDArray[numpy.uint8] = await client.screenshot()
        return pixels
