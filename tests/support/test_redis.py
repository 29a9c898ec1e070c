from __future__ import annotations

import redis
from celery import current_app

from tests.support.redis import RedisServer, private_redis, tasks_queued_at


def test_the_private_server_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


def test_a_killed_server_comes_back_empty_on_the_same_port() -> None:
    with private_redis() as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
        url = server.url
        server.kill()
        server.start()
        assert server.url == url
        with redis.Redis.from_url(url) as client:
            assert client.get("key") is None


def test_tasks_go_where_the_block_says_though_others_were_queued_elsewhere_before() -> None:
    with private_redis() as first, private_redis() as second:
        for server in (first, second, first):
            with tasks_queued_at(server.url):
                current_app.send_task("deskyard.nothing", ignore_result=True)
        assert [_queued(server) for server in (first, second)] == [2, 1]


def _queued(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.llen("deskyard"))
