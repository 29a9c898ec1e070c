"""Rules about imports that hold for every package, also tomorrow's. The floors stand in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, imports, modules, parsed

FRAMEWORK_FREE = ("connectors", "disks", "lab")
FRAMEWORKS = {"django", "celery", "broker", "ninja", "kombu"}
GATE = "broker/hypervisors/"
"""The only folder that opens a connector."""


def _roots(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(parsed(file))}


@pytest.mark.parametrize("folder", FRAMEWORK_FREE)
def test_connectors_disks_and_lab_know_no_framework_and_no_broker(folder: str) -> None:
    found = {
        f"{file.relative_to(ROOT)}: {sorted(bad)}" for file in modules(folder) if (bad := _roots(file) & FRAMEWORKS)
    }
    assert not found


def test_no_connector_imports_another() -> None:
    platforms = {path.name for path in (ROOT / "connectors").iterdir() if (path / "__init__.py").exists()}
    assert "kvm" in platforms
    for platform in platforms:
        others = tuple(f"connectors.{other}" for other in platforms - {platform})
        for file in modules(f"connectors/{platform}"):
            assert not [name for name in imports(parsed(file)) if name.startswith(others)], file


def test_the_lab_shares_no_code_with_what_it_is_to_test() -> None:
    found = {file: bad for file in modules("lab") if (bad := _roots(file) & {"connectors", "disks", "broker"})}
    assert not found


def test_platform_packages_are_reached_only_through_the_registry() -> None:
    contract = {f"connectors.{name}" for name in ("base", "errors", "presence", "registry", "replication")}
    for file in modules("broker"):
        for name in imports(parsed(file)):
            if name.startswith("connectors."):
                assert ".".join(name.split(".")[:2]) in contract, f"{file.relative_to(ROOT)} imports {name}"


def test_only_the_gate_opens_a_connector() -> None:
    """No connector can be made without its surroundings, and only the gate knows how to make those."""
    knowing = {
        file.relative_to(ROOT).as_posix()
        for file in modules("broker")
        if "connectors.base.Surroundings" in set(imports(parsed(file)))
    }
    assert knowing
    assert all(file.startswith(GATE) for file in knowing), knowing


def test_arrows_point_down_only() -> None:
    """The contracts of pyproject.toml, so that `pytest` alone finds a broken one too."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
