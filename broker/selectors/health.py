"""Is everything that a desktop needs up, and if not, which part and why."""

from __future__ import annotations

from dataclasses import dataclass

import redis
from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError, connection

from broker.domain.lifecycle import State
from broker.models import Desktop, Hypervisor, Pool
from broker.selectors import pulse

DEMO_POOLS = ("Tiny Linux", "All makers")
"""What `make run` makes: on this machine's libvirt, and over the lab. Health asks that the first one that there is has
a ready desktop."""


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    is_up: bool
    words: str


def parts() -> list[Part]:
    """Every part with its state in words, cheapest first; asks no hypervisor, only what is known of them."""
    database = _database()
    if not database.is_up:
        return [database, *_processes()]
    return [database, *_processes(), *_hypervisors(), *_demo_pool()]


def processes() -> list[Part]:
    """Redis, worker, beat and mover, remembered for three seconds: what every console page asks."""
    known: list[Part] | None = cache.get("health.processes")
    if known is None:
        known = _processes()
        cache.set("health.processes", known, 3)
    return known


def _database() -> Part:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        return Part("database", False, f"The database does not answer: {str(error).strip()[:200]}")
    return Part("database", True, "It answers.")


def _processes() -> list[Part]:
    try:
        signs = pulse.signs()
    except redis.RedisError as error:
        words = f"Redis does not answer ({type(error).__name__}): nothing is carried out until it does."
        unknown = "Unknown while Redis is away."
        return [Part("redis", False, words), Part("worker", False, unknown), Part("beat", False, unknown)]
    worker, beat = signs["worker"], signs["beat"]
    return [
        Part("redis", True, "It answers."),
        Part(
            "worker", bool(worker), "At work." if worker else "No worker is running: nothing is carried out. Start one."
        ),
        Part(
            "beat", bool(beat), "Ticking." if beat else "The clock is not running: schedules and repairs stand still."
        ),
        *_mover(is_alive=signs["mover"], is_needed=signs["needs_mover"]),
    ]


def _mover(*, is_alive: bool, is_needed: bool) -> list[Part]:
    """Who replicates nothing needs none."""
    if is_alive:
        return [Part("mover", True, "At work.")]
    words = "No mover is running: nothing is replicated or brought up. Start one."
    return [Part("mover", False, words)] if is_needed else []


def _hypervisors() -> list[Part]:
    return [
        Part(f"hypervisor {h.name}", h.status == Hypervisor.Status.UP, h.status_reason or h.get_status_display())
        for h in Hypervisor.objects.only("name", "status", "status_reason")
    ]


def _demo_pool() -> list[Part]:
    pools = {pool.name: pool for pool in Pool.objects.filter(name__in=DEMO_POOLS)}
    pool = next((pools[name] for name in DEMO_POOLS if name in pools), None)
    if pool is None:
        is_awaited = settings.DEMO_EXPECTED and not (settings.DATA_DIR / "demo.done").exists()
        return [Part("demo pool", False, "The demo has not been set up yet.")] if is_awaited else []
    ready = Desktop.objects.filter(pool=pool, state=State.READY).count()
    return [Part("demo pool", ready > 0, f"{ready} ready." if ready else "No desktop is ready yet.")]
