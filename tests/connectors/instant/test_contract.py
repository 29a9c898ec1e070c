"""The double keeps the same contract as real connectors; and on it, a broken connector fails each check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from connectors.base import Connector, ResourceShare, Stamp, Surroundings
from connectors.errors import ConnectorError
from tests.connectors.broken import FAULTS, BrokenWorld
from tests.connectors.contract import CHECKS, OURS, World, name_of
from tests.doubles.instant.connector import InstantConnector, InstantSettings
from tests.doubles.instant.world import World as InstantWorld

PASSWORD = "correct horse battery"


class Instant:
    """A contract's world on an instant one."""

    template = "template-golden"
    secrets: tuple[str, ...] = (PASSWORD,)
    limit_s = 5.0

    def __init__(self, folder: Path, latency_s: str) -> None:
        self.live = InstantWorld.make(folder / "live")
        self.live.faults.set("password", PASSWORD)
        self.dead = InstantWorld.make(folder / "dead")
        self.dead.faults.set("hang")
        self.folder = folder
        self.latency_s = latency_s
        self.opened: list[Connector] = []

    def connector(self, installation: str = OURS) -> Connector:
        return self._open(self.live, installation)

    def unreachable(self) -> Connector:
        return self._open(self.dead, OURS)

    def _open(self, world: InstantWorld, installation: str) -> Connector:
        given = InstantSettings(world=str(world.folder), password=PASSWORD, latency_s=self.latency_s)
        made = InstantConnector(given, Surroundings(installation=installation, workdir=self.folder))
        self.opened.append(made)
        return made

    def machines(self) -> Mapping[str, Stamp | None]:
        return {m.id: Stamp(m.installation, m.key) if m.key else None for m in self.live.machines()}

    def names(self) -> Mapping[str, str]:
        return {m.id: m.name for m in self.live.machines()}

    def litter(self) -> set[str]:
        return {str(row[0]) for row in self.live.rows("SELECT id FROM disk UNION SELECT id FROM snapshot")}

    def restamp(self, machine: str, stamp: Stamp) -> None:
        with self.live.change() as db:
            values = [stamp.installation, stamp.key, machine]
            db.execute("UPDATE machine SET installation = ?, key = ? WHERE id = ?", values)

    def remove(self, machine: str) -> None:
        self.live.remove_machine(machine)

    def share(self, machine: str) -> ResourceShare:
        return ResourceShare(*self.live.share(machine))

    def close(self) -> None:
        for connector in self.opened:
            connector.close()
        self.live.close()
        self.dead.close()


@pytest.fixture(params=["0", "0.2"], ids=["instant", "slow"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instant]:
    made = Instant(tmp_path, request.param)
    yield made
    made.close()


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_it_keeps_the_contract(check: Callable[[World], None], world: Instant) -> None:
    check(world)


CASES = [(fault, check) for fault, checks in FAULTS.items() for check in checks]


@pytest.mark.parametrize(("fault", "check"), CASES, ids=[f"{fault}-{name_of(check)}" for fault, check in CASES])
def test_a_broken_connector_fails_its_check(fault: str, check: Callable[[World], None], tmp_path: Path) -> None:
    made = Instant(tmp_path, "0.2")
    try:
        with pytest.raises((AssertionError, ConnectorError)):
            check(BrokenWorld(made, fault))
    finally:
        made.close()


def test_every_check_has_been_seen_to_fail() -> None:
    assert set(CHECKS) == {check for checks in FAULTS.values() for check in checks}
