"""What a failover cost: how long a user could not work, what was lost, and how soon it was back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.domain.failover import SHORT, STEPS, WORDS, Kind, Step, down_s, lost_s, recovery_s
from broker.domain.sizes import size_in_words

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: int | None) -> datetime | None:
    return None if minutes is None else NOON + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("kind", "is_done", "stopped", "answered", "finished", "minutes"),
    [
        (Kind.MOVE, False, None, None, None, None),
        (Kind.MOVE, False, 2, None, None, 18),
        (Kind.MOVE, True, 2, 7, 9, 5),
        (Kind.MOVE, False, 2, None, 9, 7),
        (Kind.EMERGENCY, True, 0, 7, 9, 7),
        (Kind.EMERGENCY, False, 0, None, 9, None),
        (Kind.TEST, True, None, 7, 9, None),
    ],
)
def test_a_user_is_held_off_from_the_stop_to_the_first_sign_of_life(
    kind: Kind, is_done: bool, stopped: int | None, answered: int | None, finished: int | None, minutes: int | None
) -> None:
    found = down_s(
        kind, is_done=is_done, stopped_at=at(stopped), answered_at=at(answered), finished_at=at(finished),
        now=NOON + timedelta(minutes=20),
    )  # fmt: skip
    assert found == (None if minutes is None else minutes * 60)


def test_a_move_loses_nothing_once_it_is_done() -> None:
    assert lost_s(Kind.MOVE, is_done=True, began_at=NOON, stopped_at=at(2), taken_at=at(3)) == 0
    assert lost_s(Kind.MOVE, is_done=False, began_at=NOON, stopped_at=at(2), taken_at=at(3)) is None


def test_what_is_lost_is_what_was_done_since_the_point() -> None:
    taken = at(-25)
    assert lost_s(Kind.EMERGENCY, is_done=False, began_at=NOON, stopped_at=at(5), taken_at=taken) == 30 * 60
    assert lost_s(Kind.TEST, is_done=True, began_at=NOON, stopped_at=None, taken_at=taken) == 25 * 60
    assert lost_s(Kind.TEST, is_done=True, began_at=NOON, stopped_at=None, taken_at=None) is None


def test_recovery_counts_from_the_stop_or_else_from_the_wish() -> None:
    assert recovery_s(began_at=NOON, stopped_at=at(4), answered_at=at(10)) == 6 * 60
    assert recovery_s(began_at=NOON, stopped_at=None, answered_at=at(10)) == 10 * 60
    assert recovery_s(began_at=NOON, stopped_at=at(4), answered_at=None) is None


def test_every_step_has_words() -> None:
    assert set(WORDS) == set(SHORT) == set(Step)
    assert {step for steps in STEPS.values() for step in steps} | {Step.TAKING_BACK} == set(Step)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"), (1023, "1023 B"), (1536, "2 KiB"), (1 << 20, "1 MiB"), (1_572_864, "1.5 MiB"),
        (150 << 20, "150 MiB"), (80 << 30, "80 GiB"), (3 << 60, "3072 PiB"),
    ],
)  # fmt: skip
def test_amounts_of_bytes_are_said_in_words(number: int, words: str) -> None:
    assert size_in_words(number) == words
