"""The RFB opening against QEMU's own VNC server, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.relay import rfb
from broker.relay.closing import Closing
from tests.support.prerequisites import free_port, require_program
from tests.support.process import die_with_us


@pytest.fixture(scope="module")
def qemu_port() -> Iterator[int]:
    """A QEMU without a machine: only its VNC server, with the password `sesame12`."""
    port = free_port()
    qemu = subprocess.Popen(
        die_with_us(
            require_program("qemu-system-x86_64", "qemu-system-x86"),
            "-machine",
            "none",
            "-nodefaults",
            "-display",
            "none",
            "-object",
            "secret,id=password,data=sesame12",
            "-vnc",
            f"127.0.0.1:{port - 5900},password-secret=password",
        ),
        stdin=subprocess.DEVNULL,
    )
    time.sleep(0.3)
    yield port
    qemu.kill()
    qemu.wait()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    for _ in range(50):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.1)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def server_that_says(*lines: bytes) -> AsyncIterator[int]:
    """Says its lines whatever it is told, and hangs up when the other side does."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            writer.write(line)
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_the_right_password_opens_qemus_screen(qemu_port: int) -> None:
    async with connected(qemu_port) as (reader, writer):
        await rfb.sign_in(reader, writer, "sesame12")
        writer.write(b"\x01")
        init = await reader.readexactly(24)
        assert int.from_bytes(init[:2], "big") > 0


async def test_a_wrong_password_does_not(qemu_port: int) -> None:
    async with connected(qemu_port) as (reader, writer):
        with pytest.raises(rfb.ScreenRefused, match="password"):
            await rfb.sign_in(reader, writer, "sesame13")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "not a VNC screen"),
        ([b"RFB 003.003\n"], "old VNC version"),
        ([b"RFB 003.008\n", bytes([0]), (8).to_bytes(4, "big"), b"too many"], "no viewer"),
        ([b"RFB 003.008\n", bytes([1, 19])], "not known"),
        ([b"RFB 003"], "hung up"),
        ([b"RFB 003.008\n", bytes([1, 2]), bytes(15)], "hung up"),
    ],
)
async def test_what_is_no_screen_of_ours_is_refused_in_words(lines: list[bytes], words: str) -> None:
    async with server_that_says(*lines) as port, connected(port) as (reader, writer):
        with pytest.raises(rfb.ScreenRefused, match=words):
            await rfb.sign_in(reader, writer, "secret")


async def test_a_screen_without_a_password_is_entered_without_one() -> None:
    async with server_that_says(b"RFB 003.008\n", bytes([1, 1]), bytes(4)) as port, connected(port) as (reader, writer):
        await rfb.sign_in(reader, writer, "")


def test_a_password_counts_for_its_first_eight_characters() -> None:
    challenge = bytes(16)
    assert rfb.response("sesame12", challenge) == rfb.response("sesame12345", challenge)
    assert rfb.response("sesame12", challenge) != rfb.response("sesame1", challenge)


KEY, POINTER = bytes([4, 1, 0, 0, 0, 0, 0, 0x41]), bytes([5, 0, 0, 1, 0, 1])
OTHERS = [
    bytes(20),  # SetPixelFormat
    bytes([2, 0, 0, 2]) + (7).to_bytes(4, "big") + (0xFFFFFEC6).to_bytes(4, "big"),
    bytes([3]) + bytes(9),
    KEY,
    POINTER,
    bytes([150]) + bytes(9),
    bytes([248]) + bytes(7) + b"\x03abc",
    bytes([250, 0, 1, 2]),
    bytes([251, 0, 0, 9, 0, 9, 1, 0]) + bytes(16),
    bytes([255, 0]) + bytes(10),
]


def cut_text(text: bytes, *, is_extended: bool = False) -> bytes:
    size = -len(text) if is_extended else len(text)
    return bytes([6, 0, 0, 0]) + size.to_bytes(4, "big", signed=True) + text


@given(
    st.lists(st.sampled_from([*OTHERS, cut_text(b"secret" * 40), cut_text(b"secret", is_extended=True)]), max_size=12),
    st.lists(st.integers(1, 60), max_size=20),
)
def test_without_clipboard_cut_text_falls_by_the_way_and_everything_else_passes(
    messages: list[bytes], cuts: list[int]
) -> None:
    speech, rest, passed = rfb.Rfb(has_clipboard=False), b"\x01" + b"".join(messages), b""
    for cut in [*cuts, len(rest)]:
        passed += speech.passed(rest[:cut])
        rest = rest[cut:]
    assert passed == b"\x01" + b"".join(message for message in messages if message[0] != 6)


def test_with_a_clipboard_nothing_is_looked_at() -> None:
    assert rfb.Rfb(has_clipboard=True).passed(b"\x01" + cut_text(b"mine")) == b"\x01" + cut_text(b"mine")


def test_without_clipboard_nobody_is_told_of_the_extended_one() -> None:
    said = bytes([2, 0, 0, 2]) + (7).to_bytes(4, "big") + rfb.EXTENDED_CLIPBOARD
    assert rfb.Rfb(has_clipboard=False).passed(b"\x01" + said) == b"\x01" + said[:8] + bytes(4)


@pytest.mark.parametrize("data", [bytes([7]) + bytes(20), bytes([255, 9]) + bytes(20), bytes([2, 0, 255, 255])])
def test_without_clipboard_what_is_not_known_ends_the_stream(data: bytes) -> None:
    with pytest.raises(Closing):
        rfb.Rfb(has_clipboard=False).passed(b"\x01" + data)
