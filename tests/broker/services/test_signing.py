"""By whom files are signed, and that anybody can check it."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from broker.hypervisors import sealing
from broker.models import AuditEntry, FileSigner
from broker.services import hypervisors, signing
from broker.services.errors import Forbidden, Invalid
from tests.broker.portal.cast import Estate, estate
from tests.support.prerequisites import require_program

pytestmark = pytest.mark.django_db
PEM = serialization.Encoding.PEM


@pytest.fixture
def house(db: None) -> Estate:
    return estate()


def made(
    name: str, by: tuple[str, rsa.RSAPrivateKey] | None = None, *, days: int = 30, vouches: bool = True
) -> tuple[str, rsa.RSAPrivateKey]:
    """A certificate in PEM and its key; self-signed unless `by` an authority. `vouches`: whether it is one itself."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = x509.load_pem_x509_certificate(by[0].encode()).subject if by else subject
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=60))
    builder = builder.not_valid_after(now + datetime.timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=vouches, path_length=None), critical=True)
    certificate = builder.sign(by[1] if by else key, hashes.SHA256())
    return certificate.public_bytes(PEM).decode(), key


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: str = "") -> str:
    how = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, how).decode()


def check(folder: Path, cms: bytes, data: bytes, authority: str) -> subprocess.CompletedProcess[bytes]:
    """What OpenSSL says of a signature."""
    for name, content in (("cms", cms), ("data", data), ("authority", authority.encode())):
        (folder / name).write_bytes(content)
    openssl = require_program("openssl", "openssl")
    return subprocess.run(
        [
            openssl, "cms", "-verify", "-inform", "DER", "-in", folder / "cms", "-content", folder / "data", "-binary",
            "-CAfile", folder / "authority", "-purpose", "any",
        ],
        capture_output=True,
    )  # fmt: skip


def test_an_installation_makes_a_certificate_of_its_own_and_keeps_it(house: Estate) -> None:
    first = signing.signer()
    assert (first.name, first.is_uploaded, first.is_expired) == ("Deskyard at 127.0.0.1", False, False)
    assert signing.signer().sha256 == first.sha256
    assert FileSigner.objects.count() == 1


def test_openssl_accepts_a_signature_over_what_was_signed_and_over_nothing_else(house: Estate, tmp_path: Path) -> None:
    own = FileSigner.objects.get().certificates if signing.signer() else ""
    cms = signing.sign(b"what was signed")
    assert check(tmp_path, cms, b"what was signed", own).returncode == 0
    assert b"what was signed" not in cms, "the signature is not detached"
    assert b"Verification failure" in check(tmp_path, cms, b"what was changed", own).stderr


def test_an_organisations_own_certificate_signs_with_those_that_vouch_for_it(house: Estate, tmp_path: Path) -> None:
    root, root_key = made("Root")
    middle, middle_key = made("Middle", (root, root_key))
    own, key = made("desk.example", (middle, middle_key), vouches=False)
    found = signing.bring(actor=house.dana, certificates=own + middle, key=pem(key, "a secret"), password="a secret")
    assert (found.name, found.chain_length, found.is_uploaded) == ("desk.example", 1, True)
    assert check(tmp_path, signing.sign(b"data"), b"data", root).returncode == 0


def test_the_private_key_is_kept_encrypted_and_written_down_nowhere(house: Estate) -> None:
    own, key = made("desk.example")
    signing.bring(actor=house.dana, certificates=own, key=pem(key))
    row = FileSigner.objects.get()
    assert b"PRIVATE KEY" not in bytes(row.secrets)
    assert "PRIVATE" not in row.certificates
    entry = AuditEntry.objects.get(action="files.change_signer")
    assert (entry.actor, entry.changes["name"][1]) == (house.dana, "desk.example")
    assert "PRIVATE" not in str(entry.changes)


def test_its_key_is_encrypted_anew_with_the_others(house: Estate, settings: object) -> None:
    signing.signer()
    before = bytes(FileSigner.objects.get().secrets)
    hypervisors.rotate_secrets()
    row = FileSigner.objects.get()
    assert bytes(row.secrets) != before
    assert sealing.unseal(row.secrets)["key"].startswith("-----BEGIN PRIVATE KEY-----")


def test_what_does_not_belong_together_or_is_unfit_is_said_in_words(house: Estate) -> None:
    own, key = made("desk.example")
    old, old_key = made("old.example", days=-1)
    _, other = made("other.example")
    curve = ec.generate_private_key(ec.SECP256R1())
    before = signing.signer().sha256
    wrong = [
        ({"certificates": "nonsense", "key": pem(key)}, "certificates"),
        ({"certificates": "x" * 70_000, "key": pem(key)}, "certificates"),
        ({"certificates": own, "key": "nonsense"}, "key"),
        ({"certificates": own, "key": pem(other)}, "key"),
        ({"certificates": own, "key": pem(curve)}, "key"),
        ({"certificates": own, "key": pem(key, "secret")}, "password"),
        ({"certificates": own, "key": pem(key), "password": "needless"}, "password"),
        ({"certificates": old, "key": pem(old_key)}, "certificates"),
    ]
    for values, field in wrong:
        with pytest.raises(Invalid) as refused:
            signing.bring(actor=house.dana, **values)
        assert list(refused.value.fields) == [field]
    assert signing.signer().sha256 == before


def test_only_administrators_change_who_signs(house: Estate) -> None:
    own, key = made("desk.example")
    with pytest.raises(Forbidden):
        signing.bring(actor=house.alice, certificates=own, key=pem(key))
    with pytest.raises(Forbidden):
        signing.make_anew(actor=house.alice)
    first = signing.signer().sha256
    assert signing.make_anew(actor=house.dana).sha256 != first
