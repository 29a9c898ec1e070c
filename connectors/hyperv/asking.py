"""Questions to a host that holds disks open, and its answers: it comes for work, one question at a time.

POST /work    the body answers the last question, the answer is the next one
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from connectors.hyperv.dock import LONGEST_POLL_S, Failed, Silent, as_object


@dataclass(eq=False)
class Question:
    number: int
    what: str
    disk: str
    offset: int
    length: int
    answered: threading.Event = field(default_factory=threading.Event)
    result: bytes = b""
    fault: Mapping[str, object] | None = None

    def told(self) -> dict[str, object]:
        return {
            "number": self.number, "what": self.what, "disk": self.disk, "offset": self.offset, "length": self.length
        }  # fmt: skip


class Questions:
    """What one host is asked, by any number of readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Question] = deque()
        self._given: Question | None = None
        self._numbers = 0
        self._turn = 0
        """Counts who came for work: only the last one is given any, the others' lines are broken."""
        self._is_closed = False
        self.heard_at = 0.0
        """When the host last said anything; 0: never."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def answer(self, request: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        if request != "POST /work":
            return 404, b""
        with self._changed:
            self.heard_at = time.monotonic()
            self._changed.notify_all()
        return self._work(headers, body)

    def close(self) -> None:
        """The host is told that it is over when it asks next; whoever waits for it is told too. Idempotent."""
        with self._changed:
            self._is_closed = True
            waiting, self._given = [*self._waiting, self._given], None
            self._waiting.clear()
            for question in waiting:
                if question is not None:
                    question.answered.set()
            self._changed.notify_all()

    def wait_for_host(self, until: float) -> bool:
        """Whether it has been heard of by then."""
        with self._changed:
            self._changed.wait_for(lambda: self.heard_at or self._is_closed, max(0.0, until - time.monotonic()))
            return bool(self.heard_at)

    def ask(self, what: str, disk: str, offset: int, length: int, silence_s: float) -> bytes:
        """May be called from several threads. Raises `Failed`, `Silent`; also `Silent` once it is closed."""
        with self._changed:
            self._numbers += 1
            question = Question(self._numbers, what, disk, offset, length)
            if self._is_closed:
                raise Silent
            self._waiting.append(question)
            self._changed.notify_all()
        asked_at = time.monotonic()
        while not question.answered.wait(min(1.0, silence_s / 4)):
            if time.monotonic() > max(self.heard_at, asked_at) + silence_s:
                raise Silent
        if question.fault is not None:
            raise Failed(question.fault)
        if self._is_closed:
            raise Silent
        return question.result

    def _work(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        with self._changed:
            self._turn += 1
            mine, given, self._given = self._turn, self._given, None
            if given is not None and not self._settle(given, headers, body):
                self._waiting.appendleft(given)  # the answer was lost on its way, or the host begins anew
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._is_closed or self._turn != mine, LONGEST_POLL_S)
            if self._is_closed:
                return 200, _json({"what": "end"})
            if self._turn != mine:
                return 200, _json({"what": "wait"})
            self._given = self._waiting.popleft() if self._waiting else None
            return 200, _json(self._given.told() if self._given is not None else {"what": "wait"})

    def _settle(self, given: Question, headers: Mapping[str, str], body: bytes) -> bool:
        if headers.get("x-answer") != str(given.number):
            return False
        try:
            if headers.get("x-fault"):
                given.fault = as_object(body)
            elif headers.get("content-encoding") == "deflate":
                given.result = _inflated(body, given.length)
            else:
                given.result = body
            if given.what == "read" and given.fault is None and len(given.result) != given.length:
                raise ValueError("not as many bytes as asked for")
        except (ValueError, zlib.error):
            given.fault = {"id": "Deskyard.LineLost"}
        given.answered.set()
        return True


def _inflated(body: bytes, length: int) -> bytes:
    """Raises zlib.error, ValueError for what would be larger than was asked for."""
    unpack = zlib.decompressobj(-15)
    data = unpack.decompress(body, length + 1)
    if len(data) > length:
        raise ValueError("more bytes than asked for")
    return data


def _json(told: Mapping[str, object]) -> bytes:
    return json.dumps(told).encode("ascii")
