"""Laws that the connector's text keeps, whatever path a test takes through it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.prerequisites import REPOSITORY

FILES = sorted((REPOSITORY / "connectors" / "kvm").rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_blocks_are_never_committed_into_a_base_image(file: Path) -> None:
    """`blockCommit` without a base and without SHALLOW goes through the whole chain into the golden image."""
    for function in ast.walk(ast.parse(file.read_text())):
        if not isinstance(function, ast.FunctionDef):
            continue
        named = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
        assert not named & {"blockRebase", "blockPull"}, f"{file.name}:{function.lineno}"
        if "blockCommit" in named:
            assert "VIR_DOMAIN_BLOCK_COMMIT_SHALLOW" in named, f"{file.name}:{function.lineno}"


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.name not in ("disks.py", "refreshing.py")], ids=lambda file: str(file.name)
)
def test_nothing_waits_by_sleeping(file: Path) -> None:
    """Points are taken and released, and standbys written, by movers, which may wait for the platform; no order's way
    leads there."""
    names = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
    assert "sleep" not in names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_xml_is_never_written_by_formatting_text(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            assert "</" not in text, f"{file.name}:{node.lineno}"
            assert "/>" not in text, f"{file.name}:{node.lineno}"


RUNNERS = {"subprocess", "_posixsubprocess", "pty"}
RUNS = re.compile(
    r"system|popen|fork|forkpty|posix_spawnp?|(exec|spawn)[lv]p?e?"
    r"|create_subprocess_(exec|shell)|subprocess_(exec|shell)"
    r"|__import__|import_module"  # by which the others could be had without being named
)
TAINTS = re.compile(r"libvirt_qemu|qemu(Agent|Monitor)Command|qemuAttach")


def named(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of all that a module imports, piece by piece, and of every name and attribute that it uses."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            origin = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            for dotted in (origin, *(alias.name for alias in node.names)):
                yield from ((node.lineno, part) for part in dotted.split("."))
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def program_runs(tree: ast.Module) -> list[tuple[int, str]]:
    return [(line, name) for line, name in named(tree) if name in RUNNERS or RUNS.fullmatch(name)]


def taints(tree: ast.Module) -> list[tuple[int, str]]:
    return [(line, name) for line, name in named(tree) if TAINTS.fullmatch(name)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_no_program_is_run(file: Path) -> None:
    """Images on a remote host are made through its storage pools, never by a qemu-img of ours."""
    assert not program_runs(ast.parse(file.read_text()))


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess",
        "import subprocess as quietly",
        "from subprocess import run",
        "import os; os.system('qemu-img')",
        "from os import system",
        "from os import popen as look",
        "import os; os.posix_spawn('/usr/bin/qemu-img', [], {})",
        "import os; os.execvp('qemu-img', [])",
        "import os; os.spawnlp(0, 'qemu-img')",
        "import os; os.fork()",
        "import asyncio; asyncio.create_subprocess_exec('qemu-img')",
        "from asyncio import create_subprocess_shell",
        "from asyncio.subprocess import create_subprocess_exec",
        "loop.subprocess_exec(Protocol, 'qemu-img')",
        "import pty",
        "__import__('sub' + 'process')",
        "import importlib; importlib.import_module('sub' + 'process')",
    ],
)
def test_a_program_that_is_run_is_seen(code: str) -> None:
    assert program_runs(ast.parse(code))


@pytest.mark.parametrize("code", ["operating_system = 1", "import os; os.open('x', 0)", "pool.createXML(xml)"])
def test_what_runs_no_program_passes(code: str) -> None:
    assert not program_runs(ast.parse(code))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_no_guest_is_tainted(file: Path) -> None:
    """A domain that was sent a raw agent or monitor command is tainted for good: its owner's vendor may not help."""
    assert not taints(ast.parse(file.read_text()))


@pytest.mark.parametrize(
    "code",
    [
        "import libvirt_qemu",
        "from libvirt_qemu import qemuAgentCommand as ask",
        "libvirt_qemu.qemuMonitorCommand(domain, 'stop', 0)",
        "qemu.qemuAgentCommand(domain, '{}', 5, 0)",
    ],
)
def test_what_taints_a_guest_is_seen(code: str) -> None:
    assert taints(ast.parse(code))
