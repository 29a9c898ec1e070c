"""`python -m tests.connectors.matrix` writes the matrix of docs/connectors.md anew from what the tests speak for."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.judged import table
from tests.support.prerequisites import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "connectors.md"
BEGIN, END = "<!-- matrix -->\n", "<!-- end of matrix -->\n"


def claims() -> list[tuple[str, str, str]]:
    """(kind, witness, order) of all tests of connectors, the long ones too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "judged.json"
        arguments = [
            "-q",
            "--collect-only",
            "-m",
            "long or not long",
            "-p",
            "no:cacheprovider",
            "--judged-to",
            str(path),
        ]
        command = [sys.executable, "-m", "pytest", *arguments, "tests/connectors"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if not path.exists():
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return [(kind, witness, order) for kind, witness, order in json.loads(path.read_text())]


def matrix() -> str:
    lines = table(dict.fromkeys(claims(), "judged"))
    return "\n".join(lines).strip() + "\n"


def split() -> tuple[str, str, str]:
    """The document before, in and after the matrix."""
    before, rest = DOCUMENT.read_text().split(BEGIN)
    inside, after = rest.split(END)
    return before + BEGIN, inside, END + after


if __name__ == "__main__":
    head, _, tail = split()
    DOCUMENT.write_text(head + matrix() + tail)
