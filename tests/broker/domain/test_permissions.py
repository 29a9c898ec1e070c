"""Alice owns it, Charlie is a stranger, Dana is the administrator."""

from __future__ import annotations

import pytest

from broker.domain.permissions import Act, may


@pytest.mark.parametrize("act", [Act.SEE_DESKTOP, Act.CONNECT, Act.SET_POWER, Act.RELEASE])
def test_alice_may_use_her_desktop(act: Act) -> None:
    assert may(act, is_active=True, is_staff=False, is_owner=True)


def test_alice_may_not_administer() -> None:
    assert not may(Act.ADMINISTER, is_active=True, is_staff=False, is_owner=True)


@pytest.mark.parametrize("act", list(Act))
def test_charlie_may_nothing(act: Act) -> None:
    assert not may(act, is_active=True, is_staff=False, is_owner=False)


def test_dana_may_do_all_but_look_at_alices_screen() -> None:
    assert {act for act in Act if may(act, is_active=True, is_staff=True, is_owner=False)} == set(Act) - {Act.CONNECT}


@pytest.mark.parametrize("act", list(Act))
def test_a_closed_account_may_nothing(act: Act) -> None:
    assert not may(act, is_active=False, is_staff=True, is_owner=True)
