"""The live streams of this process: ends those that may not go on, tells the database that they live.

A hint (release, log-out, lost entitlement) makes it look at once; without hints it looks every 30 s. The rows decide.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import UUID
from weakref import WeakKeyDictionary

import structlog
from django.conf import settings
from django.db import DatabaseError

from broker.relay.closing import Closing, Code
from broker.relay.rows import ask
from broker.relay.streams import Stream
from broker.selectors import live
from broker.services import nudges, screens

log = structlog.get_logger()

RECHECK_S = 30
GATHER_S = 0.1


class Registry:
    def __init__(self) -> None:
        self._streams: dict[UUID, Stream] = {}
        self._waiting: dict[str, asyncio.Event] = {}
        self._present = 0
        self._keeper: asyncio.Task[None] | None = None
        self._suspects: set[UUID] = set()
        self._suspects_at = math.inf
        self._clock = asyncio.get_running_loop().time

    @asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """The registry listens as long as anybody is in such a block."""
        self._present += 1
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            self._present -= 1
            if not self._present and self._keeper:
                self._keeper.cancel()
                self._keeper = None

    @contextmanager
    def carrying(self, stream: Stream) -> Iterator[None]:
        self._streams[stream.session_id] = stream
        # What happened between the ticket and now was said before anybody listened for this stream.
        self._suspect([stream.session_id])
        try:
            yield
        finally:
            self._streams.pop(stream.session_id, None)

    @contextmanager
    def waiting_for(self, operation: UUID | None) -> Iterator[asyncio.Event]:
        """An event that is set when the operation is said to have given an address."""
        event = self._waiting.setdefault(str(operation), asyncio.Event())
        try:
            yield event
        finally:
            self._waiting.pop(str(operation), None)

    async def _keep(self) -> None:
        clock = self._clock
        beat_at, recheck_at = clock() + screens.HEARTBEAT_S, clock() + RECHECK_S
        async with live.hub(nudges.LIVE_CHANNEL).listening() as changes:
            while True:
                due = min(beat_at, recheck_at, self._suspects_at)
                if clock() < due:
                    # Not wait_for: before Python 3.12 an order to stop is lost there if a change comes with it.
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(due):
                            self._take(await changes.get())
                    continue
                try:
                    if clock() >= recheck_at:
                        recheck_at = clock() + RECHECK_S
                        self._suspect(self._streams)
                    if clock() >= beat_at:
                        beat_at = clock() + screens.HEARTBEAT_S
                        await self._beat()
                    await self._recheck()
                except DatabaseError as error:
                    log.warning("relay.rows_unreachable", reason=type(error).__name__)

    def _take(self, change: live.Change) -> None:
        """Work out whom a hint may concern."""
        if change["noun"] not in ("screens", live.GAP["noun"]):
            return
        if event := self._waiting.get(change.get("operation", "")):
            event.set()
        elif "operation" not in change:
            self._suspect([name for name, stream in self._streams.items() if _may_concern(change, stream)])

    def _suspect(self, names: Iterable[UUID]) -> None:
        """Look at these soon: hints come in bursts, and one look answers all of them."""
        self._suspects.update(names)
        if self._suspects:
            self._suspects_at = min(self._suspects_at, self._clock() + GATHER_S)

    async def _recheck(self) -> None:
        suspects, self._suspects, self._suspects_at = self._suspects, set(), math.inf
        streams = {name: self._streams[name] for name in suspects if name in self._streams}
        found = await ask(screens.closures, {name: stream.admission for name, stream in streams.items()})
        for name, why in found.items():
            streams[name].end(Closing(Code.IDLE if why == screens.LEFT_ALONE else Code.NOT_ALLOWED, why))

    async def _beat(self) -> None:
        idle_since = self._clock() - settings.SCREEN_IDLE_S
        for stream in self._streams.values():
            if stream.input_at < idle_since:
                stream.end(
                    Closing(Code.IDLE, "The screen was closed because nothing was typed or moved for a long time.")
                )
        await ask(screens.beat, [stream.heartbeat for stream in self._streams.values()])


def _may_concern(change: live.Change, stream: Stream) -> bool:
    admission = stream.admission
    return change.get("desktop", str(admission.desktop_id)) == str(admission.desktop_id) and change.get(
        "user", str(admission.user_id)
    ) == str(admission.user_id)


_registries: WeakKeyDictionary[asyncio.AbstractEventLoop, Registry] = WeakKeyDictionary()


def registry() -> Registry:
    """The registry of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _registries:
        _registries[loop] = Registry()
    return _registries[loop]
