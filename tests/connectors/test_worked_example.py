"""The connector that the documentation walks through keeps the contract, and the documentation quotes it as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from connectors.base import Connector, Stamp, Surroundings
from docs.examples.paper_cloud import PaperCloud
from docs.examples.paper_connector import PaperConnector, PaperSettings, stamp_of
from tests.connectors.contract import CHECKS, OURS, World, name_of
from tests.support.prerequisites import REPOSITORY

TOKEN = "paper-token-3141"


class Paper:
    """A contract's world in Paper Cloud."""

    template = "golden"
    secrets: tuple[str, ...] = (TOKEN,)
    limit_s = 5.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"{uuid4().hex}.example.net"
        self.cloud = PaperCloud.clouds[self.address] = PaperCloud(TOKEN)

    def connector(self, installation: str = OURS) -> Connector:
        return self._at(self.address, installation)

    def unreachable(self) -> Connector:
        return self._at("nowhere.example.net", OURS)

    def _at(self, address: str, installation: str) -> Connector:
        return PaperConnector(PaperSettings(address=address, token=TOKEN), Surroundings(installation, self.folder))

    def machines(self) -> Mapping[str, Stamp | None]:
        return {sheet.id: stamp_of(sheet) for sheet in self.cloud.sheets() if not sheet.is_template}

    def names(self) -> Mapping[str, str]:
        return {sheet.id: sheet.name for sheet in self.cloud.sheets() if not sheet.is_template}

    def litter(self) -> set[str]:
        return {sheet.paper for sheet in self.cloud.sheets() if not sheet.is_template}

    def restamp(self, machine: str, stamp: Stamp) -> None:
        self.cloud._change(machine, note=f"{stamp.installation} {stamp.key}")

    def remove(self, machine: str) -> None:
        self.cloud.delete(machine)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Paper]:
    made = Paper(tmp_path)
    yield made
    del PaperCloud.clouds[made.address]


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_the_worked_example_keeps_the_contract(check: Callable[[World], None], world: Paper) -> None:
    check(world)


def test_the_documentation_quotes_the_example_as_it_is() -> None:
    document = (REPOSITORY / "docs/write-a-connector.md").read_text()
    code = (REPOSITORY / "docs/examples/paper_connector.py").read_text()
    quotes = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    assert len(quotes) >= 4
    for quote in quotes:
        for part in quote.split("    ...\n"):
            assert part.strip("\n") in code, f"not in the example any more: {part}"
