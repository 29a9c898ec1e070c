"""WinRM's shells and commands, with their quotas (Microsoft, "Quotas for remote shells")."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

LONGEST_LINE = 8191
"""Of cmd.exe, through which commands go unless WINRS_SKIP_CMD_SHELL says otherwise."""
LONGEST_LINE_WITHOUT_CMD = 32_767

Program = Callable[["Command"], int]
"""Carries a command out: writes with `Command.write`, returns the exit code."""


@dataclass(eq=False)
class Command:
    id: str
    line: str
    is_direct: bool
    stdin: bytearray = field(default_factory=bytearray)
    script: str = ""
    """Which script it was sent, once the first piece of it has come."""
    killed: threading.Event = field(default_factory=threading.Event)
    code: int | None = None
    _out: list[tuple[str, bytes]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _has_input: threading.Event = field(default_factory=threading.Event)

    def start(self, program: Program) -> None:
        threading.Thread(target=self._run, args=(program,), name=f"command {self.id[:8]}", daemon=True).start()

    def _run(self, program: Program) -> None:
        code = 1
        try:
            code = program(self)
        finally:
            with self._changed:
                self.code = code
                self._changed.notify_all()

    def write(self, stream: str, data: bytes) -> None:
        with self._changed:
            self._out.append((stream, data))
            self._changed.notify_all()

    def feed(self, pieces: list[bytes], *, is_end: bool) -> None:
        for piece in pieces:
            self.stdin += piece
        if is_end:
            self._has_input.set()

    def wait_for_input(self) -> bool:
        """All of standard input; False if the command is killed meanwhile."""
        while not self._has_input.wait(0.05):
            if self.killed.is_set():
                return False
        return True

    def take(self, limit: int, timeout_s: float) -> tuple[list[tuple[str, bytes]], int | None] | None:
        """Up to so many bytes of output, and the exit code once all is taken; None if nothing came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._out or self.code is not None, timeout_s)
            if not self._out and self.code is None:
                return None
            taken: list[tuple[str, bytes]] = []
            while self._out and limit > 0:
                name, data = self._out.pop(0)
                taken.append((name, data[:limit]))
                if data[limit:]:
                    self._out.insert(0, (name, data[limit:]))
                limit -= len(data)
            return taken, None if self._out else self.code


@dataclass(eq=False)
class Shell:
    id: str
    owner: str
    commands: dict[str, Command] = field(default_factory=dict)
    operations: int = 0
    """Counted up and never down, as Windows does."""
