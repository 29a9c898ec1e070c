"""What the filters make of values for people."""

from __future__ import annotations

import pytest

from broker.templatetags.deskyard import AUDITED_LENGTH, audited


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ""),
        ("", ""),
        ([], ""),
        (0, "0"),
        (True, "yes"),
        (False, "no"),
        (["Accounting", "Sales"], "Accounting, Sales"),
        ("two\nlines", "two lines"),
    ],
)
def test_a_value_of_the_audit_reads_as_people_write(value: object, words: str) -> None:
    assert audited(value) == words


def test_a_long_value_of_the_audit_is_cut() -> None:
    assert audited("x" * 5000) == "x" * AUDITED_LENGTH + " …"
