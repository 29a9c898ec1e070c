"""Child processes that never outlive the test run."""

from __future__ import annotations

from pathlib import Path

from tests.support.prerequisites import require_program


def die_with_us(*command: str | Path) -> list[str]:
    """The command, changed so that the kernel kills it when the starting thread ends, even by SIGKILL.

    Start it from the main thread: the kernel ties the child to the thread, not to the process.
    """
    return [str(require_program("setpriv", "util-linux")), "--pdeathsig", "KILL", *(str(part) for part in command)]
