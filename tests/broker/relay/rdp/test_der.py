from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.relay.rdp import der
from broker.relay.rdp.der import Malformed

TAGS = st.integers(0, 255).filter(lambda tag: tag & 0x1F != 0x1F)


@given(st.lists(st.tuples(TAGS, st.binary(max_size=400)), max_size=6))
def test_elements_come_back_as_they_went(elements: list[tuple[int, bytes]]) -> None:
    data = b"".join(der.encode(tag, content) for tag, content in elements)
    assert list(der.elements(data)) == elements


@given(st.integers(0, 2**62))
def test_numbers_come_back_as_they_went(value: int) -> None:
    assert der.number(der.integer(value)) == value


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_stumble_or_read_beyond_them(data: bytes) -> None:
    try:
        found = list(der.elements(data))
    except Malformed:
        return
    assert sum(len(content) for _, content in found) <= len(data)


@given(TAGS, st.binary(min_size=1, max_size=300), st.data())
def test_an_element_that_is_cut_off_is_refused(tag: int, content: bytes, data: st.DataObject) -> None:
    whole = der.encode(tag, content)
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    with pytest.raises(Malformed):
        list(der.elements(cut))


@pytest.mark.parametrize("head", ["3080", "3084ffffffff", "30850000000001"])
def test_lengths_without_end_or_of_gigabytes_are_refused(head: str) -> None:
    with pytest.raises(Malformed, match="length"):
        der.whole_length(bytes.fromhex(head))


def test_a_field_that_is_there_twice_is_refused() -> None:
    twice = der.encode(der.SEQUENCE, der.encode(der.context(0), der.integer(1)) * 2)
    with pytest.raises(Malformed):
        der.fields(twice)
