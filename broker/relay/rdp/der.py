"""The small part of DER that RDCleanPath and CredSSP need: definite lengths, tags of one byte (X.690 §8.1, §10.1).

What is read comes from strangers: every length is checked against what is there, and nothing is read beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator

INTEGER, OCTET_STRING, UTF8_STRING, SEQUENCE = 0x02, 0x04, 0x0C, 0x30
HEADER_LIMIT = 5
"""Bytes of the longest header that is taken: a tag, and a length of at most three bytes behind its own length."""


class Malformed(ValueError):
    """These bytes are not what they should be. The message says where, and never repeats them."""


def context(number: int) -> int:
    """The tag byte of an EXPLICIT context tag."""
    return 0xA0 | number


def encode(tag: int, content: bytes) -> bytes:
    """One element with the shortest length there is."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def integer(value: int) -> bytes:
    """A whole number that is not negative."""
    return encode(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def whole_length(data: bytes) -> int | None:
    """Bytes of the element that begins here, header included; None while its header is not all there.

    Raises `Malformed` for lengths that are indefinite or longer than `HEADER_LIMIT` allows.
    """
    if len(data) < 2:
        return None
    first = data[1]
    if first < 0x80:
        return 2 + first
    width = first & 0x7F
    if width == 0 or 2 + width > HEADER_LIMIT:
        raise Malformed("a length of an unknown form")
    if len(data) < 2 + width:
        return None
    return 2 + width + int.from_bytes(data[2 : 2 + width], "big")


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) one after the other, until the end of `data`. Raises `Malformed` if the last one is cut."""
    while data:
        length = whole_length(data)
        if length is None or length > len(data):
            raise Malformed("an element that is cut off")
        start = 2 if data[1] < 0x80 else 2 + (data[1] & 0x7F)
        yield data[0], data[start:length]
        data = data[length:]


def only(data: bytes, tag: int) -> bytes:
    """The content of the one element that `data` consists of. Raises `Malformed`."""
    found = list(elements(data))
    if len(found) != 1 or found[0][0] != tag:
        raise Malformed(f"something else than one element of type {tag:#04x}")
    return found[0][1]


def fields(data: bytes) -> dict[int, bytes]:
    """Context tag number -> content, of a SEQUENCE of EXPLICIT fields. Raises `Malformed` for anything else, and for a
    field that is there twice."""
    found: dict[int, bytes] = {}
    for tag, content in elements(only(data, SEQUENCE)):
        number = tag & 0x1F
        if tag & 0xE0 != 0xA0 or number in found:
            raise Malformed("a field that does not belong there")
        found[number] = content
    return found


def number(data: bytes) -> int:
    """Raises `Malformed` for what is no INTEGER of at most eight bytes."""
    content = only(data, INTEGER)
    if not 1 <= len(content) <= 8:
        raise Malformed("a number of an impossible size")
    return int.from_bytes(content, "big", signed=True)


def text(data: bytes) -> str:
    """Raises `Malformed` for what is no UTF8String."""
    try:
        return only(data, UTF8_STRING).decode()
    except UnicodeDecodeError:
        raise Malformed("a text that is not UTF-8") from None
