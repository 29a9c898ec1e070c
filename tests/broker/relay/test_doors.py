"""The doors' process: what it says when it cannot open what it is told to."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.support.prerequisites import REPOSITORY


def start(same_rows: dict[str, str], **variables: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "broker.config.doors"],
        cwd=REPOSITORY,
        env=same_rows | {"DESKYARD_DOORS_HOST": "127.0.0.1"} | variables,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr.decode()


def test_without_a_port_there_is_no_door_to_open(same_rows: dict[str, str]) -> None:
    code, said = start(same_rows)
    assert (code, "set DESKYARD_RDP_PORT" in said) == (2, True)


@pytest.mark.parametrize("name", ["DESKYARD_RDP_PORT", "DESKYARD_VNC_PORT"])
def test_a_door_that_cannot_be_opened_says_what_to_do(same_rows: dict[str, str], name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = start(same_rows, **{name: str(taken.getsockname()[1])})
    assert code == 1
    assert said.splitlines()[-1].endswith(
        "Set DESKYARD_RDP_PORT."
        if name == "DESKYARD_RDP_PORT"
        else "Set DESKYARD_VNC_CERTIFICATE and DESKYARD_VNC_KEY."
    )
    assert "Traceback" not in said
