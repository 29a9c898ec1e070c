"""The doors for people's own programs, a process of its own: `python -m broker.config.doors`.

Opens those of which the port is set, at DESKYARD_DOORS_HOST, until SIGTERM; see `docs/native.md`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.config.settings")

import django

django.setup()

from django.conf import settings  # noqa: E402 - needs Django's settings

from broker.relay import vnc_door  # noqa: E402 - needs Django's apps
from broker.relay.rdp import front_door as rdp_door  # noqa: E402

Close = Callable[[], Awaitable[None]]


async def run() -> None:
    """Keep the doors open until SIGTERM or SIGINT. Raises `OSError`, in words, for one that cannot be opened."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    closing: list[Close] = []
    try:
        if settings.RDP_PORT:
            rdp = rdp_door.FrontDoor()
            closing.append(rdp.close)
            await _opened("DESKYARD_RDP_PORT", settings.RDP_PORT, rdp.open)
        if settings.VNC_PORT:
            vnc = _vnc_door()
            closing.append(vnc.close)
            await _opened("DESKYARD_VNC_PORT", settings.VNC_PORT, vnc.open)
        await stopping.wait()
    finally:
        for close in closing:
            await close()


async def _opened(name: str, port: int, open_door: Callable[[str, int], Awaitable[None]]) -> None:
    try:
        await open_door(settings.DOORS_HOST, port)
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"Cannot listen on {settings.DOORS_HOST}:{port}: {why}. Set {name}.") from None


def _vnc_door() -> vnc_door.FrontDoor:
    try:
        return vnc_door.FrontDoor(Path(settings.VNC_CERTIFICATE), Path(settings.VNC_KEY))
    except OSError as error:
        why = error.strerror or str(error)
        words = "Cannot read the VNC door's certificate and key: {}. Set DESKYARD_VNC_CERTIFICATE and DESKYARD_VNC_KEY."
        raise OSError(words.format(why)) from None


def main() -> int:
    """The process's exit code."""
    if not (settings.RDP_PORT or settings.VNC_PORT):
        sys.stderr.write("There is no door to open: set DESKYARD_RDP_PORT, such as to 3390, or DESKYARD_VNC_PORT.\n")
        return 2
    try:
        asyncio.run(run())
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
