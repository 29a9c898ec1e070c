"""What clean_demo says and asks before it removes anything; tests/deploy sees it remove real machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from broker.management.commands import clean_demo
from broker.models import Assignment, Desktop, Entitlement
from tests.broker.portal.cast import Estate, estate

pytestmark = pytest.mark.django_db


@pytest.fixture
def house(db: None) -> Estate:
    """Alice's desktop and a spare one, in two pools."""
    made = estate()
    made.make(made.open_pool("Workshop"))
    return made


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a terminal; what is written here is typed there."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        yield ours
    os.close(ours)


def refusal() -> tuple[str, str]:
    """What it printed, and why it removed nothing."""
    out = StringIO()
    with pytest.raises(CommandError) as refused:
        call_command("clean_demo", stdout=out)
    return out.getvalue(), str(refused.value)


def assert_nothing_was_touched(house: Estate) -> None:
    assert Desktop.objects.filter(state__in=("assigned", "ready")).count() == 2
    assert Entitlement.objects.count() == 2
    assert Assignment.objects.filter(until=None).count() == 1


def test_a_script_that_did_not_say_yes_is_told_what_would_go_and_stay(
    house: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        said, why = refusal()
    assert "--yes" in why
    goes, stays = said.split("This stays:")
    assert "desktops with their disks: 2, of them assigned to people: 1" in goes
    assert "2 (Office, Workshop)" in goes
    assert "accounts (4)" in stays
    assert "hypervisors (1) and templates (1)" in stays
    assert_nothing_was_touched(house)


@pytest.mark.parametrize("typed", ["no\n", "\n", "yesterday\n", "\x04"], ids=["no", "nothing", "another word", "end"])
def test_only_yes_is_yes(house: Estate, keyboard: int, typed: str) -> None:
    os.write(keyboard, typed.encode())
    said, why = refusal()
    assert "desktops with their disks: 2" in said
    assert why == "Nothing was removed."
    assert_nothing_was_touched(house)


def test_a_terminal_that_nobody_watches_holds_it_for_a_while_only(
    house: Estate, keyboard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_demo, "ASK_LIMIT_S", 0.1)
    assert refusal()[1] == "Nothing was removed."
    assert_nothing_was_touched(house)


def test_an_installation_without_anything_is_not_asked(db: None, keyboard: int) -> None:
    out = StringIO()
    call_command("clean_demo", stdout=out)
    assert out.getvalue() == "This installation has made nothing yet.\n"
