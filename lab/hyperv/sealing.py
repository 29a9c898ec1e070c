"""Messages sealed with the session key of NTLM or SPNEGO ([MS-WSMV] 2.2.9.1): multipart bodies with a signature."""

from __future__ import annotations

import struct

import spnego

BOUNDARY = b"--Encrypted Boundary"
PROTOCOL = b"application/HTTP-SPNEGO-session-encrypted"
CONTENT_TYPE = 'multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary"'
_OCTETS = b"\tContent-Type: application/octet-stream\r\n"


class Unreadable(Exception):
    """Sealed with another key, or not sealed as it should be."""


def unseal(context: spnego.ContextProxy, body: bytes) -> bytes:
    parts = [part for part in body.split(BOUNDARY + b"\r\n") if part]
    if len(parts) < 2 or len(parts) % 2:
        raise Unreadable
    plain = b""
    for header, payload in zip(parts[::2], parts[1::2], strict=True):
        data = payload.removesuffix(BOUNDARY + b"--\r\n").removeprefix(_OCTETS)
        try:
            length = int(header.strip().split(b"Length=")[1])
            (signature_length,) = struct.unpack("<i", data[:4])
            signature, sealed = data[4 : 4 + signature_length], data[4 + signature_length :]
            piece = context.unwrap_winrm(signature, sealed)
        except Exception as error:
            raise Unreadable from error
        if len(piece) != length:
            raise Unreadable
        plain += piece
    return plain


def seal(context: spnego.ContextProxy, plain: bytes) -> bytes:
    wrapped = context.wrap_winrm(plain)
    length = str(len(plain) + wrapped.padding_length).encode()
    return (
        BOUNDARY
        + b"\r\n\tContent-Type: "
        + PROTOCOL
        + b"\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length="
        + length
        + b"\r\n"
        + BOUNDARY
        + b"\r\n"
        + _OCTETS
        + struct.pack("<i", len(wrapped.header))
        + wrapped.header
        + wrapped.data
        + BOUNDARY
        + b"--\r\n"
    )
