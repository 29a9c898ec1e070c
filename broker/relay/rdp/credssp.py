"""Signs in to a guest in the browser's place (CredSSP, MS-CSSP): the password stays in the relay.

Version 6 with NTLM inside, and with the binding of both sides to the guest's TLS key by hashes (MS-CSSP §3.1.5, steps 4
and 5): who sits in between cannot pass it on. Guests that know only the older, broken binding (before version 5,
CVE-2018-0886) are refused. Seen with freerdp-shadow 2.11.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from asyncio import IncompleteReadError, StreamReader, StreamWriter

import spnego
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from spnego.exceptions import SpnegoError

from broker.relay.rdp import der
from broker.relay.rdp.client_info import Account
from broker.relay.rdp.der import Malformed

VERSION = 6
LOWEST_VERSION = 5
LIMIT = 64 * 1024
_TO_SERVER = b"CredSSP Client-To-Server Binding Hash\0"
_TO_CLIENT = b"CredSSP Server-To-Client Binding Hash\0"
_VERSION, _TOKENS, _CREDENTIALS, _KEY, _ERROR, _NONCE = range(6)
_PASSWORD = 1
"""Kind of credentials: name and password."""
_ENCODING = "utf-16-le"


class NotLetIn(Exception):
    """The guest does not take this account. The message says no more than that."""


class Imposter(Exception):
    """Who answers does not hold the key of its certificate, or speaks no CredSSP that could prove it."""


async def sign_in(
    reader: StreamReader, writer: StreamWriter, *, host: str, certificate: bytes, account: Account
) -> None:
    """Pass the guest's CredSSP over its TLS. Reads not a byte beyond it. Raises `NotLetIn`, `Imposter`."""
    try:
        await _exchange(reader, writer, host=host, key=_public_key(certificate), account=account)
    except (IncompleteReadError, ConnectionError, SpnegoError) as error:
        raise NotLetIn from error
    except Malformed as fault:
        raise Imposter from fault


async def _exchange(reader: StreamReader, writer: StreamWriter, *, host: str, key: bytes, account: Account) -> None:
    context = spnego.client(account.user, account.password, hostname=host, service="TERMSRV", protocol="ntlm")
    nonce = os.urandom(32)
    writer.write(_message((_TOKENS, _tokens(context.step()))))
    answer = await _answer(reader)
    token = context.step(_token(answer))
    proof = context.wrap(_binding(_TO_SERVER, nonce, key)).data
    writer.write(_message((_TOKENS, _tokens(token)), (_KEY, _octets(proof)), (_NONCE, _octets(nonce))))
    answer = await _answer(reader)
    proven = context.unwrap(der.only(answer.get(_KEY, b""), der.OCTET_STRING)).data
    if not hmac.compare_digest(proven, _binding(_TO_CLIENT, nonce, key)):
        raise Imposter
    writer.write(_message((_CREDENTIALS, _octets(context.wrap(_credentials(account)).data))))
    await writer.drain()


def _public_key(certificate: bytes) -> bytes:
    """What the binding hashes: the SubjectPublicKey's bits, without what says of which kind they are."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not hasattr(key, "public_bytes"):
        raise Malformed("a key of an unknown kind")
    info = der.only(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), der.SEQUENCE)
    *_, (_, bits) = der.elements(info)
    return bits[1:]


def _binding(direction: bytes, nonce: bytes, key: bytes) -> bytes:
    return hashlib.sha256(direction + nonce + key).digest()


async def _answer(reader: StreamReader) -> dict[int, bytes]:
    """The guest's next message, by field. Raises `NotLetIn` for an error, `Imposter` for an old version."""
    data = await reader.readexactly(2)
    while (length := der.whole_length(data)) is None:
        data += await reader.readexactly(1)
    if length > LIMIT:
        raise Malformed("a sign-in that is too long")
    found = der.fields(data + await reader.readexactly(length - len(data)))
    if _ERROR in found:
        raise NotLetIn
    if der.number(found.get(_VERSION, b"")) < LOWEST_VERSION:
        raise Imposter
    return found


def _message(*parts: tuple[int, bytes]) -> bytes:
    """A TSRequest (MS-CSSP §2.2.1)."""
    every = ((_VERSION, der.integer(VERSION)), *parts)
    return _sequence(every)


def _sequence(parts: tuple[tuple[int, bytes], ...]) -> bytes:
    return der.encode(der.SEQUENCE, b"".join(der.encode(der.context(tag), content) for tag, content in parts))


def _octets(content: bytes) -> bytes:
    return der.encode(der.OCTET_STRING, content)


def _tokens(token: bytes | None) -> bytes:
    """NegoData: a list of one token."""
    return der.encode(der.SEQUENCE, _sequence(((0, _octets(token or b"")),)))


def _token(answer: dict[int, bytes]) -> bytes:
    listed = der.only(answer.get(_TOKENS, b""), der.SEQUENCE)
    return der.only(der.fields(listed).get(0, b""), der.OCTET_STRING)


def _credentials(account: Account) -> bytes:
    """TSCredentials with TSPasswordCreds (MS-CSSP §2.2.1.2)."""
    domain, name = account.parts
    texts = (domain, name, account.password)
    inside = _sequence(tuple((tag, _octets(text.encode(_ENCODING))) for tag, text in enumerate(texts)))
    return _sequence(((0, der.integer(_PASSWORD)), (1, _octets(inside))))
