"""The estate, and people who call the API with their tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from broker.services import people
from tests.broker.portal.cast import Estate, estate


@pytest.fixture
def house(db: None) -> Estate:
    return estate()


@dataclass
class Answer:
    status: int
    body: Any
    """Parsed JSON; None if there is none."""
    media_type: str
    headers: dict[str, str]


@dataclass
class Caller:
    """Somebody with a token, or nobody."""

    client: Client
    authorization: str = ""

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        if self.authorization:
            headers.setdefault("Authorization", self.authorization)
        sent = json.dumps(body) if body is not None else ""
        got = self.client.generic(method, f"/api/v1{path}", sent, content_type="application/json", headers=headers)
        media_type = got.headers.get("Content-Type", "").partition(";")[0]
        parsed = json.loads(got.content) if got.content and "json" in media_type else None
        return Answer(got.status_code, parsed, media_type, dict(got.headers))

    def get(self, path: str) -> Answer:
        return self("GET", path)

    def post(self, path: str, body: object = None) -> Answer:
        return self("POST", path, body)


Callers = Callable[..., Caller]


@pytest.fixture
def calling() -> Callers:
    """`calling(house.alice)`: Alice with a token of all her rights, or of the scopes named; `calling(None)`: nobody."""

    def make(user: User | None, scopes: Sequence[str] = ()) -> Caller:
        if user is None:
            return Caller(Client())
        _, plain = people.make_token(actor=user, user=user, name="test", scopes=scopes)
        return Caller(Client(), f"Bearer {plain}")

    return make
