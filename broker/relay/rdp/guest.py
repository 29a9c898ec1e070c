"""The guest's side of an RDP connection: TCP, X.224, TLS. Nothing of a user has been said to it when this is done."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from broker.relay.rdp import x224
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.x224 import Confirmation, Security
from broker.relay.streams import READ_LIMIT

ATTEMPT_S = 3
"""How long one address is given."""
PAUSE_S = 0.5


class NobodyAnswers(Exception):
    """No RDP server answered at any of the addresses."""


class Refused(Exception):
    """The guest answered, and wants another kind of security than was offered."""

    def __init__(self, confirmation: bytes, found: Confirmation) -> None:
        super().__init__()
        self.confirmation = confirmation
        self.found = found


@dataclass(frozen=True, slots=True, eq=False)
class Guest:
    """A guest that answered in RDP, with TLS on."""

    reader: StreamReader
    writer: StreamWriter
    address: str
    confirmation: bytes
    """Its X.224 message."""
    security: Security
    certificate: bytes
    """DER"""

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.certificate).hexdigest()


async def reach(addresses: Sequence[str], port: int, offered: Security) -> Guest:
    """The first of the addresses that speaks RDP; tries them in turn until somebody does, or the caller's time is up.

    A guest's agent answers before its RDP server does. Raises `Refused`; `NobodyAnswers` only for no addresses.
    """
    if not addresses:
        raise NobodyAnswers
    while True:
        for address in addresses:
            # What is not RDP may be about to become it: the guest is starting.
            with suppress(OSError, TimeoutError, IncompleteReadError, Malformed):
                return await _open(address, port, offered)
        await asyncio.sleep(PAUSE_S)


async def _open(address: str, port: int, offered: Security) -> Guest:
    writer: StreamWriter | None = None
    try:
        async with asyncio.timeout(ATTEMPT_S):
            reader, writer = await asyncio.open_connection(address, port, limit=READ_LIMIT)
            writer.write(x224.request(offered))
            confirmation = await _frame(reader)
            found = x224.read_confirmation(confirmation)
            if not found.security or not found.security & offered:
                raise Refused(confirmation, found)
            await writer.start_tls(_tls(), ssl_handshake_timeout=ATTEMPT_S)
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return Guest(reader, writer, address, confirmation, found.security, certificate)
    except BaseException:
        if writer:
            writer.close()
        raise


async def _frame(reader: StreamReader) -> bytes:
    head = await reader.readexactly(x224.HEADER)
    length = x224.frame_length(head)
    assert length is not None  # noqa: S101 - the header is all there
    return head + await reader.readexactly(length - len(head))


def _tls() -> ssl.SSLContext:
    """Guests make their certificates themselves, in any name: which one is theirs is remembered, by its hash
    (`services/guests.recognise`), and asked before anything is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
