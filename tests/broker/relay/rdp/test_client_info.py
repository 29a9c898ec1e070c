from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.relay.rdp import client_info, x224
from broker.relay.rdp.client_info import Account, Start
from broker.relay.rdp.conference import Changes
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.speech import Rdp

HERE = Path(__file__).parent
FRAME = (HERE / "ironrdp-0.7.0-client-info.bin").read_bytes()
"""What @devolutions/iron-remote-desktop-rdp 0.7.0 sends for alice with the password "straw hat"."""
CONNECT_INITIAL = (HERE / "ironrdp-0.7.0-connect-initial.bin").read_bytes()
BETWEEN = bytes.fromhex("0300000c02f0800401000100")
"""Erect Domain: nobody's concern."""
FLAGS = FRAME.index(bytes.fromhex("73014b00"))
NAMES = st.text(st.characters(codec="utf-16", exclude_characters="\\\0"), min_size=1, max_size=60)


def texts(frame: bytes, flags: str = "7b014b00", count: int = 3) -> tuple[str, ...]:
    """Domain, name and password in it; program and folder too, if all five are counted."""
    at = frame.index(bytes.fromhex(flags)) + 4
    sizes = [int.from_bytes(frame[at + 2 * n : at + 2 * n + 2], "little") for n in range(5)]
    found, at = [], at + 10
    for size in sizes[:count]:
        found.append(frame[at : at + size].decode("utf-16-le"))
        assert frame[at + size : at + size + 2] == b"\0\0"
        at += size + 2
    return tuple(found)


def test_who_typed_a_password_is_signed_in_at_once_and_nothing_else_changes() -> None:
    changed = client_info.signing_in(FRAME, None)
    assert changed == FRAME[:FLAGS] + bytes.fromhex("7b014b00") + FRAME[FLAGS + 4 :]
    assert texts(changed) == ("", "alice", "straw hat")


def test_who_typed_none_meets_the_guests_own_login() -> None:
    at = FLAGS + 8
    none = bytearray(FRAME)
    none[at : at + 2] = b"\0\0"
    assert client_info.signing_in(bytes(none), None) == bytes(none)


@given(NAMES, NAMES, st.booleans())
def test_the_pools_account_takes_the_place_of_the_browsers(name: str, password: str, has_domain: bool) -> None:
    account = Account(f"CORP\\{name}" if has_domain else name, password)
    changed = client_info.signing_in(FRAME, account)
    assert texts(changed) == ("CORP" if has_domain else "", name, password)
    assert "straw hat".encode("utf-16-le") not in changed
    assert x224.frame_length(changed) == len(changed)
    assert client_info.is_client_info(changed)
    rest = FRAME[FRAME.index("straw hat".encode("utf-16-le")) + 20 :]
    assert changed.endswith(rest), "what follows the names stays"


@given(NAMES, st.text(st.characters(codec="utf-16", exclude_characters="\0"), max_size=60))
def test_a_session_is_told_what_to_start_whoever_signs_in(line: str, folder: str) -> None:
    changed = client_info.signing_in(FRAME, None, Start(line, folder))
    assert texts(changed, count=5) == ("", "alice", "straw hat", line, folder)
    assert x224.frame_length(changed) == len(changed)
    of_the_pool = client_info.signing_in(FRAME, Account("vdi", "sesame"), Start(line, folder))
    assert texts(of_the_pool, count=5) == ("", "vdi", "sesame", line, folder)
    end = FRAME.index("straw hat".encode("utf-16-le")) + 20 + 2 * 2  # two empty texts follow
    assert of_the_pool.endswith(FRAME[end:])


def test_who_typed_no_password_meets_the_guests_own_login_and_then_the_program() -> None:
    none = bytearray(FRAME)
    at, password = FLAGS + 8, "straw hat".encode("utf-16-le")
    none[at : at + 2] = b"\0\0"
    start = none.index(password)
    del none[start : start + len(password)]
    changed = client_info.signing_in(bytes(none), None, Start("xterm"))
    assert texts(changed, "73014b00", count=5) == ("", "alice", "", "xterm", "")


def test_a_program_too_long_for_the_message_is_refused() -> None:
    with pytest.raises(Malformed):
        client_info.signing_in(FRAME, None, Start("x" * 300))


def test_texts_of_another_kind_are_refused() -> None:
    other = bytearray(FRAME)
    other[FLAGS] &= ~0x10
    with pytest.raises(Malformed):
        client_info.signing_in(bytes(other), Account("vdi", "vdi"))


@given(st.data())
def test_a_frame_with_bytes_changed_is_taken_or_refused(data: st.DataObject) -> None:
    other = bytearray(FRAME)
    for _ in range(data.draw(st.integers(1, 4))):
        other[data.draw(st.integers(0, len(other) - 1))] = data.draw(st.integers(0, 255))
    try:
        if client_info.is_client_info(bytes(other)):
            client_info.signing_in(bytes(other), Account("vdi", "vdi"))
    except Malformed:
        return


def test_in_the_stream_only_that_message_is_changed() -> None:
    speech = Rdp(Changes(asks_32_bpp=False, has_clipboard=True, account=Account("vdi", "secret")))
    passed = b"".join(
        speech.passed(message) for message in (CONNECT_INITIAL, BETWEEN, FRAME, b"\x44\x04\x00\x10", FRAME)
    )
    signed_in = client_info.signing_in(FRAME, Account("vdi", "secret"))
    assert passed == CONNECT_INITIAL + BETWEEN + signed_in + b"\x44\x04\x00\x10" + FRAME
