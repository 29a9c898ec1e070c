from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.relay.closing import Closing
from broker.relay.rdp import client_info, conference, der
from broker.relay.rdp.conference import Changes
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.speech import SINGLES, Rdp
from broker.relay.rdp.x224 import Security

FRAME = (Path(__file__).parent / "ironrdp-0.7.0-connect-initial.bin").read_bytes()
"""What @devolutions/iron-remote-desktop-rdp 0.7.0 sends, as seen on the wire."""
INFO = (Path(__file__).parent / "ironrdp-0.7.0-client-info.bin").read_bytes()
CORE = FRAME.index(b"\x01\xc0\xea\x00")
EVERYTHING = Changes(asks_32_bpp=True, has_clipboard=False, chosen_security=Security.NLA)
SIGN_IN = der.encode(der.SEQUENCE, b"what CredSSP says" * 20)


def differing(changed: bytes) -> set[int]:
    return {at for at, (before, after) in enumerate(zip(FRAME, changed, strict=True)) if before != after}


def test_nothing_wanted_changes_nothing() -> None:
    assert conference.rewritten(FRAME, Changes(asks_32_bpp=False, has_clipboard=True)) == FRAME


def test_32_bits_a_pixel_are_asked_for_and_nothing_else_changes() -> None:
    changed = conference.rewritten(FRAME, Changes(asks_32_bpp=True, has_clipboard=True))
    assert changed[CORE + 140 : CORE + 142] == b"\x18\x00"
    assert changed[CORE + 142] & 0x0F == 0x0F
    assert changed[CORE + 144] & 0x02
    assert differing(changed) <= {CORE + 140, CORE + 142, CORE + 144}


def test_without_clipboard_its_channel_bears_a_name_that_nobody_serves_and_keeps_its_place() -> None:
    changed = conference.rewritten(FRAME, Changes(asks_32_bpp=False, has_clipboard=False))
    at = FRAME.index(b"cliprdr\0")
    assert b"cliprdr" not in changed
    assert changed[at : at + 8] == conference.NOBODY
    assert differing(changed) <= set(range(at, at + 8))


def test_a_carrier_is_found_however_its_name_is_written() -> None:
    other = FRAME.replace(b"cliprdr\0", b"RdpDR\0\xff\xff")
    assert b"RdpDR" not in conference.rewritten(other, EVERYTHING)


def test_the_guest_is_told_what_it_chose() -> None:
    changed = conference.rewritten(FRAME, Changes(asks_32_bpp=False, has_clipboard=True, chosen_security=Security.NLA))
    assert changed[CORE + 212 : CORE + 216] == b"\x02\0\0\0"


@given(st.data())
def test_a_frame_with_bytes_changed_keeps_its_length_or_is_refused(data: st.DataObject) -> None:
    other = bytearray(FRAME)
    for _ in range(data.draw(st.integers(1, 4))):
        other[data.draw(st.integers(0, len(other) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(conference.rewritten(bytes(other), EVERYTHING)) == len(other)
    except Malformed:
        return


def test_blocks_that_end_before_what_holds_them_are_refused_since_others_might_read_on() -> None:
    at = FRAME.index(b"Duca") + 4
    hides_its_channels = FRAME[:at] + (0x8000 | 0x10A - 20).to_bytes(2, "big") + FRAME[at + 2 :]
    with pytest.raises(Malformed, match="another length"):
        conference.rewritten(hides_its_channels, EVERYTHING)


@pytest.mark.parametrize("size", range(0, len(FRAME), 13))
def test_a_frame_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(Malformed):
        conference.rewritten(FRAME[:size], EVERYTHING)


@given(st.integers(0, 3), st.lists(st.integers(1, 200), max_size=12))
def test_messages_are_found_wherever_the_browser_cuts_them(sign_ins: int, cuts: list[int]) -> None:
    speech, rest = Rdp(EVERYTHING), SIGN_IN * sign_ins + FRAME + INFO + b"\x44\x04\x00\x10"
    passed = b""
    for cut in [*cuts, len(rest)]:
        passed += speech.passed(rest[:cut])
        rest = rest[cut:]
    changed = conference.rewritten(FRAME, EVERYTHING) + client_info.signing_in(INFO, None)
    assert passed == SIGN_IN * sign_ins + changed + b"\x44\x04\x00\x10"


def test_until_it_is_said_who_signs_in_keys_do_not_count_and_then_they_do() -> None:
    speech = Rdp(EVERYTHING)
    assert not speech.is_input(b"\x44\x04\x00\x10")
    speech.passed(FRAME + INFO)
    assert speech.is_input(b"\x44\x04\x00\x10")
    assert not speech.is_input(b"\x03\x00\x00\x10")


@pytest.mark.parametrize(
    "data",
    [
        b"\x44\x04\x00\x10",  # keys before anything else
        bytes.fromhex("030000130ee000000000000100080000000000"),  # another connection request
        b"\x30\x83\x7f\xff\xff",  # a sign-in of megabytes
        bytes.fromhex("0300ffff"),
    ],
)
def test_what_would_pass_unchanged_ends_the_stream(data: bytes) -> None:
    with pytest.raises(Closing):
        Rdp(EVERYTHING).passed(data)


GUEST = [SIGN_IN, bytes.fromhex("0300000902f0802100"), bytes.fromhex("00040000"), b"\x00\x81\x00" + bytes(253)]


@given(st.lists(st.integers(1, 300), max_size=12))
def test_the_guests_first_messages_come_to_the_browser_one_by_one(cuts: list[int]) -> None:
    speech, rest, got = Rdp(EVERYTHING), b"".join(GUEST), []
    for cut in [*cuts, len(rest)]:
        got += speech.messages(rest[:cut])
        rest = rest[cut:]
    assert got == GUEST


def test_after_them_the_guests_bytes_flow_as_they_come() -> None:
    speech = Rdp(EVERYTHING)
    assert speech.messages(GUEST[1] * SINGLES + b"\x00") == [GUEST[1]] * SINGLES + [b"\x00"]
    assert speech.messages(b"any") == [b"any"]
