"""What carrying a screen costs: the relay's CPU against socat's, and its memory when somebody does not read.

Fifty screens show 1 MB/s each; viewers, screens and proxy share the machine. Runs alternate, so that both meet the same
load, and each proxy's time on a core (all its processes and threads, as the scheduler counts it) is set against what
the viewers got. The relay is the web server as `make run` starts it, with tickets, sign-in to the screen and rows.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from broker.services import people, screens
from connectors.base import ScreenOpened
from tests.bench.counting import children, cpu_s
from tests.bench.figures import load, report, say
from tests.bench.ground import Ground
from tests.bench.installation import installation
from tests.bench.screens import PICTURES_A_SECOND, look, show
from tests.broker.portal.cast import Estate, estate
from tests.support.prerequisites import free_port, require_program
from tests.support.process import die_with_us
from tests.support.stack import Stack, wait_until

STREAMS, RUNS = 50, 5
WARM_UP_S, RUN_S = 3.0, 10.0
SLOW_READERS, SLOW_S = 10, 15.0

Process = Any
SPAWN = multiprocessing.get_context("spawn")


def run(ground: Ground) -> None:
    with installation(ground) as running, _screens(PICTURES_A_SECOND) as port:
        web = running.start("web")
        running.wait_for_web()
        house = estate()
        viewers = [_viewer(house, number) for number in range(STREAMS)]
        costs: dict[str, list[float]] = {"relay": [], "socat": []}
        for number in range(1, RUNS + 1):
            costs["relay"].append(_cost(web, running.port, _tickets(viewers, port), "relay", number))
            with _socat(port) as (proxy, entrance):
                costs["socat"].append(_cost(proxy, entrance, [], "socat", number))
        medians = {name: statistics.median(found) for name, found in costs.items()}
        for name, median in medians.items():
            report("relay", "cpu_s_per_gb", median, "s/GB", proxy=name, streams=STREAMS, runs=RUNS)
        ratio = medians["relay"] / medians["socat"]
        report("relay", "cpu_ratio", ratio, "times socat", streams=STREAMS, runs=RUNS, load=load())
        measure_slow_readers(running, web, viewers)


def _viewer(house: Estate, number: int) -> tuple[User, Any, Any]:
    """Somebody with a desktop and an API token."""
    user = User.objects.create_user(f"viewer-{number}")
    user.groups.add(house.staff)
    token, _ = people.make_token(actor=house.dana, user=user, name="bench", scopes=["portal"])
    return user, house.give(user), token


def _tickets(viewers: Sequence[tuple[User, Any, Any]], port: int) -> list[str]:
    """What each viewer offers as subprotocols: the pump's part, opening the screen, is done here."""
    offers = []
    for user, desktop, token in viewers:
        opening = screens.connect(user=user, desktop_id=desktop.pk, protocol="vnc", token=token)
        opened = ScreenOpened(protocol="vnc", host="127.0.0.1", port=port, password="x")
        assert opening.operation
        screens.store_target(opening.operation, opened)
        offers.append(", ".join(opening.subprotocols))
    return offers


@contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[Process]:
    made = SPAWN.Process(target=target, args=arguments, daemon=True)
    made.start()
    try:
        yield made
    finally:
        made.kill()
        made.join()


@contextmanager
def _screens(pictures_a_second: int) -> Iterator[int]:
    """The port of screens that show."""
    here, there = SPAWN.Pipe()
    with _process(show, there, pictures_a_second):
        yield here.recv()


@contextmanager
def _socat(port: int) -> Iterator[tuple[int, int]]:
    """A plain TCP proxy: its process and its port."""
    entrance = free_port()
    command = die_with_us(
        require_program("socat", "socat"),
        f"TCP-LISTEN:{entrance},bind=127.0.0.1,fork,reuseaddr,backlog=200",
        f"TCP:127.0.0.1:{port}",
    )
    # It complains about every viewer that hangs up.
    proxy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield proxy.pid, entrance
    finally:
        for pid in [*children(proxy.pid), proxy.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        proxy.wait()


def _cost(proxy: int, port: int, subprotocols: Sequence[str], name: str, number: int) -> float:
    """CPU-seconds of the proxy for each GB that the viewers got."""
    seen = SPAWN.Value("Q", 0)
    with _process(look, port, subprotocols, STREAMS, seen) as viewers:
        wait_until(lambda: seen.value > 5_000_000, 60, "pictures arrive")
        time.sleep(WARM_UP_S)
        cpu, got, began = cpu_s(proxy), seen.value, time.monotonic()
        time.sleep(RUN_S)
        cpu, got, took = cpu_s(proxy) - cpu, seen.value - got, time.monotonic() - began
        if not viewers.is_alive():
            raise AssertionError("The viewers were cut off.")
    rate = got / took / 1e6
    say(f"{name} {number}: {rate:.1f} MB/s, {100 * cpu / took:.0f} % of a core, load {load()}")
    report("relay", "run", cpu / got * 1e9, "s/GB", proxy=name, number=number, mb_a_second=round(rate, 1), load=load())
    return float(cpu / got * 1e9)


def measure_slow_readers(running: Stack, web: int, viewers: Sequence[tuple[User, Any, Any]]) -> None:
    """Screens that show as fast as they can, viewers that never read: what the relay's memory grows by."""
    with _screens(0) as port:
        before = _pss_mib(web)
        offers = _tickets(viewers[:SLOW_READERS], port)
        seen = SPAWN.Value("Q", 0)
        sizes = []
        with _process(look, running.port, offers, SLOW_READERS, seen, False):
            for _ in range(3):
                time.sleep(SLOW_S / 3)
                sizes.append(_pss_mib(web))
        growth = [round(size - before, 1) for size in sizes]
        report("relay", "slow_reader_mib", sizes[-1] - sizes[0], "MiB", readers=SLOW_READERS, growth=growth)


def _pss_mib(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024
