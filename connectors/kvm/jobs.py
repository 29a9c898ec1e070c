"""The connector's own small thread pool: libvirt's calls block.

A job never outlives its usefulness in silence: it looks at its deadline before each step, and what it leaves half done
is seen at the platform by the next `poll`, here or in another process. Threads are daemons: one that hangs in a call
on a dead line must not keep the process from ending.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

SIZE = 4
"""How many orders' calls are under way at once: each holds a connection of its own, and libvirtd has 20 workers."""


class Job(Generic[T]):
    """A call on its way. `result` stands once `ended` is set; None if the call died of a fault of ours (`fault`
    says)."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.ended = threading.Event()
        self.result: T | None = None
        self.fault: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self._call()
        except Exception as fault:  # noqa: BLE001 - handed to the caller, who raises it
            self.fault = fault
        finally:
            self.ended.set()


class Crew:
    """Up to `size` daemon threads, started as needed, that take jobs in order."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._waiting: deque[Job[object]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._is_closed = False

    def start(self, call: Callable[[], T]) -> Job[T]:
        job = Job(call)
        with self._changed:
            self._waiting.append(job)  # type: ignore[arg-type]
            if self._idle < len(self._waiting) and self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._work, name="libvirt-job", daemon=True).start()
            self._changed.notify()
        return job

    def close(self) -> None:
        """Threads end once they are idle; jobs not begun are dropped."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._is_closed or self._waiting)
                self._idle -= 1
                if self._is_closed:
                    return
                job = self._waiting.popleft()
            job.run()
