"""The checkout as the architecture tests read it: its files, and the calls and imports in its Python."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_OURS = {".git", "var", "node_modules", "__pycache__"}
"""Folders that are no part of the source: state, caches, and everything else whose name begins with a dot but `.ci`."""


def files(top: Path = ROOT) -> Iterator[Path]:
    """Every source file of the checkout, whether git knows it yet or not."""
    for folder, folders, names in os.walk(top):
        folders[:] = [f for f in folders if f not in NOT_OURS and (not f.startswith(".") or f == ".ci")]
        yield from (Path(folder) / name for name in sorted(names) if not name.endswith((".pyc", ".lock.d")))


def modules(folder: str, top: Path = ROOT) -> Iterator[Path]:
    """The Python files below one folder of the checkout."""
    return (file for file in files(top / folder) if file.suffix == ".py")


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names of what a module imports, also inside functions; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
