"""What people type: names of every kind pass or are refused in words; nothing is changed behind their back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.services.errors import Invalid
from broker.services.intake import Intake


def named(text: str) -> tuple[str, dict[str, str]]:
    intake = Intake()
    return intake.name("name", text), intake.faults


@pytest.mark.parametrize(
    "text",
    ["two words", 'double " quote', "it's", "../../etc/passwd", "日本語", "Büro Köln", "<b>", "a;b", "%s", "x" * 100],
)
def test_names_of_every_script_and_sign_pass_as_they_are(text: str) -> None:
    assert named(text) == (text, {})


@pytest.mark.parametrize(
    "text",
    ["", "   ", "two\nlines", "tab\there", "nul\0", "bell\a", "hidden\u200b", "turned\u202e", "half\ud800", "x" * 101],
)
def test_names_that_cannot_stand_on_one_line_are_refused_with_a_reason(text: str) -> None:
    assert named(text)[1]["name"]


def test_a_name_of_300_characters_is_told_its_length() -> None:
    assert "300" in named("x" * 300)[1]["name"]


def test_equal_looking_names_are_equal_and_trimmed() -> None:
    assert named(" Cafe\u0301 ")[0] == "Caf\u00e9"


def test_texts_keep_their_lines_and_lose_nothing_but_the_margins() -> None:
    intake = Intake()
    assert intake.text("note", " one\r\n\ttwo ") == "one\n\ttwo"
    assert not intake.faults
    intake.text("note", "bell\a")
    assert "note" in intake.faults


def test_all_faults_are_told_at_once() -> None:
    intake = Intake()
    intake.name("name", "")
    intake.whole("size", -1)
    with pytest.raises(Invalid) as refused:
        intake.refuse_faults("Nothing was done.")
    assert set(refused.value.fields) == {"name", "size"}
    assert refused.value.message == "Nothing was done."


@given(st.text(max_size=400))
def test_whatever_is_typed_gives_a_printable_line_or_a_reason(text: str) -> None:
    cleaned, faults = named(text)
    assert faults or (cleaned.isprintable() and 1 <= len(cleaned) <= 100)
