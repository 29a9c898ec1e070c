"""Passwords for guests' accounts: nobody's before, and of a shape that Windows and Linux take."""

from __future__ import annotations

import re

from broker.hypervisors import passwords


def test_each_is_another_one_of_the_shape_that_policies_want() -> None:
    drawn = {passwords.fresh() for _ in range(300)}
    assert len(drawn) == 300
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", one) and passwords.is_mixed(one) for one in drawn)


def test_one_that_misses_a_kind_of_character_is_not_of_that_shape() -> None:
    assert not any(map(passwords.is_mixed, ("only-small-1", "ONLY-BIG-1", "No-digit", "")))
    assert passwords.is_mixed("Straw-Hat_1")
