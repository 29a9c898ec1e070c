"""Asks guests whether their RDP server answers: many at once, each within seconds. Says nothing to them but that.

Like the connectors it does I/O and writes nothing; which guests are asked is for `services/readiness` to say.
"""

from __future__ import annotations

import asyncio
from asyncio import IncompleteReadError
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
Place = tuple[Sequence[str], int]
"""Addresses of a guest, the likeliest first, and the port."""

REQUEST = bytes.fromhex("03000013 0ee00000000000 0100080003000000")
"""An X.224 connection request that offers TLS and NLA (MS-RDPBCGR §2.2.1.1), as `relay/rdp/x224.py` makes it."""
_VERSION, _CONFIRMATION, _KIND_AT = 3, 0xD0, 5
_HEAD = 6
AT_ONCE = 100
ANSWER_S = 3.0
"""How long one address is given. What answers later is asked again."""
ADDRESSES = 2
"""So many of a guest's addresses are tried."""


def answering(wanted: Mapping[K, Place]) -> set[K]:
    """Which of these answer as an RDP server does: with a confirmation, whatever it chooses or refuses.

    An open port proves nothing. Takes some seconds for a hundred, however many of them are silent; never raises.
    """
    return asyncio.run(_answering(wanted)) if wanted else set()


async def _answering(wanted: Mapping[K, Place]) -> set[K]:
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(key: K, place: Place) -> K | None:
        async with turns:
            addresses, port = place
            told = [await _answers(address, port) for address in addresses[:ADDRESSES]]
            return key if any(told) else None

    return {key for key in await asyncio.gather(*(ask(*one) for one in wanted.items())) if key is not None}


async def _answers(address: str, port: int) -> bool:
    with suppress(OSError, TimeoutError, IncompleteReadError):
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(REQUEST)
                head = await reader.readexactly(_HEAD)
                return head[0] == _VERSION and head[_KIND_AT] == _CONFIRMATION
            finally:
                writer.close()
    return False
