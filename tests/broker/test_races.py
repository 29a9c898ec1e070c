"""Many people at once, on PostgreSQL and on SQLite: nobody gets another one's desktop, and nobody is forgotten."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.effort import TRIES

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_S = 200


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def migrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """DATABASE_URL of an empty, migrated database that each race gets a copy of."""
    folder = tmp_path_factory.mktemp("races")
    if request.param == "postgresql":
        url = _fresh_database(request.getfixturevalue("postgres_url"), "races_empty", "template0")
    else:
        url = f"sqlite:///{folder / 'empty.sqlite3'}"
    _run(_environment(folder, url), "manage.py", "migrate", "--verbosity", "0")
    return url


@pytest.fixture(params=TRIES)
def surroundings(migrated: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a broker of the test's own: races make people and hypervisors of the same names."""
    if migrated.startswith("sqlite:"):
        url = f"sqlite:///{tmp_path / 'race.sqlite3'}"
        with (
            closing(sqlite3.connect(migrated.removeprefix("sqlite:///"))) as empty,
            closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as ours,
        ):
            empty.backup(ours)
    else:
        url = _fresh_database(migrated, "races", "races_empty")
    return _environment(tmp_path, url) | {"REDIS_URL": redis_url}


def _environment(folder: Path, url: str) -> dict[str, str]:
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DESKYARD_DATA": str(folder),
        "DATABASE_URL": url,
        "DESKYARD_LOG_LEVEL": "ERROR",
    }


def _fresh_database(url: str, name: str, template: str) -> str:
    """Its DATABASE_URL, on the same server: other tests use theirs."""
    import psycopg

    server = url.rsplit("/", 1)[0]
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return f"{server}/{name}"


def _run(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def race(surroundings: dict[str, str], name: str, *, people: int, desktops: int) -> dict[str, Any]:
    printed = _run(surroundings, "-m", "tests.broker.race", name, "--people", str(people), "--desktops", str(desktops))
    told: dict[str, Any] = json.loads(printed)
    assert not told["errors"]
    return told


def test_two_hundred_people_get_two_hundred_desktops(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "claim", people=200, desktops=200)
    assert told["told_ready"] == told["held"] == told["holders"] == told["assignments"] == told["audited"] == 200
    assert told["states"] == {"assigned": 200}
    assert told["requests"] == {"ready": 200}
    assert told["epochs"] == [["assigned", 2]]
    assert told["agree"]


def test_with_one_hundred_desktops_one_hundred_people_wait(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "claim", people=200, desktops=100)
    assert told["held"] == told["holders"] == told["assignments"] == 100
    assert told["requests"] == {"ready": 100, "approved": 100}
    assert told["told_ready"] + told["told_waiting"] == 200
    assert told["told_waiting"] >= 100
    assert told["agree"]


def test_one_person_in_twenty_tabs_gets_one_desktop(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "tabs", people=20, desktops=5)
    assert told["told"] == 20
    assert told["told_requests"] == told["held"] == told["assignments"] == 1
    assert told["states"] == {"assigned": 1, "ready": 4}
    assert told["requests"] == {"ready": 1}


def test_one_person_in_twenty_tabs_waits_once(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "tabs", people=20, desktops=0)
    assert told["told_requests"] == 1
    assert told["requests"] == {"approved": 1}


def test_a_queue_that_many_serve_is_served_once_and_in_order(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "queue", people=60, desktops=40)
    assert told["served"] == told["held"] == told["holders"] == 40
    assert told["requests"] == {"ready": 40, "approved": 20}
    assert told["first_come_first_served"]
    assert told["agree"]


def test_a_desktop_given_back_in_three_tabs_is_recycled_once(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "release", people=40, desktops=40)
    assert told["released"] == told["recycles"] == told["one_each"] == 40
    assert told["assignments"] == 0
    assert told["states"] == {"recycling": 40}
    assert told["requests"] == {"ended": 40}
    assert told["epochs"] == [["recycling", 3]]


def test_a_schedule_that_many_clocks_run_runs_once_and_takes_nobodys_desktop(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "schedule", people=60, desktops=200)
    assert told["runs"] == 2
    assert told["held"] == told["holders"] == 60
    assert told["of_somebodys"] == 0
    assert told["ordered"] >= 140
    assert told["agree"]


def test_a_publication_that_many_workers_take_up_lands_once_also_while_it_is_cancelled(
    surroundings: dict[str, str],
) -> None:
    told = race(surroundings, "publish", people=40, desktops=0)
    assert told["landings"] == told["owned"]
    assert told["going_on"] == 20
    assert told["ended_before"] + told["told_to_end"] == told["audited"] == 20


def test_a_row_that_was_waited_for_comes_with_what_it_points_to_by_now(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "lock", people=1, desktops=0)
    assert told["came_with_it"] is True


def test_of_an_expiry_a_renewal_and_a_release_that_meet_one_wins(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "lease", people=60, desktops=60)
    assert told["renewed"] == told["renewals"] == told["kept"] == told["assignments"]
    assert told["renewed_and_ended"] == 0
    assert told["kept"] + told["ended"] == 60
    assert told["ended"] == told["recycles"] == told["reclaimed"] + told["released"]
    assert told["reclaimed"] == told["reclaimed_once"]
    assert told["states"] == {"assigned": told["kept"], "recycling": told["ended"]}


def test_of_a_timer_a_return_and_a_release_that_meet_one_wins(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "session", people=60, desktops=60)
    assert told["going_on"] == told["connected"] == told["kept_by_those_back"] == told["assignments"] <= 20
    assert told["recycles"] == told["audited_once"] == 60 - told["assignments"]
    assert told["states"].get("recycling") == told["recycles"]


def test_pools_that_build_on_the_same_hosts_do_not_stand_in_each_others_way(surroundings: dict[str, str]) -> None:
    """Sixteen pools, sixteen hosts, nine seconds: a deadlock would be told as an error."""
    told = race(surroundings, "share", people=16, desktops=24)
    assert told["built"] >= 30


def test_people_come_and_go_and_nobody_meets_anothers_files(surroundings: dict[str, str]) -> None:
    """Twelve people share six desktops for eight seconds, with six threads that pump, look and reconcile."""
    told = race(surroundings, "use", people=12, desktops=6)
    assert not told["foreign_files"]
    assert told["uses"] >= 12


def test_no_session_host_takes_one_too_many_and_nobody_has_two_seats(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "seats", people=60, desktops=8)
    assert told["on_each"] == [5] * 8
    assert told["twice"] == 0
    assert told["numbers"] == [1, 2, 3, 4, 5]
    assert told["holders"] == told["assignments"] == told["audited"] == 40
    assert told["requests"] == {"ready": 40, "approved": 20}
    assert told["epochs"] == [["assigned", 2]], "it rises with the first who comes"
    assert told["agree"]


def test_session_hosts_fill_evenly_however_many_come_at_once(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "seats", people=24, desktops=8)
    assert told["on_each"] == [3] * 8
    assert told["requests"] == {"ready": 24}


def test_a_host_gets_a_fresh_disk_once_and_only_when_the_last_has_left(surroundings: dict[str, str]) -> None:
    told = race(surroundings, "leave", people=48, desktops=12)
    assert (told["left"], told["stayed"]) == (48, 0)
    assert told["empty_and_used"] == 0
    assert told["recycling"] == told["recycles"]
    assert told["recycled_once"]
    assert told["twice"] == 0
    assert set(told["states_of_used"]) <= {"assigned"}
    assert max(told["on_each"], default=0) <= 5
    assert told["agree"]
