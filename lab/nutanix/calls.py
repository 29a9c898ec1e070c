"""Calls of Prism Central's as every part of it has them: taken apart, refused, answered with JSON or a task."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lab.http import Request, Response
from lab.nouns import Task
from lab.nutanix import images, recovery, views
from lab.nutanix.views import Json

ETAG = "YXBwbGljYXRpb24vanNvbg==:"
"""base64 of "application/json", and then the version."""

SECONDS: Mapping[str, float] = {
    "CloneVm": 4.0,
    "UpdateVm": 0.6,
    "DeleteVm": 1.0,
    "PowerOnVm": 1.5,
    "PowerOffVm": 0.6,
    "ResetVm": 0.5,
    "RevertVm": 3.0,
    "CreateVmRecoveryPoint": 2.0,
    "CreateVm": 2.5,
    **images.SECONDS,
    **recovery.SECONDS,
}
"""Kind of task -> how long it takes. Others take `USUAL_S`."""
USUAL_S = 0.8


ID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|ZXJnb24=:[0-9a-fA-F-]{36}")


class Refusal(Exception):
    """An answer that is none."""

    def __init__(self, status: int, body: Json | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.response = Response(
            status, json.dumps(body).encode() if body is not None else b"", dict(headers or {})
        )  # fmt: skip


@dataclass(slots=True)
class Call:
    """A request, taken apart."""

    request: Request
    namespace: str
    version: tuple[int, int]
    path: str

    @property
    def route(self) -> str:
        return f"{self.request.method} {self.namespace}/{ID.sub('{}', self.path)}"

    def body(self) -> Json:
        try:
            found = json.loads(self.request.body or b"{}")
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}


def json_answer(body: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, json.dumps(body).encode(), dict(headers or {}))


def task_answer(task: Task) -> Response:
    return json_answer({"data": views.task_reference(task)}, 202)
