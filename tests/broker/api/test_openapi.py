"""The description is valid OpenAPI 3.1, names what scripts lean on, and holds against whatever is sent."""

from __future__ import annotations

import json
import random
import re
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from broker.api.urls import urlpatterns
from tests.broker.api.conftest import Caller, Callers
from tests.broker.portal.cast import Estate
from tests.support.effort import examples
from tests.support.prerequisites import REPOSITORY


@pytest.fixture
def described(db: None) -> dict[str, Any]:
    got = Client().get("/api/v1/openapi.json")
    assert got.status_code == 200
    found: dict[str, Any] = json.loads(got.content)
    return found


STABLE = {
    ("get", "/api/v1/hypervisors"),
    ("get", "/api/v1/templates"),
    ("get", "/api/v1/pools"),
    ("get", "/api/v1/desktops"),
    ("get", "/api/v1/operations"),
    ("get", "/api/v1/requests"),
    ("post", "/api/v1/requests"),
    ("get", "/api/v1/requests/{id}"),
    ("post", "/api/v1/desktops/{id}/connect"),
    ("post", "/api/v1/desktops/{id}/power"),
    ("post", "/api/v1/desktops/{id}/release"),
}
"""What scripts lean on: never renamed, never removed within v1."""


def test_the_description_is_valid_and_needs_no_sign_in(described: dict[str, Any]) -> None:
    validate(described)
    assert described["openapi"].startswith("3.1")


def test_what_scripts_lean_on_is_there(described: dict[str, Any]) -> None:
    assert {(method, path) for path, methods in described["paths"].items() for method in methods} >= STABLE
    fields = described["components"]["schemas"]
    assert {"id", "state", "reason", "desktop"} <= set(fields["RequestOut"]["properties"])
    assert {"url", "subprotocols", "expires_at"} <= set(fields["ConnectOut"]["properties"])
    assert {"items", "total"} == set(fields["Page_RequestOut_"]["properties"])
    assert set(described["paths"]["/api/v1/requests"]["post"]["responses"]) >= {"200", "201", "404", "422"}
    assert set(described["paths"]["/api/v1/desktops/{id}/connect"]["post"]["responses"]) >= {"200", "409"}
    assert set(described["paths"]["/api/v1/desktops/{id}/release"]["post"]["responses"]) >= {"202", "404"}


def test_every_operation_names_its_problems_and_who_may_call(described: dict[str, Any]) -> None:
    for methods in described["paths"].values():
        for operation in methods.values():
            assert operation["security"], operation["operationId"]
            for status in ("401", "403", "404", "409", "422"):
                assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


def test_operations_are_named_once(described: dict[str, Any]) -> None:
    names = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


@pytest.mark.django_db
def test_wrong_methods_and_addresses_are_problems(house: Estate, calling: Callers) -> None:
    dana = calling(house.dana)
    wrong = dana("PUT", "/pools")
    assert (wrong.status, wrong.media_type) == (405, "application/problem+json")
    assert set(wrong.headers["Allow"].split(", ")) == {"GET", "POST"}
    for path in ("/nothing", "/pools/", "/"):
        nowhere = dana.get(path)
        assert (nowhere.status, nowhere.media_type) == (404, "application/problem+json"), path
    assert len(urlpatterns) > 30


@pytest.mark.django_db
def test_a_body_too_large_is_refused(house: Estate, calling: Callers) -> None:
    answer = calling(house.dana).post("/templates", {"name": "x", "description": "x" * 3_000_000})
    assert (answer.status, answer.media_type) == (413, "application/problem+json")


# --- whatever is sent, it never is our fault -------------------------------------------------------------------------

NASTY: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 10**30, 1.5, "", "x", "\0", "../..", "a\nb", "é" * 300, "\ud800", "'; DROP TABLE",
    [], {}, [None], {"a": {}}, str(uuid4()), "true", "3", [[[]]],
]  # fmt: skip

OF_TYPE: dict[str, list[Any]] = {
    "string": [
        "kvm",
        "x-##",
        "alice",
        "Office",
        "agent",
        "floating",
        "new name",
        "",
        "\0",
        "\ud800",
        "é" * 300,
        "a\nb",
    ],
    "integer": [0, 1, 5, 50, 1000, -1, 2**31, 2**63, 10**30],
    "number": [0.5, 1, -1.0, 1e300],
    "boolean": [True, False],
}
"""What fits the type and may still be wrong: it gets as far as the services."""


def resolved(schema: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return resolved(described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], described)
    if "anyOf" in schema:
        return resolved(schema["anyOf"][0], described)
    return schema


def fitting(schema: dict[str, Any], described: dict[str, Any], ids: list[str], dice: random.Random) -> Any:
    """Something that the schema may allow, now and then something it does not."""
    if dice.random() < 0.05:
        return dice.choice(NASTY)
    schema = resolved(schema, described)
    if "enum" in schema:
        return dice.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        wanted = schema.get("properties", {})
        return {
            name: fitting(inner, described, ids, dice)
            for name, inner in wanted.items()
            if name in schema.get("required", ()) or dice.random() < 0.2
        }
    if kind == "array":
        return [fitting(schema["items"], described, ids, dice) for _ in range(dice.randrange(3))]
    if schema.get("format") == "uuid":
        return dice.choice([*ids, str(uuid4())])
    return dice.choice(OF_TYPE[str(kind)])


@pytest.fixture
def dana(house: Estate, calling: Callers) -> Caller:
    return calling(house.dana)


@pytest.mark.timeout(3000)
@settings(max_examples=examples(10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_whatever_is_sent_is_answered_and_never_our_fault(
    house: Estate, dana: Caller, described: dict[str, Any], seed: int
) -> None:
    dice = random.Random(seed)
    operations = [(method, path) for path, methods in described["paths"].items() for method in methods]
    dice.shuffle(operations)
    for method, path in operations:
        ask_anything(house, dana, described, dice, method, path)


def ask_anything(
    house: Estate, dana: Caller, described: dict[str, Any], dice: random.Random, method: str, path: str
) -> None:
    operation = described["paths"][path][method]
    member = house.pool.members.first()
    ids = [str(row.pk) for row in (house.pool, house.desktop, house.hypervisor, house.copy, member) if row]
    address = re.sub(r"{\w+}", lambda _: dice.choice([*ids, str(uuid4()), "nonsense"]), path.removeprefix("/api/v1"))
    query = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query" and dice.random() < 0.5]
    if query:
        values = ["1", "-1", "x", "ready", "true", "", "%00", "%ff", str(10**30), *ids]
        address += "?" + "&".join(f"{name}={dice.choice(values)}" for name in query)
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    answer = dana(method.upper(), address, fitting(body, described, ids, dice) if body else None)
    assert answer.status < 500
    assert str(answer.status) in operation["responses"] or answer.status == 400, (method, address, answer)
    if answer.status >= 400:
        assert answer.media_type == "application/problem+json"
        assert answer.body["status"] == answer.status
        assert answer.body["detail"]


def test_the_manual_names_only_addresses_that_exist(described: dict[str, Any]) -> None:
    manual = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"`(GET|POST|PATCH|DELETE) (/api/v1/[\w/{}-]+)`", manual)
    assert len(named) >= 8
    assert {(method.lower(), path) for method, path in named} <= {
        (method, path) for path, methods in described["paths"].items() for method in methods
    }
