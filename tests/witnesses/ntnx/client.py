"""Asks the witness, which runs in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab.http import Request, Response
from lab.nutanix import PrismServer

HERE = Path(__file__).parent

KNOWN_DRIFT = "markedForRemoval: unknown to clustermgmt.v4.config.StorageContainer"
"""Real servers say `markedForRemoval` where the libraries know `isMarkedForRemoval`, and the lab says it too."""


@dataclass(frozen=True, slots=True)
class Exchange:
    verb: str
    path: str
    headers: dict[str, str]
    body: str
    status: int
    answer: str
    is_file: bool = False


def record(server: PrismServer) -> list[Exchange]:
    """Everything that is asked from now on, and what is answered."""
    exchanges: list[Exchange] = []
    handle = server.handle

    def recording(request: Request) -> Response:
        response = handle(request)
        exchanges.append(
            Exchange(
                request.method, request.raw_path, dict(request.headers), request.body.decode(), response.status,
                response.body.decode(), response.pieces is not None,
            )
        )  # fmt: skip
        return response

    server.handle = recording  # type: ignore[method-assign]
    return exchanges


def judge(exchanges: list[Exchange]) -> list[list[str]]:
    """What the libraries find wrong with each."""
    told: list[list[str]] = json.loads(_run("judge.py", text=json.dumps([asdict(one) for one in exchanges])))
    return told


def drive(server: PrismServer, template: str) -> dict[str, Any]:
    """What the libraries saw when they drove the lab."""
    account = server.account
    where = (server.address, str(server.port), account.user, template)
    told: dict[str, Any] = json.loads(_run("drive.py", *where, text=account.password + "\n"))
    return told


def _run(script: str, *arguments: str, text: str) -> str:
    done = subprocess.run(
        [environment() / "bin/python", HERE / script, *arguments],
        input=text, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"{script} failed:\n{done.stderr[-3000:]}")
    return done.stdout


@cache
def environment() -> Path:
    """Made by `deploy/test.sh setup`, or now."""
    done = subprocess.run([HERE / "setup.sh"], capture_output=True, text=True, timeout=400, check=False)
    if done.returncode:
        raise AssertionError(f"Nutanix's client libraries could not be installed:\n{done.stderr[-2000:]}")
    return Path(done.stdout.strip().splitlines()[-1])
