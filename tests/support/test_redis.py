from __future__ import annotations

import redis

from tests.support.redis import private_redis


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
