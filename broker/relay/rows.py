"""Asks the services from the event loop, in a few threads of the relay's own.

Connections to the database stay with these threads, so that a thousand streams hold a handful of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
_threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="relay-rows")


def _asked(question: Callable[[], T]) -> T:
    # Outside of Django's request cycle nobody else drops connections that went stale.
    close_old_connections()
    try:
        return question()
    finally:
        close_old_connections()


async def ask(service: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What the service returns or raises, without holding up the loop."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _asked, partial(service, *args, **kwargs))
