"""Laws that the connector's text keeps, whatever path a test takes through it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.prerequisites import REPOSITORY

FILES = sorted((REPOSITORY / "connectors" / "kvm").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_blocks_are_never_committed_into_a_base_image(file: Path) -> None:
    """`blockCommit` without a base and without SHALLOW goes through the whole chain into the golden image."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("blockCommit", "blockRebase", "blockPull"):
            raise AssertionError(f"{file.name}:{node.lineno}: needs VIR_DOMAIN_BLOCK_COMMIT_SHALLOW and a test")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_nothing_waits_by_sleeping(file: Path) -> None:
    names = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
    assert "sleep" not in names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_xml_is_never_written_by_formatting_text(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            assert "</" not in text, f"{file.name}:{node.lineno}"
            assert "/>" not in text, f"{file.name}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_no_program_is_run(file: Path) -> None:
    """Images on a remote host are made through its storage pools, never by a qemu-img of ours."""
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not imported & {"subprocess", "os.system", "pty"}
