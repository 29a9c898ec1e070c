"""Worlds for the tests of the HyperCore connector."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.hypercore import carrying, exported, work
from tests.connectors.hypercore.worlds import HyperCoreWorld, cluster_world
from tests.support.samba import SambaServer, private_samba


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time is quick, so orders may be asked after soon. How soon is nothing that a test here is about."""
    monkeypatch.setattr(work, "TASK_S", 0.05)
    monkeypatch.setattr(work, "WAIT_S", 0.1)
    monkeypatch.setattr(carrying, "SETTLE_S", 1.0)
    monkeypatch.setattr(exported, "ASK_S", 0.05)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[HyperCoreWorld]:
    """Three nodes of 9.7, with virtual time twenty times as fast."""
    with cluster_world(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def file_server() -> Iterator[SambaServer]:
    with private_samba() as server:
        yield server


@pytest.fixture
def samba(file_server: SambaServer) -> Iterator[SambaServer]:
    """Running, with an empty share."""
    file_server.start()
    yield file_server
    file_server.start()
    for path in file_server.files.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def sharing(world: HyperCoreWorld, samba: SambaServer) -> HyperCoreWorld:
    """A world whose cluster is registered with the share."""
    world.share_on(samba)
    return world
