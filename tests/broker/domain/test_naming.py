"""Names of desktops."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain import naming

HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@pytest.mark.parametrize("pattern", ["office-###", "###office", "a#", "Lab-##-b", "x" * 62 + "#"])
def test_a_good_pattern_is_accepted(pattern: str) -> None:
    assert naming.validate(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "Give a naming pattern"),
        ("office", "this one has 0"),
        ("a#b#", "this one has 2"),
        ("-office-#", "hyphen"),
        ("office-#-", "hyphen"),
        ("####", "at least one letter"),
        ("12-##", "at least one letter"),
        ("x" * 63 + "#", "64"),
        ("x" * 300 + "#", "301"),
        ("two words #", "nothing else"),
        ('quote"#', "nothing else"),
        ("line\n#", "nothing else"),
        ("office-#\n", "nothing else"),
        ("../#", "nothing else"),
        ("büro-#", "nothing else"),
        ("büro-٣#", "nothing else"),
        ("a.b#", "nothing else"),
    ],
)
def test_a_bad_pattern_is_refused_in_words(pattern: str, words: str) -> None:
    assert words in (naming.validate(pattern) or "")
    with pytest.raises(ValueError, match=re.escape(words)):
        naming.Pattern(pattern)


def test_a_pattern_needs_a_number_for_every_desktop_of_its_pool() -> None:
    assert naming.validate("office-##", maximum=99) is None
    assert "add a #" in (naming.validate("office-##", maximum=100) or "")


def test_names_that_windows_would_cut_are_warned_of() -> None:
    assert naming.warn("office-####") is None
    assert "Windows" in (naming.warn("headquarters-###") or "")


def test_a_number_fills_its_digits() -> None:
    assert naming.name("office-###", 7) == "office-007"
    for number in (0, 1000, -1):
        with pytest.raises(ValueError, match=f"no number {number}"):
            naming.name("office-###", number)


def test_numbers_count_on_and_begin_anew_when_they_run_out() -> None:
    assert naming.names("pc-#", {"PC-9", "pc-1"}, last_number=7, count=3) == [(8, "pc-8"), (2, "pc-2"), (3, "pc-3")]


def test_a_name_used_last_comes_back_last() -> None:
    assert naming.names("pc-#", set(), last_number=5, count=9)[-1] == (5, "pc-5")


def test_when_all_are_taken_fewer_names_come_back() -> None:
    assert naming.names("pc-#", {f"pc-{n}" for n in range(1, 9)}, last_number=0, count=3) == [(9, "pc-9")]


@given(
    prefix=st.from_regex(r"[a-zA-Z][a-zA-Z0-9-]{0,20}", fullmatch=True),
    digits=st.integers(1, 3),
    taken=st.sets(st.integers(1, 999)),
    last=st.integers(0, 2000),
    count=st.integers(0, 40),
)
def test_names_are_free_distinct_valid_host_names(
    prefix: str, digits: int, taken: set[int], last: int, count: int
) -> None:
    pattern = prefix + "#" * digits
    used = {f"{prefix}{number:0{digits}d}" for number in taken}
    given_out = naming.names(pattern, used, last, count)
    assert len({name for _, name in given_out}) == len(given_out)
    assert not {name for _, name in given_out} & used
    assert all(HOSTNAME.fullmatch(name) and naming.name(pattern, number) == name for number, name in given_out)
    free = 10**digits - 1 - len({n for n in taken if n < 10**digits})
    assert len(given_out) == min(count, free)


@given(st.text(max_size=80))
def test_whatever_is_accepted_makes_valid_host_names(pattern: str) -> None:
    if naming.validate(pattern) is None:
        parsed = naming.Pattern(pattern)
        assert HOSTNAME.fullmatch(parsed.name(1))
        assert HOSTNAME.fullmatch(parsed.name(parsed.capacity))
