"""Every verb that somebody does asks whether they may: no public service takes an actor and leaves that to doors."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.tree import modules, parsed

ASKS = {"require", "has"}
WHO = {"actor", "user"}
EXCEPTIONS = {
    "approvals.let_through": "a step of change_pool, in its transaction",
    "audit.entry": "builds the row of what a verb that asked does",
    "audit.record": "writes down what a verb that asked does",
    "desktops.retire": "a step of retire_desktop, and what pools do by themselves",
    "power.restart": "a step of presence.log_off, and what the timers of sessions do by themselves",
    "recovery.order_landing": "a step of verbs that asked: of materialise, of failovers and of publications",
    "recovery.queue_verification": "a step of verify_point, and what policies do by themselves",
    "replication_runs.queue": "a step of run_now, of failovers and publications, and what policies do by themselves",
}
"""Public functions that take an actor and ask nothing, each with its reason."""


def silent(trees: dict[str, ast.Module]) -> set[str]:
    """`module.function` of whatever public takes an actor and asks nothing, neither itself nor by handing the actor to
    something that asks. Modules are known by their names."""
    asking: set[str] = set()
    while grown := set(_newly_asking(trees, asking)) - asking:
        asking |= grown
    public = {
        f"{module}.{function.name}"
        for module, tree in trees.items()
        for function in _functions(tree)
        if not function.name.startswith("_") and "actor" in _parameters(function)
    }
    return public - asking


def _newly_asking(trees: dict[str, ast.Module], asking: set[str]) -> Iterator[str]:
    for module, tree in trees.items():
        near = {name.partition(".")[2] for name in asking if name.startswith(f"{module}.")}
        for function in _functions(tree):
            if _hands_its_actor_to(function, ASKS | asking | near):
                yield f"{module}.{function.name}"


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in tree.body if isinstance(node, ast.FunctionDef))


def _parameters(function: ast.FunctionDef) -> set[str]:
    return {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}


def _hands_its_actor_to(function: ast.FunctionDef, asking: set[str]) -> bool:
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    return any(_called(call.func) in asking and WHO & _handed(call) for call in calls)


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Name):
        return function.id
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return f"{function.value.id}.{function.attr}"
    return ""


def _handed(call: ast.Call) -> set[str]:
    values = (*call.args, *(keyword.value for keyword in call.keywords))
    return {value.id for value in values if isinstance(value, ast.Name)}


def services() -> dict[str, ast.Module]:
    return {file.stem: parsed(file) for file in modules("broker/services")}


def test_every_public_verb_asks_for_a_right() -> None:
    found = silent(services()) - set(EXCEPTIONS)
    assert not found, "These take an actor and never call require(actor, Right.X):\n" + "\n".join(sorted(found))


def test_every_exception_is_still_needed() -> None:
    assert all(EXCEPTIONS.values())
    assert set(EXCEPTIONS) <= silent(services())


@pytest.mark.parametrize(
    "code",
    [
        "def close(*, actor, pool): pool.save()",
        "def close(*, actor, pool): audit.record(actor=actor, action='pool.close')",
        "def close(*, actor, pool): require(owner, Right.OPERATE)",
        "def close(*, actor, pool): _look(pool)\ndef _look(pool): require(somebody, Right.OPERATE)",
    ],
)
def test_a_verb_that_asks_nothing_is_seen(code: str) -> None:
    assert silent({"pools": ast.parse(code)}) == {"pools.close"}


@pytest.mark.parametrize(
    "code",
    [
        "def close(*, actor, pool): require(actor, Right.OPERATE)",
        "def close(*, actor, pool):\n    if not has(actor, Right.SERVE): raise Missing",
        "def close(*, actor, pool): _mine(actor, pool)\ndef _mine(actor, pool): require(actor, Right.OPERATE)",
        "def close(*, actor, pool): pools._mine(actor, pool)\ndef _mine(actor, pool): require(actor, Right.OPERATE)",
        "def _close(*, actor, pool): pool.save()",
        "def close(*, pool): pool.save()",
    ],
)
def test_what_asks_or_need_not_passes(code: str) -> None:
    assert not silent({"pools": ast.parse(code)})
