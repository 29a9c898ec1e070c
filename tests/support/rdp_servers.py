"""Real RDP servers on this machine, at an address that is not loopback: the relay follows no guest to itself.

`xrdp` takes every account and then says in a window that it reaches no session. `shadow` (FreeRDP) shows a virtual X
display to those who prove name and password before it shows anything (NLA).
"""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.support.prerequisites import free_port, require_program, require_root
from tests.support.process import die_with_us

START_S = 20
NLA_USER, NLA_PASSWORD = "vdi", "password"
NLA_HASH = "8846f7eaee8fb117ad06bdd830b7586c"
"""MD4 of the password in UTF-16, which is what Windows keeps; OpenSSL no longer offers MD4."""

XRDP = """[Globals]
ini_version=1
fork=false
port={port}
security_layer=tls
certificate={folder}/certificate.pem
key_file={folder}/key.pem
ssl_protocols=TLSv1.2, TLSv1.3
allow_channels=true
bitmap_cache=true
bitmap_compression=true
bulk_compression=true
max_bpp=32
use_fastpath=both
new_cursors=true
[Logging]
LogFile={folder}/server.log
LogLevel=INFO
EnableSyslog=false
[Channels]
cliprdr=true
rdpdr=true
[Nowhere]
name=Nowhere
lib=libvnc.so
username=ask
password=ask
ip=127.0.0.1
port=1
"""


@dataclass
class RdpServer:
    address: str
    port: int
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate."""
        certificate = x509.load_pem_x509_certificate((self.folder / "certificate.pem").read_bytes())
        return certificate.fingerprint(hashes.SHA256()).hex()

    def said(self) -> str:
        return "".join(log.read_text(errors="replace") for log in sorted(self.folder.glob("*.log")))


@contextmanager
def guest_address() -> Iterator[str]:
    """An address of this machine that is no loopback, as long as the block runs. Needs root."""
    require_root("An address for a guest")
    address = f"10.77.255.{1 + os.getpid() % 254}"
    subprocess.run(["ip", "addr", "replace", f"{address}/32", "dev", "lo"], check=True)
    try:
        yield address
    finally:
        subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)


@contextmanager
def xrdp(address: str, folder: Path) -> Iterator[RdpServer]:
    """xrdp over TLS; who signs in finds no session behind it."""
    server = RdpServer(address, free_port(), folder)
    make_certificate(folder)
    (folder / "xrdp.ini").write_text(XRDP.format(port=server.port, folder=folder))
    program = require_program("xrdp", "xrdp")
    with _running(server, program, "--nodaemon", "--config", folder / "xrdp.ini"):
        _wait_for(lambda: _listens(server.port), server)
        yield server


@contextmanager
def shadow(address: str, folder: Path) -> Iterator[RdpServer]:
    """FreeRDP's shadow of a virtual display, over NLA, with a certificate of its own: `NLA_USER`, `NLA_PASSWORD`."""
    server = RdpServer(address, free_port(), folder)
    (folder / "sam").write_text(f"{NLA_USER}:::{NLA_HASH}:::\n")
    with display(server) as screen:
        program = require_program("freerdp-shadow-cli", "freerdp2-shadow-x11")
        options = (f"/port:{server.port}", "/sec:nla", f"/sam-file:{folder}/sam")
        with _running(server, program, *options, environment={"DISPLAY": screen, "HOME": str(folder)}):
            _wait_for(lambda: _listens(server.port), server)
            yield server


@contextmanager
def display(server: RdpServer) -> Iterator[str]:
    """A virtual X display; the server chooses a free number and says it when it is there."""
    reading, writing = os.pipe()
    program = require_program("Xvfb", "xvfb")
    options = ("-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset")
    with os.fdopen(reading) as told, _running(server, program, *options, passes=(writing,)):
        os.close(writing)
        number = told.readline().strip()
        assert number, f"no X display: {server.said()[-2000:]}"
        yield f":{number}"


def make_certificate(folder: Path) -> None:
    """certificate.pem and key.pem, self-signed as guests have them."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "guest")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    certificate = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem, layout = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, layout, plain))


@contextmanager
def _running(
    server: RdpServer, *command: str | Path, environment: dict[str, str] | None = None, passes: Sequence[int] = ()
) -> Iterator[None]:
    with (server.folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(
            die_with_us(*command),
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=passes,
        )
        server.processes.append(process)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(claim: Callable[[], bool], server: RdpServer) -> None:
    deadline = time.monotonic() + START_S
    while not claim():
        ended = [process for process in server.processes if process.poll() is not None]
        assert not ended, f"an RDP server ended: {server.said()[-2000:]}"
        assert time.monotonic() < deadline, f"the RDP server does not listen: {server.said()[-2000:]}"
        time.sleep(0.05)
