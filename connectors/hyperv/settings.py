"""What an administrator fills in to register a Hyper-V host or cluster. Data only."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from ipaddress import IPv6Address

from connectors.base import Settings, setting
from connectors.errors import Unsupported

DEFAULT_PORTS = {"https": 5986, "http": 5985}
TRANSPORTS = (
    ("https", "HTTPS with the host's certificate"),
    ("http", "HTTP with sealed messages (NTLM or Kerberos)"),
)
SIGN_INS = (("ntlm", "NTLM"), ("kerberos", "Kerberos"))

HTTPS = ("transport", ("https",))

_FOLDER = re.compile(r'[A-Za-z]:\\(?:[^\\/:*?"<>|\x00-\x1f]+\\)*[^\\/:*?"<>|\x00-\x1f]*')
_PIN = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class HypervSettings(Settings):
    """How to reach a stand-alone host, or every node of one failover cluster, and how machines are made there."""

    hosts: str = setting(
        "Hosts", multiline=True, help="Name or address of the host; of a failover cluster all nodes, one a line."
    )
    transport: str = setting("Transport", default="https", choices=TRANSPORTS, help="HTTPS wherever you can.")
    port: int = setting("Port", default=0, help="0: the usual one (HTTPS 5986, HTTP 5985).")
    sign_in: str = setting("Sign-in", default="ntlm", choices=SIGN_INS, help="Kerberos needs a domain and DNS names.")
    user: str = setting("User", help="An administrator of the hosts: DOMAIN\\name, name@domain, or a local name.")
    password: str = setting("Password", secret=True, help="With Kerberos: empty if a ticket is kept for the user.")
    ca_certificate: str = setting(
        "CA certificate", multiline=True, when=HTTPS, help="PEM; the authority, or the host's own certificate."
    )
    fingerprints: str = setting(
        "Certificate fingerprints",
        multiline=True,
        when=HTTPS,
        help="SHA-256 of the certificates that the hosts show, one a line; instead of a CA. For certificates that do "
        "not name the host.",
    )
    folder: str = setting(
        "Folder",
        help="Where disks are made if an order names no storage, such as D:\\Desktops or "
        "C:\\ClusterStorage\\Volume1\\Desktops. Empty: folder Deskyard on the template's own volume.",
    )
    switch: str = setting("Switch", help="Virtual switch for machines. Empty: as their template has it.")
    vlans: str = setting(
        "VLANs",
        multiline=True,
        help="VLANs that machines may be put on, a switch a line: Switch name: 20, 30. Each becomes a network.",
    )
    screen_port: int = setting(
        "Screen port", default=5900, help="Where guests' own VNC servers listen, at the guests' addresses."
    )

    mover_address: str = setting(
        "Movers' address",
        help="Name or address at which hosts reach the machine that replicates. Empty: the one it speaks to them from.",
    )
    mover_ports: str = setting(
        "Movers' ports", help="Where movers may listen while they replicate, such as 47000-47019. Empty: any free port."
    )

    @property
    def mover_port_range(self) -> range | None:
        """None: any. Raises ValueError."""
        if not self.mover_ports.strip():
            return None
        first, _, last = self.mover_ports.partition("-")
        ports = range(int(first), int(last or first) + 1)
        if not ports or not 1 <= ports[0] <= ports[-1] <= 65535:
            raise ValueError(self.mover_ports)
        return ports

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(line.strip() for line in self.hosts.splitlines() if line.strip()))

    @property
    def real_port(self) -> int:
        return self.port or DEFAULT_PORTS.get(self.transport, 0)

    @property
    def pins(self) -> tuple[str, ...]:
        """SHA-256 fingerprints, hexadecimal, lower case."""
        found = (re.sub(r"[\s:]", "", line).lower() for line in self.fingerprints.splitlines())
        return tuple(pin for pin in found if pin)

    @property
    def vlans_of_switches(self) -> tuple[tuple[str, int], ...]:
        """Switch and VLAN. Raises ValueError for a line that is none."""
        found = []
        for line in self.vlans.splitlines():
            if not line.strip():
                continue
            switch, separator, numbers = line.rpartition(":")
            if not separator or not switch.strip():
                raise ValueError(line)
            for number in numbers.split(","):
                vlan = int(number)
                if not 1 <= vlan <= 4094:
                    raise ValueError(line)
                found.append((switch.strip(), vlan))
        return tuple(found)

    def endpoint(self, address: str) -> str:
        """The host's WinRM URL. IPv6 addresses are put in brackets."""
        host = f"[{address}]" if ":" in address else address
        return f"{self.transport}://{host}:{self.real_port}/wsman"

    def require_complete(self) -> None:
        """Raises `Unsupported` naming the first thing that is missing or contradicts another."""
        self._require_hosts()
        if self.transport not in dict(TRANSPORTS):
            raise Unsupported(f"There is no transport {self.transport!r}. Choose https or http.")
        if self.sign_in not in dict(SIGN_INS):
            raise Unsupported(f"There is no sign-in {self.sign_in!r}. Choose ntlm or kerberos.")
        if not 0 <= self.port <= 65535 or not 1 <= self.screen_port <= 65535:
            raise Unsupported("Ports are numbers from 1 to 65535 (0: the usual one).")
        if not self.user:
            raise Unsupported("A user is missing. Name an account that is an administrator of the hosts.")
        if self.sign_in == "ntlm" and not self.password:
            raise Unsupported("NTLM needs the user's password.")
        self._require_trust()
        if self.folder and not _FOLDER.fullmatch(self.folder):
            raise Unsupported(f"{self.folder!r} is no folder on a host's drive. Write it like D:\\Desktops.")
        if self.mover_address and not _is_address(self.mover_address):
            raise Unsupported(f"{self.mover_address!r} is no name and no address. Give it without a port.")
        try:
            _ = self.mover_port_range
        except ValueError as error:
            raise Unsupported("Movers' ports are written like 47000-47019.") from error
        try:
            _ = self.vlans_of_switches
        except ValueError as error:
            raise Unsupported(f"VLANs are written «Switch name: 20, 30», one switch a line, not {error!s}.") from error

    def _require_hosts(self) -> None:
        if not self.addresses:
            raise Unsupported("No host is named. Give the host's name or address; of a cluster, all nodes, one a line.")
        for address in self.addresses:
            if not _is_address(address):
                raise Unsupported(f"{address!r} is no host name and no address. Give the name alone, without a port.")

    def _require_trust(self) -> None:
        if self.transport != "https":
            return
        if bool(self.ca_certificate.strip()) == bool(self.pins):
            raise Unsupported("HTTPS needs either a CA certificate or fingerprints: one of the two, not both.")
        if self.ca_certificate.strip() and not _is_pem(self.ca_certificate):
            raise Unsupported("The CA certificate is not in PEM form (-----BEGIN CERTIFICATE----- and so on).")
        for pin in self.pins:
            if not _PIN.fullmatch(pin):
                raise Unsupported(f"{pin[:20]}… is no SHA-256 fingerprint: those are 64 hexadecimal digits.")


def _is_pem(text: str) -> bool:
    if not text.isascii():
        return False
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _is_address(text: str) -> bool:
    if ":" not in text:
        return _NAME.fullmatch(text) is not None
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
