"""The counts that must not grow: statements, rows read, statements a round. Times are for `make bench` alone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.prerequisites import REPOSITORY

pytestmark = pytest.mark.timeout(600)
SAME = 0.2
"""Two counts are the same if they differ by no more than this share."""

CONSOLE_BUDGET = 20
"""Statements of a console page, session and sign-in check and the head of the page included."""
API_BUDGET = 8


def measured(bench: str) -> list[dict[str, Any]]:
    """What the bench reports on small estates."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--counts", bench],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def values(figures: list[dict[str, Any]], metric: str, **params: object) -> list[float]:
    """The figures of a metric with these parameters, smallest estate first."""
    return [f["value"] for f in figures if f["metric"] == metric and params.items() <= f["params"].items()]


def are_same(counts: list[float]) -> bool:
    return len(counts) > 1 and max(counts) <= min(counts) * (1 + SAME)


@pytest.fixture(scope="module")
def claim() -> list[dict[str, Any]]:
    return measured("claim")


def test_a_claim_takes_at_most_six_statements_however_large_the_estate(claim: list[dict[str, Any]]) -> None:
    counts = values(claim, "statements")
    assert max(counts) <= 6
    assert are_same(counts), counts


def test_a_claim_reads_as_many_rows_in_a_large_estate_as_in_a_small_one(claim: list[dict[str, Any]]) -> None:
    counts = values(claim, "rows_read")
    assert are_same(counts), counts


def test_a_claim_reads_no_more_where_more_is_ready(claim: list[dict[str, Any]]) -> None:
    (few, many) = values(claim, "rows_read_by_ready")
    assert are_same([few, many]), (few, many)


def test_the_portal_asks_at_most_ten_statements_for_twenty_pools() -> None:
    counts = values(measured("portal"), "statements")
    assert len(counts) == 2
    assert max(counts) <= 10, counts


def test_lists_ask_as_many_statements_in_a_large_estate_as_in_a_small_one() -> None:
    figures = measured("lists")
    pages = {figure["params"]["page"] for figure in figures}
    assert len(pages) > 20
    for page in sorted(pages):
        small, large = values(figures, "statements", page=page)
        assert small == large, f"{page}: {small} statements, then {large}"
        assert large <= (API_BUDGET if page.startswith("api/") else CONSOLE_BUDGET), f"{page}: {large} statements"


def test_a_round_of_the_pump_asks_a_handful_of_statements_whatever_is_in_flight() -> None:
    few, many = values(measured("inflight"), "statements_a_round")
    assert few == many
    assert many <= 16, many


def test_a_hyper_v_host_starts_one_powershell_a_round_whatever_the_number_of_orders() -> None:
    counts = values(measured("hyperv_starts"), "starts_a_host_and_round")
    assert len(counts) == 8
    assert max(counts) <= 1, counts
