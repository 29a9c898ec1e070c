"""VMware's own simulator as a witness: started, asked what was sent to it, told to fail, and stopped."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.certificates import Certificate, make
from tests.support.prerequisites import MissingPrerequisite

USER, PASSWORD = "deskyard", "witness & <secret>"
PEER = "govmomi simulator 0.24.2"
"""To be named in every claim. It reports API 6.5."""


@dataclass(frozen=True)
class Vcsim:
    """One running simulator."""

    address: str
    port: int
    certificate: Certificate
    process: subprocess.Popen[str]
    errors: Path

    def sent(self) -> list[str]:
        """The requests since the last look."""
        answer: list[str] = json.loads(self._door("/_requests"))
        return answer

    def fail(self, *rules: dict[str, Any]) -> None:
        """These faults from now on, and no others."""
        self._door("/_faults", json.dumps(rules).encode())

    def _door(self, path: str, body: bytes | None = None) -> bytes:
        trust = ssl.create_default_context(cadata=self.certificate.pem)
        with urllib.request.urlopen(f"https://{self.address}:{self.port}{path}", body, 10, context=trust) as answer:
            read: bytes = answer.read()
            return read


@contextmanager
def running(binary: Path, folder: Path, *arguments: str) -> Iterator[Vcsim]:
    """A simulator of its own on 127.0.0.2, with a certificate of its own. Raises MissingPrerequisite."""
    certificate = make("127.0.0.2", folder)
    errors = folder / "vcsim.log"
    command = [
        str(binary), "-l", "127.0.0.2:0", "-u", USER, "-p", PASSWORD,
        "-cert", str(folder / "server.crt"), "-key", str(folder / "server.key"), *arguments,
    ]  # fmt: skip
    with errors.open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("READY "):
                raise MissingPrerequisite(f"The witness vcsim did not start: {errors.read_text()[-500:]}")
            host, _, port = line.split()[1].rpartition(":")
            yield Vcsim(host, int(port), certificate, process, errors)
        finally:
            process.terminate()
            process.wait(60)  # it removes the files of its machines
    assert "panic" not in errors.read_text(), "the witness itself broke"
