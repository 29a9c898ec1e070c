"""The witness's own patience: an agent silent for a moment does not fail a test, one that stays silent does."""

from __future__ import annotations

import json
import time
from typing import Any
from unittest.mock import Mock

import libvirt
import libvirt_qemu
import pytest

from tests.support import guests

STARTED: dict[str, object] = {"pid": 7}
ENDED: dict[str, object] = {"exited": True, "exitcode": 0, "out-data": "b2s="}


def answers(monkeypatch: pytest.MonkeyPatch, *said: dict[str, object] | int) -> list[str]:
    """What the agent says, one after the other, the last for ever; a number is an error. Gives what was asked."""
    asked: list[str] = []

    def answer(_domain: Any, question: str, _limit_s: int, _flags: int) -> str:
        word = said[min(len(asked), len(said) - 1)]
        asked.append(json.loads(question)["execute"])
        if isinstance(word, int):
            error = libvirt.libvirtError("Guest agent not available for now")
            error.err = (word, 0, "", 0, "", None, None, 0, 0)
            raise error
        return json.dumps({"return": word})

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", answer)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    return asked


def test_an_agent_silent_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = libvirt.VIR_ERR_AGENT_UNRESPONSIVE
    asked = answers(monkeypatch, silent, STARTED, silent, STARTED, ENDED)
    assert guests.run_in_guest(Mock(), "/bin/true") == "ok"
    assert asked == ["guest-exec", "guest-exec", "guest-exec-status", "guest-exec", "guest-exec-status"]


def test_one_that_stays_silent_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, libvirt.VIR_ERR_AGENT_UNRESPONSIVE)
    with pytest.raises(libvirt.libvirtError, match="not available"):
        guests.run_in_guest(Mock(), "/bin/true", limit_s=0.05)


def test_any_other_error_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, libvirt.VIR_ERR_OPERATION_INVALID)
    with pytest.raises(libvirt.libvirtError):
        guests.run_in_guest(Mock(), "/bin/true")
    assert asked == ["guest-exec"]
