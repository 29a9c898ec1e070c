"""Where the guest of an admitted stream is, awaited until somebody knows and the guest lets its user in."""

from __future__ import annotations

import asyncio

from broker.relay.closing import Closing, Code
from broker.relay.rows import ask
from broker.services import guests
from broker.services.errors import Clash
from broker.services.guests import Way
from broker.services.screens import Admission

AWAIT_S = 15
"""How long a guest may be without an address, or without the password that lets its user in."""
LOOK_S = 0.5
"""How often that is looked for meanwhile."""


async def way_to(admission: Admission) -> Way:
    """Raises `Closing` in time, and `Forbidden` if the desktop changed hands."""
    try:
        async with asyncio.timeout(AWAIT_S):
            while (way := await ask(guests.way_to, admission)) is None:
                await asyncio.sleep(LOOK_S)
            return way
    except Clash as clash:
        raise Closing(Code.FAILED, clash.message) from None
    except TimeoutError:
        words = "The desktop is not ready to let you in yet. Try again; if it stays so, tell your administrator."
        raise Closing(Code.NOT_READY, words) from None
