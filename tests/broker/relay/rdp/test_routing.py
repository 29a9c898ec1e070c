"""The first message of a Remote Desktop program: nothing but one with a ticket is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.relay.rdp import routing, x224
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.x224 import Security
from tests.broker.relay.doors import first_message

TICKET = "Aa0_-" * 8
FREERDP = (
    bytes.fromhex("0300002a25e00000000000") + b"Cookie: msts=T-0123456789abcd\r\n" + bytes.fromhex("0100080003000000")
)
FREERDP = bytes([3, 0, 0, len(FREERDP), len(FREERDP) - 5]) + FREERDP[5:]
"""What FreeRDP 2.11 sends for a file with `loadbalanceinfo:s:Cookie: msts=T-0123456789abcd`."""


def test_the_ticket_is_taken_out_and_the_guest_gets_what_is_left() -> None:
    found = routing.read(FREERDP)
    assert found.ticket == "T-0123456789abcd"
    assert found.request == x224.request(Security.TLS | Security.NLA)
    assert found.asked == Security.TLS | Security.NLA


def test_what_follows_the_wish_for_security_goes_on_to_the_guest() -> None:
    correlation = bytes([6, 0, 36, 0]) + bytes(range(32))
    found = routing.read(first_message(TICKET, Security.NLA, correlation))
    assert found.request.endswith(bytes([1, 0, 8, 0, 2, 0, 0, 0]) + correlation)
    assert x224.frame_length(found.request) == len(found.request) == found.request[4] + 5
    assert found.asked == Security.NLA


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        x224.request(Security.TLS),
        first_message("short"),
        first_message("with blank" * 3),
        first_message(TICKET)[:-1],
        FREERDP[:4] + bytes([FREERDP[4] - 8]) + FREERDP[5:],
        first_message(TICKET) + b"x",
        first_message(TICKET).replace(b"\xe0", b"\xd0", 1),
    ],
)
def test_what_is_no_request_with_a_ticket_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        routing.read(data)


def test_no_length_beyond_the_limit_is_waited_for() -> None:
    for head in (b"\x03\x00\xff\xff", b"\x03\x00\x01\x04", b"\x03\x00\x00\x0a", b"\x02\x00\x00\x2a"):
        with pytest.raises(Malformed):
            routing.length_of(head)


@given(
    st.one_of(st.binary(max_size=300), st.builds(lambda head, rest: head + rest, st.just(FREERDP[:11]), st.binary()))
)
def test_any_bytes_are_either_a_request_that_fits_or_refused(data: bytes) -> None:
    try:
        found = routing.read(data)
    except Malformed:
        return
    assert found.ticket.encode() in data
    assert len(found.request) < len(data) <= routing.LIMIT


@given(st.integers(0, len(FREERDP) - 1), st.integers(0, 255))
def test_a_request_with_a_byte_changed_is_refused_or_still_one(at: int, value: int) -> None:
    changed = bytearray(FREERDP)
    changed[at] = value
    try:
        found = routing.read(bytes(changed))
    except Malformed:
        return
    assert x224.frame_length(found.request) == len(found.request)
