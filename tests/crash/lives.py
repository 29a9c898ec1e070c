"""Worker lives in forked processes: short leases, no hints at all, death or stillness wherever a test wants it.

Without Redis every hint is lost, so these lives also show that rows alone are enough.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

from django.db import connections

from broker.models import Desktop, Hypervisor
from broker.services import clock, inventory, nudges, pump, reconcile

LEASE_S, CALL_S = 1.0, 0.5
FAILED = 70
"""Exit status of a life that raised."""


def life(*, until: Callable[[], bool], limit_s: float, first: Callable[[], bool] | None = None,
         then: Callable[[], None] | None = None) -> int:  # fmt: skip
    """Fork a worker and return its pid. It ends when `until` says so, or at its limit.

    It works until `first` holds, within the limit or it fails; does `then`, such as arming a boundary; and works on.
    """
    connections.close_all()
    pid = os.fork()
    if pid:
        return pid
    try:
        _shorten()
        if first is not None:
            _work(first, limit_s)
            assert first(), f"what comes first did not come within {limit_s:.0f} s"
        if then is not None:
            then()
        _work(until, limit_s)
    except BaseException:  # noqa: BLE001 - whatever it is, the forked child must never return into pytest
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(FAILED)
    os._exit(0)


def ended(pid: int) -> int:
    """Wait for a life's end: 0, or minus the signal that killed it. A life that raised fails the test."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code != FAILED, "the worker raised; see its traceback above"
    return code


def was_killed(pid: int) -> bool:
    """Wait for a life's end: whether it was sudden."""
    return ended(pid) == -signal.SIGKILL


def stopped(pid: int) -> bool:
    """Wait until a life stands still (True) or has ended (False)."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    return os.WIFSTOPPED(status)


def go_on(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def _shorten() -> None:
    pump.LEASE_S, pump.CALL_S, pump.SLICE_S = LEASE_S, CALL_S, 1.0
    inventory.LEASE_S, inventory.CALL_S = LEASE_S, CALL_S
    inventory.QUICK_S = inventory.CALM_S = 0.02
    reconcile.SOON_S = reconcile.CALM_S = 0.02
    clock.RECONCILE_EVERY_S = 0.1  # type: ignore[assignment]
    nudges._deliver = lambda hints: None
    nudges.taken = lambda task, argument: None
    nudges.wait = _nap


def _nap(task: str, argument: object, timeout_s: float) -> bool:
    time.sleep(min(timeout_s, 0.02))
    return False


def _work(until: Callable[[], bool], limit_s: float) -> None:
    """Pools, then pumps, then inventories: what a turn plans it builds and sees, if nothing delays it."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end and not until():
        for pool_id in clock.pools_due():
            reconcile.run(pool_id)
        for hypervisor_id in Hypervisor.objects.values_list("pk", flat=True):
            pump.run(hypervisor_id)
        for hypervisor_id in inventory.due():
            inventory.take(hypervisor_id)
        time.sleep(0.01)


def ready(count: int) -> bool:
    return Desktop.objects.filter(state="ready").count() >= count
