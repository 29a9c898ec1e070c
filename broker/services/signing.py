"""The certificate by which files for people's programs are signed, so that these can name who made them.

An installation makes one itself, which nobody trusts unasked; an administrator may bring one that the organisation's
computers trust. The private key is kept encrypted and shown to nobody.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from broker.hypervisors import sealing
from broker.models import FileSigner
from broker.services import audit
from broker.services.errors import Invalid
from broker.services.permissions import Right, require

KEY_BITS, LEAST_BITS = 3072, 2048
LIFETIME = datetime.timedelta(days=3650)
PEM_LIMIT = 64 * 1024
"""Characters of certificates, or of a key."""
_KEY = "key"
NOTHING = "Nothing was changed."


@dataclass(frozen=True, slots=True)
class Signer:
    """What may be known of the certificate."""

    certificate: x509.Certificate
    chain_length: int
    """How many come with it that vouch for it."""
    is_uploaded: bool
    changed_at: datetime.datetime

    @property
    def name(self) -> str:
        return _name(self.certificate)

    @property
    def issuer(self) -> str:
        return self.certificate.issuer.rfc4514_string()

    @property
    def expires_at(self) -> datetime.datetime:
        return self.certificate.not_valid_after_utc

    @property
    def is_expired(self) -> bool:
        return self.expires_at <= timezone.now()

    @property
    def sha1(self) -> str:
        """By which Windows' group policy names trusted publishers of .rdp files."""
        return self.certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - a name, not a proof

    @property
    def sha256(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex().upper()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


def signer() -> Signer:
    """The certificate in use; made now if there was none."""
    row = _row()
    found = x509.load_pem_x509_certificates(row.certificates.encode())
    return Signer(found[0], len(found) - 1, row.is_uploaded, row.changed_at)


def sign(data: bytes) -> bytes:
    """A detached SignedData (CMS) over the data in DER: SHA-256, no attributes, with the certificates."""
    row = _row()
    own, *others = x509.load_pem_x509_certificates(row.certificates.encode())
    key = serialization.load_pem_private_key(sealing.unseal(row.secrets)[_KEY].encode(), password=None)
    assert isinstance(key, RSAPrivateKey)  # noqa: S101 - none other was ever stored
    builder = pkcs7.PKCS7SignatureBuilder().set_data(data).add_signer(own, key, hashes.SHA256())
    for other in others:
        builder = builder.add_certificate(other)
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoAttributes]
    return builder.sign(serialization.Encoding.DER, options)


def bring(*, actor: User, certificates: str, key: str, password: str = "") -> Signer:
    """Sign by a certificate of the organisation's own from now on. Files that are out keep their signature.

    `certificates`: PEM, its own first, then those between it and the authority. `password`: of an encrypted key.
    Raises `Forbidden`, `Invalid`.
    """
    require(actor, Right.ADMINISTER)
    chain = _certificates(certificates)
    private = _private_key(key, password)
    _refuse_unfit(chain[0], private)
    return _store(actor, chain, private, is_uploaded=True)


def make_anew(*, actor: User) -> Signer:
    """Sign by a new certificate of Deskyard's own from now on. Raises `Forbidden`."""
    require(actor, Right.ADMINISTER)
    certificate, key = _self_signed()
    return _store(actor, [certificate], key, is_uploaded=False)


def _row() -> FileSigner:
    found = FileSigner.objects.first()
    if found is not None:
        return found
    certificate, key = _self_signed()
    values = _values([certificate], key, is_uploaded=False)
    # Of two who find none at once the first one's stays.
    return FileSigner.objects.get_or_create(only=True, defaults=values)[0]


def _store(actor: User, chain: list[x509.Certificate], key: RSAPrivateKey, *, is_uploaded: bool) -> Signer:
    before = signer()
    with transaction.atomic():
        values = _values(chain, key, is_uploaded=is_uploaded)
        row, _ = FileSigner.objects.update_or_create(only=True, defaults=values)
        after = Signer(chain[0], len(chain) - 1, is_uploaded, row.changed_at)
        changes = {"certificate": [before.sha256, after.sha256], "name": [before.name, after.name]}
        audit.record(actor=actor, action="files.change_signer", subject=row, changes=changes)
    return after


def _values(chain: list[x509.Certificate], key: RSAPrivateKey, *, is_uploaded: bool) -> dict[str, object]:
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "certificates": "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in chain),
        "secrets": sealing.seal({_KEY: plain.decode()}),
        "is_uploaded": is_uploaded,
        "changed_at": timezone.now(),
    }


def _self_signed() -> tuple[x509.Certificate, RSAPrivateKey]:
    key = generate_private_key(65537, KEY_BITS)
    host = urlsplit(settings.PUBLIC_URL).hostname or "localhost"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Deskyard at {host}"[:64])])
    now = timezone.now()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of clients differ
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # What Windows asks of a publisher of .rdp files: that of a server, or code signing.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
        )
    )
    return builder.sign(key, hashes.SHA256()), key


def _certificates(text: str) -> list[x509.Certificate]:
    words = "No certificates in PEM (-----BEGIN CERTIFICATE-----). Give its own first, then those that vouch for it."
    if len(text) > PEM_LIMIT:
        raise Invalid(NOTHING, {"certificates": "This is too long for certificates."})
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise Invalid(NOTHING, {"certificates": words}) from None


def _private_key(text: str, password: str) -> RSAPrivateKey:
    if len(text) > PEM_LIMIT:
        raise Invalid(NOTHING, {"key": "This is too long for a key."})
    try:
        key = serialization.load_pem_private_key(text.encode(), password.encode() if password else None)
    except TypeError:
        words = "The key is not encrypted; leave this empty." if password else "The key needs its password."
        raise Invalid(NOTHING, {"password": words}) from None
    except ValueError:
        words = "No private key in PEM (-----BEGIN PRIVATE KEY-----), or its password is not this one."
        raise Invalid(NOTHING, {"key": words}) from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < LEAST_BITS:
        raise Invalid(NOTHING, {"key": f"It must be an RSA key of {LEAST_BITS} bits at least."})
    return key


def _refuse_unfit(certificate: x509.Certificate, key: RSAPrivateKey) -> None:
    if certificate.public_key() != key.public_key():
        raise Invalid(NOTHING, {"key": "This key does not belong to the first certificate."})
    if certificate.not_valid_after_utc <= timezone.now():
        raise Invalid(NOTHING, {"certificates": "The first certificate has expired."})


def _name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()
