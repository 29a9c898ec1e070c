"""Lengths of time, as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.spans import roughly, span_in_words, span_of


@given(st.integers(0, 10**10))
def test_what_is_said_is_read_back(seconds: int) -> None:
    assert span_of(span_in_words(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15 min", 900), ("15m", 900), ("4h", 14_400), ("1 h 30 min", 5400), ("2 Days, 3 hours", 183_600),
        (" 90 sec ", 90), ("1 day", 86_400), ("5minutes", 300),
    ],
)  # fmt: skip
def test_people_may_write_it_in_their_way(text: str, seconds: int) -> None:
    assert span_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "often", "15", "-15 min", "1.5 h", "15 parsecs", "1 h and a bit", "h", "١٥ fortnights"]
)
def test_what_is_no_length_of_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 15 min"):
        span_of(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (289, "4 min 49 s"),
        (3661, "1 h 1 min"),
        (187_200, "2 days 4 h"),
        (90_061, "1 day 1 h"),
    ],
)
def test_what_was_measured_is_told_with_two_units_at_most(seconds: float, words: str) -> None:
    assert roughly(seconds) == words
