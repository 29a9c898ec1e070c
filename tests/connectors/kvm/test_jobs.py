"""The connector's thread pool."""

from __future__ import annotations

import threading
import time

from connectors.kvm.jobs import Crew


def test_jobs_run_side_by_side_up_to_the_crews_size() -> None:
    crew, together = Crew(3), threading.Barrier(3, timeout=30)
    jobs = [crew.start(together.wait) for _ in range(3)]
    assert all(job.ended.wait(30) and job.fault is None for job in jobs)
    crew.close()


def test_no_more_run_at_once_than_the_crew_is_large() -> None:
    crew, now, most, lock = Crew(2), 0, 0, threading.Lock()

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1

    for job in [crew.start(work) for _ in range(12)]:
        assert job.ended.wait(30)
    assert most == 2
    crew.close()


def test_a_fault_is_handed_to_whoever_asks() -> None:
    crew = Crew(1)
    job = crew.start(lambda: 1 // 0)
    assert job.ended.wait(30)
    assert isinstance(job.fault, ZeroDivisionError)
    assert crew.start(lambda: "goes on").ended.wait(30)
    crew.close()


def test_a_closed_crew_begins_nothing_more() -> None:
    crew, gate, is_at_it, began = Crew(1), threading.Event(), threading.Event(), list[int]()

    def hold() -> None:
        is_at_it.set()
        gate.wait()

    first = crew.start(hold)
    assert is_at_it.wait(30)
    second = crew.start(lambda: began.append(1))
    crew.close()
    gate.set()
    assert first.ended.wait(30)
    assert not second.ended.wait(0.1)
    assert not began
