from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.relay.rdp import x224
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.x224 import Confirmation, Security

CHOSE_TLS = bytes.fromhex("030000130ed000001234000200080001000000")
CHOSE_NLA = bytes.fromhex("030000130ed000001234000200080002000000")
WANTS_NLA = bytes.fromhex("030000130ed000001234000300080005000000")
OLD = bytes.fromhex("0300000b06d00000123400")
IRONRDP = bytes.fromhex("0300002c27e00000000000") + b"Cookie: mstshash=alice\r\n" + bytes.fromhex("010008000b000000")


def test_our_request_is_the_one_of_the_specification() -> None:
    assert x224.request(Security.TLS | Security.NLA).hex() == "030000130ee000000000000100080003000000"


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (CHOSE_TLS, Confirmation(Security.TLS)),
        (CHOSE_NLA, Confirmation(Security.NLA)),
        (WANTS_NLA, Confirmation(None, 5)),
        (OLD, Confirmation(Security.PLAIN)),
    ],
)
def test_a_guests_answer_says_what_it_chose_or_why_it_refuses(message: bytes, found: Confirmation) -> None:
    assert x224.read_confirmation(message) == found


def test_a_browsers_request_is_read_past_its_cookie() -> None:
    message = IRONRDP[:2] + len(IRONRDP).to_bytes(2, "big") + bytes([len(IRONRDP) - 5]) + IRONRDP[5:]
    assert x224.asked_for(message) == Security.TLS | Security.NLA | Security.NLA_EX
    assert x224.asked_for(bytes.fromhex("0300000b06e00000000000")) == Security.PLAIN


def test_another_choice_is_told_without_another_change() -> None:
    assert x224.telling(CHOSE_NLA, Security.TLS) == CHOSE_TLS


@given(st.binary(max_size=64) | st.binary(max_size=60).map(lambda tail: b"\x03\x00\x00" + tail))
def test_no_bytes_make_the_readers_stumble(data: bytes) -> None:
    for read in (x224.read_confirmation, x224.asked_for, x224.frame_length):
        try:
            read(data)
        except Malformed:
            continue


@pytest.mark.parametrize("head", [b"HTTP", b"RFB 003.008\n", bytes.fromhex("03000003"), bytes.fromhex("0300ffff")])
def test_what_is_no_frame_or_an_impossible_one_is_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        x224.frame_length(head)
