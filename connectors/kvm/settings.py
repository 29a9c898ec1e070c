"""What an administrator fills in to register a KVM host. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.base import Settings, setting
from connectors.errors import Unsupported

DEFAULT_PORTS = {"tls": 16514, "ssh": 22, "tcp": 16509}

TRANSPORTS = (
    ("local", "This machine (socket)"),
    ("tls", "TLS with certificates and password (SASL)"),
    ("ssh", "SSH with a key"),
    ("tcp", "Unencrypted TCP: for laboratories only"),
)
ACCELERATIONS = (("kvm", "KVM (hardware)"), ("qemu", "QEMU (emulation, slow)"))


LOCAL, TLS, SSH = ("transport", ("local",)), ("transport", ("tls",)), ("transport", ("ssh",))
WITH_ACCOUNT, REMOTE = ("transport", ("tls", "ssh")), ("transport", ("tls", "ssh", "tcp"))
"""For which transports a setting matters."""


@dataclass(frozen=True, slots=True)
class KvmSettings(Settings):
    """How to reach one libvirt and how its machines are made."""

    transport: str = setting(
        "Transport",
        default="local",
        choices=TRANSPORTS,
        help="How Deskyard reaches libvirt. For production: TLS or SSH.",
    )
    address: str = setting("Address", when=REMOTE, help="Name or address of the host.")
    port: int = setting("Port", default=0, when=REMOTE, help="0: the usual one (TLS 16514, SSH 22, TCP 16509).")
    socket: str = setting(
        "Socket", when=LOCAL, help="Another libvirt socket, such as a session daemon's. Empty: the system's."
    )
    user: str = setting("User", when=WITH_ACCOUNT, help="SASL name (TLS) or account (SSH).")
    password: str = setting("Password", secret=True, when=TLS, help="SASL password. Empty: certificates alone.")
    ca_certificate: str = setting("CA certificate", multiline=True, when=TLS, help="PEM; whom to trust as this host.")
    client_certificate: str = setting("Client certificate", multiline=True, when=TLS, help="PEM; who we are.")
    client_key: str = setting("Client key", secret=True, multiline=True, when=TLS, help="PEM, without a passphrase.")
    ssh_key: str = setting("SSH private key", secret=True, multiline=True, when=SSH, help="Without a passphrase.")
    known_hosts: str = setting(
        "Known hosts",
        multiline=True,
        when=SSH,
        help="The host's SSH key, as `ssh-keyscan -t ed25519 ADDRESS` prints it. Compare it with the host's own first.",
    )
    storage_pool: str = setting(
        "Storage pool", help="libvirt pool for disks where an order names none. Empty: where the template lies."
    )
    network: str = setting("Network", help="libvirt network for machines. Empty: as their template has it.")
    acceleration: str = setting(
        "Acceleration",
        default="kvm",
        choices=ACCELERATIONS,
        help="Found out by booting a tiny guest when the host is registered: what libvirt advertises is not believed.",
    )
    screen_listen: str = setting(
        "Screens listen on",
        help="Address on the host for VNC, reachable from the relay. Empty: as the template has it.",
    )
    screen_address: str = setting(
        "Screens are reached at", help="If it differs from the host's address, such as behind a tunnel."
    )
    uri: str = setting("libvirt URI", help="For laboratories: used as it is instead of the connection fields above.")

    @property
    def endpoint(self) -> str:
        """What messages call this host; holds no secret."""
        return self.uri or self.address or self.socket or "this machine"

    @property
    def real_port(self) -> int:
        return self.port or DEFAULT_PORTS.get(self.transport, 0)

    def require_complete(self) -> None:
        """Raises `Unsupported` naming the first thing that is missing or contradicts another."""
        if self.uri:
            return
        if self.acceleration not in dict(ACCELERATIONS):
            raise Unsupported(f"There is no acceleration {self.acceleration!r}. Choose kvm or qemu.")
        if self.transport not in dict(TRANSPORTS):
            raise Unsupported(f"There is no transport {self.transport!r}. Choose local, tls, ssh or tcp.")
        if self.transport != "local" and not self.address:
            raise Unsupported(f"Transport {self.transport} needs the host's address.")
        if self.transport == "tls" and not self.ca_certificate.strip():
            raise Unsupported("TLS needs the certificate of the authority that signed the host's.")
        if bool(self.client_certificate.strip()) != bool(self.client_key.strip()):
            raise Unsupported("A client certificate and its key belong together: give both or none.")
        if self.transport == "ssh" and not (self.ssh_key.strip() and self.known_hosts.strip()):
            raise Unsupported("SSH needs a private key and the host's own key (known hosts).")
