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
def worker_breathes(sender: Any, **_: Any) -> None:
    """One worker may do for pumps and movers both, by the queues that it reads."""
    queues = set(sender.app.amqp.queues.consume_from)
    parts = ["mover"] if "movers" in queues else []
    parts += ["worker"] if queues - {"movers"} else []
    threading.Thread(target=_breathe, args=[parts], name="heartbeat", daemon=True).start()


def _breathe(parts: list[str]) -> None:
    pause = threading.Event()
    while not pause.wait(pulse.EVERY_S):
        for part in parts:
            alive.sign(part, f"{socket.gethostname()}:{os.getpid()}")


@beat_init.connect
def beat_starts(**_: Any) -> None:
    _is_beat.set()


@before_task_publish.connect
def beat_breathes(**_: Any) -> None:
    if _is_beat.is_set():
        alive.sign("beat", f"{socket.gethostname()}:{os.getpid()}")


__all__ = ["beat_breathes", "beat_starts", "worker_breathes"]
