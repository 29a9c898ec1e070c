"""Who may what by their role. Charlie has none; Dana is Django's staff, and nobody made her less."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from broker.domain.permissions import MEANS, NAMES, WORDS, Right, Role, has, least, rights_of, role_of


def account(role: Role | None = None, *, is_staff: bool = True, is_active: bool = True) -> Any:
    narrowed = SimpleNamespace(role=role.value) if role else None
    return SimpleNamespace(is_active=is_active, is_staff=is_staff, staff_role=narrowed)


def test_staff_that_nobody_narrowed_are_administrators() -> None:
    assert role_of(account()) is Role.ADMINISTRATOR


@pytest.mark.parametrize("role", list(Role))
def test_a_role_is_what_its_row_says(role: Role) -> None:
    assert role_of(account(role)) is role


@pytest.mark.parametrize("right", list(Right))
def test_charlie_may_nothing(right: Right) -> None:
    assert not has(account(is_staff=False), right)


@pytest.mark.parametrize("role", list(Role))
def test_a_row_that_was_left_gives_no_role_to_who_is_no_longer_staff(role: Role) -> None:
    assert role_of(account(role, is_staff=False)) is None


@pytest.mark.parametrize("right", list(Right))
def test_a_closed_account_may_nothing(right: Right) -> None:
    assert not has(account(is_active=False), right)


def test_each_role_may_all_that_the_next_narrower_may_and_more() -> None:
    for narrowest in (Role.HELP_DESK, Role.AUDITOR):
        for wider, narrower in pairwise([Role.ADMINISTRATOR, Role.OPERATOR, narrowest]):
            assert rights_of(wider) > rights_of(narrower)


def test_who_helps_people_reads_nothing_but_what_that_takes() -> None:
    assert rights_of(Role.HELP_DESK) == {Right.SEE, Right.SERVE}


def test_an_auditor_sees_and_does_nothing_else() -> None:
    assert rights_of(Role.AUDITOR) == {Right.SEE, Right.REVIEW}


@pytest.mark.parametrize(
    ("right", "role"),
    [
        (Right.REVIEW, Role.AUDITOR),
        (Right.SERVE, Role.HELP_DESK),
        (Right.OPERATE, Role.OPERATOR),
        (Right.ADMINISTER, Role.ADMINISTRATOR),
    ],
)
def test_a_refusal_names_the_narrowest_role_that_may(right: Right, role: Role) -> None:
    assert least(right) is role


def test_every_role_has_a_name_and_is_told_in_words() -> None:
    assert set(WORDS) == set(Right)
    assert set(NAMES) == set(MEANS) == set(Role)
