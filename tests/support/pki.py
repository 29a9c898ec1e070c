"""Certificates of a laboratory's own authority, in the files and under the names that libvirt's `pkipath` expects."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Authority:
    """A certificate authority that lives for one test run."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def issue_server(self, folder: Path, name: str, address: str, lifetime: datetime.timedelta = LIFETIME) -> None:
        """Writes cacert.pem, servercert.pem and serverkey.pem for a host of that name and IP address.

        With a negative lifetime of less than an hour the certificate was valid and has expired.
        """
        names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))])
        self._issue(folder, "server", name, ExtendedKeyUsageOID.SERVER_AUTH, names, lifetime)

    def issue_client(self, folder: Path, name: str) -> None:
        """Writes cacert.pem, clientcert.pem and clientkey.pem."""
        self._issue(folder, "client", name, ExtendedKeyUsageOID.CLIENT_AUTH, None, LIFETIME)

    def _issue(
        self,
        folder: Path,
        role: str,
        name: str,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
        lifetime: datetime.timedelta,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begin(name, self.certificate.subject, key, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cacert.pem").write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{role}cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file = folder / f"{role}key.pem"
        key_file.touch(mode=0o600)
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def new_authority(name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _begin(name, subject, key, LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return Authority(builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)


def _begin(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + lifetime)
    )
