from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest
import redis
from django.conf import settings
from django.db import transaction

from broker.selectors import pulse
from broker.services import nudges
from tests.support.redis import tasks_queued_at

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """An empty Redis that nudges go to."""
    monkeypatch.setattr(settings, "REDIS_URL", redis_url)
    pulse.connection.cache_clear()
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    with tasks_queued_at(redis_url):
        yield client
    client.close()
    pulse.connection.cache_clear()


def _queued(server: redis.Redis) -> list[tuple[str, str]]:
    """(task, arguments) that wait for a worker, oldest first."""
    found = []
    for message in reversed(server.lrange("deskyard", 0, -1)):
        headers = json.loads(message)["headers"]
        found.append((headers["task"], headers["argsrepr"]))
    return found


def test_a_queue_that_is_away_holds_nobody_up_for_seconds(server: redis.Redis) -> None:
    """Redis may go away between the hint's count and its message; kombu by itself would try for six seconds."""
    with tasks_queued_at("redis://127.0.0.1:1/0"):
        began = time.monotonic()
        nudges.nudge(nudges.PUMP, "h-1")
        assert time.monotonic() - began < 2
    assert _queued(server) == []


def test_what_a_transaction_says_is_said_once_it_has_committed(server: redis.Redis) -> None:
    with transaction.atomic():
        nudges.nudge(nudges.PUMP, "one")
        nudges.nudge(nudges.RECONCILE, "two")
        nudges.nudge(nudges.PUMP, "one")
        assert not _queued(server)
    assert _queued(server) == [(nudges.PUMP, "['one']"), (nudges.RECONCILE, "['two']")]


def test_outside_of_a_transaction_it_is_said_at_once(server: redis.Redis) -> None:
    nudges.nudge(nudges.PUMP, "one")
    assert _queued(server) == [(nudges.PUMP, "['one']")]


def test_what_is_rolled_back_says_nothing(server: redis.Redis) -> None:
    with transaction.atomic():
        nudges.nudge(nudges.PUMP, "kept")
        with transaction.atomic():
            nudges.nudge(nudges.PUMP, "lost")
            transaction.set_rollback(True)
        nudges.nudge(nudges.PUMP, "kept too")
    assert [arguments for _, arguments in _queued(server)] == ["['kept']", "['kept too']"]


def test_a_task_that_waits_for_a_worker_is_not_queued_again_until_it_is_taken(server: redis.Redis) -> None:
    nudges.nudge(nudges.PUMP, "one")
    nudges.nudge(nudges.PUMP, "one")
    assert len(_queued(server)) == 1
    nudges.taken(nudges.PUMP, "one")
    nudges.nudge(nudges.PUMP, "one")
    assert len(_queued(server)) == 2


def test_equal_announcements_of_a_transaction_are_made_once(server: redis.Redis) -> None:
    with server.pubsub() as subscription:  # type: ignore[no-untyped-call]
        subscription.subscribe(nudges.LIVE_CHANNEL)
        subscription.get_message(timeout=30)
        with transaction.atomic():
            for _ in range(3):
                nudges.announce("desktops", user="7")
            nudges.announce("requests", user="7")
        heard = [subscription.get_message(timeout=30) for _ in range(2)]
        assert subscription.get_message(timeout=0.2) is None
    assert [json.loads(message["data"])["noun"] for message in heard if message] == ["desktops", "requests"]


def test_nobody_waits_for_a_redis_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "REDIS_URL", "redis://127.0.0.1:1/0")
    pulse.connection.cache_clear()
    nudges.nudge(nudges.PUMP, "one")
    nudges.announce("desktops")
    pulse.connection.cache_clear()


def test_a_redis_that_does_not_answer_costs_a_moment_however_much_is_to_be_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A black hole: connections come to stand, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        monkeypatch.setattr(settings, "REDIS_URL", f"redis://127.0.0.1:{hole.getsockname()[1]}/0")
        pulse.connection.cache_clear()
        begun = time.monotonic()
        with transaction.atomic():
            for number in range(50):
                nudges.nudge(nudges.PUMP, str(number))
                nudges.announce("desktops", number=str(number))
        took_s = time.monotonic() - begun
        pulse.connection().close()
        pulse.connection.cache_clear()
    assert 0.15 < took_s < 5, "one wait, not a hundred"


@pytest.mark.parametrize("error", [ValueError("I/O operation on closed file."), OSError(), redis.TimeoutError()])
def test_a_hint_whose_connection_breaks_is_dropped(
    error: Exception, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is about is committed by then: whoever asked is not told that it failed."""

    def breaks(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("broker.services.nudges.current_app.send_task", breaks)
    nudges.nudge(nudges.PUMP, "one")


def test_a_hint_that_was_lost_is_given_again_however_many_follow_it(server: redis.Redis) -> None:
    nudges.nudge(nudges.INVENTORY, "one")
    server.delete("deskyard")  # the task is lost on its way to a worker
    deadline = time.monotonic() + 3 * nudges.PENDING_S
    while not _queued(server):
        assert time.monotonic() < deadline, "hints kept the lost one alive"
        nudges.nudge(nudges.INVENTORY, "one")
        time.sleep(nudges.PENDING_S / 10)
