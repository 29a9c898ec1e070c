"""Asking for a page as a browser does, and what it costs the database."""

from __future__ import annotations

import statistics
import time

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from tests.bench.counting import rows_read, statements
from tests.bench.figures import load, report

TIMES = 15


def browser(user: User) -> Client:
    client = Client(SERVER_NAME=settings.ALLOWED_HOSTS[0])
    client.force_login(user)
    return client


def measure(bench: str, client: Client, path: str, *, page: str, size: int) -> None:
    """Report statements, rows read and milliseconds of a page, session and sign-in check included."""
    for _ in range(2):
        client.get(path)
    counts, times, before = [], [], rows_read()
    for _ in range(TIMES):
        with statements() as sent:
            began = time.perf_counter()
            answer = client.get(path)
            times.append(time.perf_counter() - began)
        if answer.status_code != 200:
            raise AssertionError(f"{path} answered {answer.status_code}.")
        counts.append(len(sent))
    read = (rows_read() - before) / TIMES
    report(bench, "statements", max(counts), "statements", page=page, desktops=size)
    report(bench, "rows_read", read, "rows", page=page, desktops=size)
    report(bench, "median_ms", statistics.median(times) * 1000, "ms", page=page, desktops=size, load=load())
