"""Only services write: no other room of the broker saves, creates, updates or deletes a row."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, modules, parsed

WRITES = {
    f"{prefix}{verb}"
    for prefix in ("", "a")
    for verb in ("save", "create", "bulk_create", "bulk_update", "get_or_create", "update_or_create")
}
BARE_WRITES = {"delete", "adelete", "update", "aupdate"}
"""Writes only in the form a queryset or a row has: dict.update(mapping) and redis.delete(key) take arguments."""
RAW = {"cursor", "raw", "executescript"}
MAY_WRITE = {"services", "migrations"}
EXCEPTIONS = {
    ("broker/config/celery.py", "update"): "app.conf.update(...) sets Celery's options",
    ("broker/selectors/health.py", "cursor"): "SELECT 1, to learn whether the database answers",
}


def writes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, method) of every call that writes rows or opens a raw cursor."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name = node.func.attr
        if any(keyword.arg == "actor" for keyword in node.keywords):
            continue  # a service: nothing of Django's takes one
        # row.delete(), queryset.delete(), queryset.update(field=value): no positional argument.
        is_write = name in WRITES or name in RAW or (name in BARE_WRITES and not node.args)
        if is_write:
            yield node.lineno, name


def test_only_services_write() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line} calls .{name}("
        for file in modules("broker")
        if file.relative_to(ROOT / "broker").parts[0] not in MAY_WRITE
        for line, name in writes(parsed(file))
        if (file.relative_to(ROOT).as_posix(), name) not in EXCEPTIONS
    ]
    assert not found, "These belong into broker/services/:\n" + "\n".join(found)


def test_every_exception_is_still_needed() -> None:
    for (path, name), reason in EXCEPTIONS.items():
        assert reason
        assert name in {called for _, called in writes(parsed(ROOT / path))}, f"{path} no longer calls .{name}("


@pytest.mark.parametrize(
    "code",
    [
        "desktop.save()",
        "Desktop.objects.create(name='x')",
        "Desktop.objects.filter(pool=pool).update(state='gone')",
        "Desktop.objects.all().delete()",
        "await Desktop.objects.acreate(name='x')",
        "Pool.objects.get_or_create(name='x')",
        "connection.cursor()",
        "Pool.objects.raw('SELECT 1')",
    ],
)
def test_a_write_is_seen(code: str, tmp_path: Path) -> None:
    file = tmp_path / "view.py"
    file.write_text(f"async def view():\n    {code}\n")
    assert [line for line, _ in writes(parsed(file))] == [2]


@pytest.mark.parametrize(
    "code", ["context.update({'a': 1})", "redis.delete(key)", "drift.delete(actor=actor, row_id=pk)"]
)
def test_what_is_no_write_passes(code: str) -> None:
    assert not list(writes(ast.parse(code)))
