"""Waiting after failures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.domain.backoff import JITTER, delay_s

failures = st.integers(1, 10_000)


def test_without_failures_nobody_waits() -> None:
    assert delay_s(0, "a") == 0


def test_delays_double() -> None:
    assert [round(delay_s(n, "a", base_s=1) / 2 ** (n - 1) * 4) / 4 for n in (1, 2, 3)] != [0, 0, 0]
    assert delay_s(3, "a", base_s=1) > delay_s(2, "a", base_s=1) > delay_s(1, "a", base_s=1)


@given(failures, st.text(), st.floats(0.1, 60), st.floats(60, 3600))
def test_a_delay_stays_between_its_share_and_its_cap(count: int, key: str, base_s: float, cap_s: float) -> None:
    longest = min(base_s * 2.0 ** min(count - 1, 64), cap_s)
    assert longest * (1 - JITTER) <= delay_s(count, key, base_s=base_s, cap_s=cap_s) <= longest


@given(failures, st.text())
def test_the_same_row_waits_equally_long_whoever_asks(count: int, key: str) -> None:
    assert delay_s(count, key) == delay_s(count, key)


def test_many_rows_do_not_come_back_at_once() -> None:
    delays = {round(delay_s(4, f"row-{n}", base_s=10), 1) for n in range(100)}
    assert len(delays) > 50
