"""What the project's papers say is so: paths exist, dependencies have reasons, vendored files are the chosen ones."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from deploy import vendor
from tests.architecture.tree import ROOT, files

PATH = re.compile(r"`([\w.-]+(?:/[\w.<>*-]+)*/?)`")
SUFFIXES = (".py", ".md", ".toml", ".txt", ".sh", ".html", ".css", ".js", ".lock")


def named_paths(text: str) -> set[str]:
    """What stands in backquotes and looks like a path of the checkout."""
    names = set(PATH.findall(text))
    return {n for n in names if ("/" in n or n.endswith(SUFFIXES)) and "<" not in n and "*" not in n}


def exists(name: str) -> bool:
    """Whether the name is a path, from the top or (as the floors are called) from `broker/`; modules may lack `.py`.

    `floor/module.function` is one if the module defines the function.
    """
    module, _, function = name.rpartition(".")
    for top in (ROOT, ROOT / "broker"):
        if (top / name).exists() or (top / f"{name}.py").exists():
            return True
        file = top / f"{module}.py"
        if module and file.exists() and f"def {function}(" in file.read_text(encoding="utf-8"):
            return True
    return False


@pytest.mark.parametrize("paper", ["ARCHITECTURE.md", "README.md", "deploy/README.md"])
def test_a_paper_names_only_paths_that_exist(paper: str) -> None:
    made_by_use = ("var/", ".venv")
    missing = {
        name
        for name in named_paths((ROOT / paper).read_text(encoding="utf-8"))
        if not name.startswith(made_by_use) and not exists(name)
    }
    assert not missing


def test_a_path_that_does_not_exist_is_seen() -> None:
    assert named_paths("See `broker/nowhere.py`, `make run` and `Makefile`.") == {"broker/nowhere.py"}
    assert not exists("broker/nowhere.py")
    assert exists("domain/lifecycle")
    assert exists("services/brokering.request_desktop")
    assert not exists("services/brokering.no_such_verb")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_dependency_is_pinned_and_has_its_reason(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line and not line.startswith(("#", "-r ")):
            assert re.fullmatch(r"[\w.\[\]-]+==[\w.]+ +# \w.{10,}", line), f"{name}: {line}"


def test_every_pinned_version_is_the_one_in_the_lock() -> None:
    def canonical(line: str) -> str:
        return re.sub(r"\[.*?\]", "", line.split("#")[0].strip()).lower().replace("_", "-")

    locked = {canonical(line) for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()}
    for name in ("requirements.txt", "requirements-dev.txt"):
        pins = {canonical(line) for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if "==" in line}
        assert pins <= locked, f"{name}: run `make lock`"


@pytest.mark.parametrize("name", ["packages-run.txt", "packages-test.txt"])
def test_every_debian_package_has_its_reason(name: str) -> None:
    for line in (ROOT / "deploy" / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[a-z0-9.+-]+ +# \w.{5,}", line), f"{name}: {line}"


def test_the_front_end_files_are_the_chosen_ones() -> None:
    assert not list(vendor.faults())


def test_a_changed_front_end_file_is_seen(tmp_path: Path) -> None:
    copy = tmp_path / "vendor"
    shutil.copytree(vendor.VENDOR, copy)
    licence = next(copy.glob("htmx-2*/LICENSE"))
    licence.write_text(licence.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    (copy / "stranger-1.0").mkdir()
    assert len(list(vendor.faults(copy))) == 2


def test_no_file_names_a_package_registry() -> None:
    """Ordinary clients fetch packages as the machine has set them up; no address of a registry is ours to fix."""
    hosts = [
        ".".join(parts)
        for parts in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("npmjs", "com"),
            ("deb.debian", "org"),
            ("security.debian", "org"),
            ("snapshot.debian", "org"),
            ("archive.ubuntu", "com"),
        )
    ]
    pattern = re.compile("|".join(map(re.escape, hosts)).encode())
    assert [str(file.relative_to(ROOT)) for file in files() if pattern.search(file.read_bytes())] == []
