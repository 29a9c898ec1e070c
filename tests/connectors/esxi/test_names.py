"""Names as vSphere keeps them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import Unsupported
from connectors.esxi import names


@pytest.mark.parametrize(
    ("plain", "wire"), [("a/b", "a%2fb"), ("50%", "50%25"), ("a\\b", "a%5cb"), ("%2f", "%252f"), ("plain", "plain")]
)
def test_three_letters_are_escaped_on_the_wire(plain: str, wire: str) -> None:
    assert names.to_wire(plain) == wire
    assert names.from_wire(wire) == plain


@given(st.text())
def test_a_name_comes_back_as_it_went(name: str) -> None:
    assert names.from_wire(names.to_wire(name)) == name


@pytest.mark.parametrize("name", ["", " ", "line\nbreak", "tab\tand\x00nul", "x" * 81, "/" * 40, " led by a blank"])
def test_what_vsphere_would_change_or_refuse_is_refused(name: str) -> None:
    with pytest.raises(Unsupported):
        names.require_usable(name)


@pytest.mark.parametrize("name", ["desk 1", "Grüße-日本", 'it\'s "quoted" & <bracketed>', "../escape", "x" * 80])
def test_what_it_keeps_is_taken(name: str) -> None:
    names.require_usable(name)


def test_an_interim_name_is_short_enough_and_tells_two_orders_apart() -> None:
    one = names.interim("x" * 80, "0a0a0a0a-0000-4000-8000-000000000001")
    other = names.interim("x" * 80, "0b0b0b0b-0000-4000-8000-000000000001")
    assert one != other
    names.require_usable(one)
