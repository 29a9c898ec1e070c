"""What a claim costs: statements, rows read and milliseconds at two sizes of estate, and claims a second.

A claim is `brokering.request_desktop` by a person who has nothing in the pool yet, with its event and audit rows,
committed durably, and with the hints to Redis after the commit. Sign-in is not part of it.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from pathlib import Path
from uuid import UUID

from django.contrib.auth.models import User
from django.db import connection, connections

from broker.models import Assignment, Pool, Request
from broker.services import brokering
from tests.bench import estate
from tests.bench.claimer import WAIT_S, claim_for
from tests.bench.counting import cpu_s, rows_read, statements_run
from tests.bench.figures import load, report, say
from tests.bench.ground import Ground

SIZES, SMALL_SIZES = (1_000, 100_000), (1_000, 10_000)
SINGLE_CLAIMS = 200
CLIENTS, CLAIMS_A_CLIENT = 16, 500


def run(ground: Ground) -> None:
    for size in SMALL_SIZES if ground.is_small else SIZES:
        estate.raze()
        made = estate.build(size)
        pool = estate.add_pool(made, "claims", ready=SINGLE_CLAIMS + 50)
        measure_one(pool, size)
    for ready in (100, 1_000):
        measure_rows(estate.add_pool(made, f"ready-{ready}", ready=ready), ready, size)
    if ground.is_small:
        return
    pool = estate.add_pool(made, "rush", ready=CLIENTS * CLAIMS_A_CLIENT)
    measure_rate(pool, size)


def measure_one(pool: Pool, size: int) -> None:
    """One client, one claim after the other."""
    people = list(User.objects.order_by("pk")[: SINGLE_CLAIMS + 10])
    for person in people[:10]:
        _claim(person, pool.pk)
    times, read, run = [], rows_read(), statements_run()
    for person in people[10:]:
        began = time.perf_counter()
        _claim(person, pool.pk)
        times.append(time.perf_counter() - began)
    run, read = statements_run() - run, rows_read() - read
    report("claim", "statements", run / len(times), "statements", desktops=size)
    report("claim", "rows_read", read / len(times), "rows", desktops=size)
    report("claim", "median_ms", statistics.median(times) * 1000, "ms", desktops=size, load=load())


def measure_rows(pool: Pool, ready: int, size: int) -> None:
    """A claim takes the first of those that are ready; it must not look at all of them."""
    people = list(User.objects.order_by("pk")[:50])
    _claim(people.pop(), pool.pk)
    read = rows_read()
    for person in people:
        _claim(person, pool.pk)
    report("claim", "rows_read_by_ready", (rows_read() - read) / len(people), "rows", ready=ready, desktops=size)


def _claim(person: User, pool_id: UUID) -> None:
    request, _ = brokering.request_desktop(user=person, pool_id=pool_id)
    if request.state != Request.State.READY:
        raise AssertionError(f"{person} was not served: {request.state} {request.reason}")


def measure_rate(pool: Pool, size: int) -> None:
    """Many client processes at once on one pool; every claim must be served, each with a desktop of its own."""
    people = list(User.objects.order_by("-pk").values_list("pk", flat=True)[: CLIENTS * CLAIMS_A_CLIENT])
    server = _postmaster()
    connections.close_all()
    context = multiprocessing.get_context("spawn")
    together, spent = context.Barrier(CLIENTS + 1), context.Value("d", 0.0)
    clients = [
        context.Process(target=claim_for, args=(people[n::CLIENTS], pool.pk, together, spent), daemon=True)
        for n in range(CLIENTS)
    ]
    busy = load()
    for client in clients:
        client.start()
    together.wait(WAIT_S)
    began, cpu = time.perf_counter(), cpu_s(server)
    together.wait(WAIT_S)
    took, cpu = time.perf_counter() - began, cpu_s(server) - cpu
    together.wait(WAIT_S)
    for client in clients:
        client.join()
    served = Assignment.objects.filter(pool=pool, until=None).values("desktop").distinct().count()
    if served != len(people):
        raise AssertionError(f"{len(people)} people asked, {served} desktops were handed out.")
    say(f"{served} claims in {took:.1f} s by {CLIENTS} processes")
    with_all = {"desktops": size, "clients": CLIENTS, "cores": os.cpu_count(), "load": busy}
    report("claim", "rate", served / took, "claims/s", **with_all)
    report("claim", "cpu_ms", 1000 * spent.value / served, "ms", of="client", **with_all)
    report("claim", "cpu_ms", 1000 * cpu / served, "ms", of="PostgreSQL", **with_all)


def _postmaster() -> int:
    """The database server's first process, whose children serve the connections."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        status = Path(f"/proc/{cursor.fetchone()[0]}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))
