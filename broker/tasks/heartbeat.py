"""Signs of life of worker and beat, so that every page can say when one is missing."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from celery.signals import beat_init, before_task_publish, worker_ready

from broker.selectors import pulse
from broker.services import alive

_is_beat = threading.Event()


@worker_ready.connect
def worker_breathes(**_: Any) -> None:
    threading.Thread(target=_breathe, name="heartbeat", daemon=True).start()


def _breathe() -> None:
    pause = threading.Event()
    while not pause.wait(pulse.EVERY_S):
        alive.sign("worker", f"{socket.gethostname()}:{os.getpid()}")


@beat_init.connect
def beat_starts(**_: Any) -> None:
    _is_beat.set()


@before_task_publish.connect
def beat_breathes(**_: Any) -> None:
    if _is_beat.is_set():
        alive.sign("beat", f"{socket.gethostname()}:{os.getpid()}")


__all__ = ["beat_breathes", "beat_starts", "worker_breathes"]
