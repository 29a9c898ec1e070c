"""The message by which an RDP client says who signs in, where the guest did not ask before (no NLA), and what the
session is to start. Pure.

Client Info PDU, MS-RDPBCGR §2.2.1.11, in an MCS Send Data Request (T.125 §11.32). IronRDP 0.7.0 never asks to be signed
in at once, and so xrdp would show its login again to somebody who has just typed name and password.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.relay.rdp import x224
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.per import per_length

_SEND_DATA = b"\x02\xf0\x80\x64"
_LENGTH_AT = x224.HEADER + len(_SEND_DATA) + 5
"""Behind initiator, channel and priority."""
_IS_INFO = 0x0040
_AUTOLOGON, _UNICODE = 0x0008, 0x0010
_FLAGS_AT, _SIZES_AT, _TEXTS_AT = 8, 12, 22
"""In the user data: its security header, a code page, the flags, the sizes of five texts, the texts."""
_ENCODING = "utf-16-le"
_TEXT_LIMIT = 512
"""Bytes of the longest of these texts (§2.2.1.11.1.1)."""
_COUNT, _PASSWORD = 5, 2
"""Texts, and which of them is the password."""


@dataclass(frozen=True, slots=True)
class Account:
    """As whom a guest is signed in to."""

    user: str
    """`name`, `DOMAIN\\name` or `name@domain`."""
    password: str = field(repr=False)

    @property
    def parts(self) -> tuple[str, str]:
        """(domain, name)"""
        domain, backslash, name = self.user.partition("\\")
        return (domain, name) if backslash else ("", self.user)


@dataclass(frozen=True, slots=True)
class Start:
    """What a session starts in place of the desktop ("alternate shell" and "working dir")."""

    line: str
    folder: str = ""


def is_client_info(frame: bytes) -> bool:
    """Whether a whole TPKT frame is the message that `signing_in` takes."""
    if frame[x224.HEADER : x224.HEADER + len(_SEND_DATA)] != _SEND_DATA:
        return False
    start, end = per_length(frame, _LENGTH_AT)
    return end == len(frame) and end - start >= _TEXTS_AT and bool(_word(frame, start) & _IS_INFO)


def signing_in(frame: bytes, account: Account | None, start: Start | None = None) -> bytes:
    """The frame with the wish to be signed in at once: as the account, or (None) as whom the browser says, if it says a
    password too. With `start` the session is that program. Raises `Malformed`."""
    begins, _ = per_length(frame, _LENGTH_AT)
    data = frame[begins:]
    flags = int.from_bytes(data[_FLAGS_AT : _FLAGS_AT + 4], "little")
    texts, ends = _texts(data)
    if not flags & _UNICODE or ends > len(data):
        raise Malformed("client data with texts of an unknown kind")
    signs_in = account is not None or bool(texts[_PASSWORD])
    if not signs_in and start is None:
        return frame
    if account is not None:
        texts[: _PASSWORD + 1] = [text.encode(_ENCODING) for text in (*account.parts, account.password)]
    if start is not None:
        texts[_PASSWORD + 1 :] = [text.encode(_ENCODING) for text in (start.line, start.folder)]
    if any(len(text) > _TEXT_LIMIT for text in texts):
        raise Malformed("an account or a program that RDP cannot carry")
    head = bytearray(data[:_TEXTS_AT])
    head[_FLAGS_AT : _FLAGS_AT + 4] = (flags | _AUTOLOGON if signs_in else flags).to_bytes(4, "little")
    for index, text in enumerate(texts):
        head[_SIZES_AT + 2 * index : _SIZES_AT + 2 * index + 2] = len(text).to_bytes(2, "little")
    told = bytes(head) + b"".join(text + b"\0\0" for text in texts) + data[ends:]
    return _framed(frame[x224.HEADER : _LENGTH_AT], told)


def _texts(data: bytes) -> tuple[list[bytes], int]:
    """Domain, name, password, program and its folder, each without its end, and where they end."""
    texts, at = [], _TEXTS_AT
    for index in range(_COUNT):
        size = _word(data, _SIZES_AT + 2 * index)
        texts.append(data[at : at + size])
        at += size + 2
    return texts, at


def _framed(head: bytes, data: bytes) -> bytes:
    length = (0x8000 | len(data)).to_bytes(2, "big")
    return b"\x03\x00" + (x224.HEADER + len(head) + 2 + len(data)).to_bytes(2, "big") + head + length + data


def _word(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")
