"""Which orders of which connector have been judged, and by whom: printed after each run, kept in docs/connectors.md.

A test says it by a mark: `judges("kvm", "real libvirt", CloneMachine)`. Without orders they are those of the contract
check that the test is parametrised by, except those in `but`. An order for which no test speaks is "not judged", never
a pass; a check that did not find its order taken fails the test that spoke for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

Verdicts = dict[tuple[str, str, str], str]
"""(kind, witness, order) -> "passed" or "failed"."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--judged-to", type=Path, help="write what the collected tests judge to this file, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "judges(kind, witness, *orders, but=()): whose word it is about which orders")
    config.pluginmanager.register(Judged(), "judged-verdicts")


def claims(item: pytest.Item) -> Iterator[tuple[str, str, str]]:
    """What a test speaks for."""
    for mark in item.iter_markers("judges"):
        kind, witness, *orders = mark.args
        but = mark.kwargs.get("but", ())
        for name in sorted(order.__name__ for order in orders or _of_the_check(item) if order not in but):
            yield kind, witness, name


def _of_the_check(item: pytest.Item) -> Iterable[type[Any]]:
    from tests.connectors.contract import JUDGES

    check = item.callspec.params["check"]  # type: ignore[attr-defined]
    return JUDGES.get(check, ())


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if path := session.config.getoption("--judged-to"):
        found = sorted({claim for item in session.items for claim in claims(item)})
        path.write_text(json.dumps(found))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for claim in claims(item):
        item.user_properties.append(("judges", list(claim)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    from tests.connectors.contract import not_taken

    not_taken.clear()
    yield
    if unproven := sorted(not_taken & {name for _, _, name in claims(item)}):
        pytest.fail(f"It speaks for {', '.join(unproven)}, which the platform does not take: name it in `but`.")


class Judged:
    """Gathers verdicts from reports, which come from all workers."""

    def __init__(self) -> None:
        self.verdicts: Verdicts = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        for name, claim in report.user_properties:
            if name == "judges" and isinstance(claim, (list, tuple)):
                key = (str(claim[0]), str(claim[1]), str(claim[2]))
                before = self.verdicts.get(key, "passed")
                self.verdicts[key] = "failed" if report.failed or before == "failed" else "passed"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.verdicts:
            terminalreporter.section("connector x order x witness")
            for line in table(self.verdicts):
                terminalreporter.write_line(line)


def table(verdicts: Verdicts) -> list[str]:
    """A row an order, a column a witness, a block a connector: Markdown."""
    from connectors.registry import kinds, load

    lines: list[str] = []
    for kind in [one for one in kinds() if any(one == key[0] for key in verdicts)]:
        witnesses = sorted({key[1] for key in verdicts if key[0] == kind})
        lines += ["", f"| {kind} | {' | '.join(witnesses)} |", "|---" * (len(witnesses) + 1) + "|"]
        for order in sorted(order.__name__ for order in load(kind).takes):
            cells = [verdicts.get((kind, witness, order), "not judged") for witness in witnesses]
            lines.append(f"| {order} | {' | '.join(cells)} |")
    return lines
