"""What an administrator fills in to register a HyperCore cluster. Data only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from connectors.base import Settings, setting
from connectors.errors import Unsupported

USUAL_PORT = 443
GUEST_VNC_PORT = 5900
HIGHEST_VLAN = 4094
SMB_PORT = 445
SHARE = (
    r"(//)?(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:(?P<port>\d{1,5}))?"
    r"/(?P<share>[^/:*?\"<>|@]+)(?P<folder>/[^:*?\"<>|]*)?"
)
"""A port is for laboratories: appliances are not known to take one."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of a share."""

    host: str
    port: int
    share: str
    folders: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "//" + "/".join((self.host, self.share, *self.folders))


@dataclass(frozen=True, slots=True)
class HyperCoreSettings(Settings):
    """How to reach one cluster and whom to trust as its nodes."""

    addresses: str = setting(
        "Node addresses",
        help="Addresses of the cluster's nodes, separated by commas or spaces. HyperCore has no address of its own for "
        "the whole cluster: with several, Deskyard goes on when a node is down or being updated.",
    )
    port: int = setting("Port", default=0, help="0: the usual one (443).")
    user: str = setting("User", help="One with the roles Read, VM Create/Edit, VM Power Controls, VM Delete.")
    password: str = setting("Password", secret=True)
    ca_certificate: str = setting(
        "CA certificate",
        multiline=True,
        help="PEM; whom to trust. Nodes with certificates of their own: all of them, one after the other.",
    )
    fingerprints: str = setting(
        "Certificate fingerprints",
        multiline=True,
        help="SHA-256 fingerprints of the nodes' certificates, one a line, instead of a CA certificate. For the "
        "certificates that nodes come with, which name no address. Compare them with the nodes' own first.",
    )
    vlans: str = setting(
        "VLANs", help="Numbers of VLANs to offer besides those that machines use already, such as: 20, 30."
    )
    screen_port: int = setting(
        "Guests' VNC port",
        default=GUEST_VNC_PORT,
        help="HyperCore shows screens in its own web page only: Deskyard opens the VNC server inside the guest.",
    )
    screen_password: str = setting(
        "Guests' VNC password", secret=True, help="What the VNC servers inside the guests ask for. Empty: nothing."
    )

    share: str = setting(
        "Share for exports",
        help="//server/share or //server/share/folder: an SMB share that the cluster's nodes and Deskyard's movers "
        "reach, with room for the largest machine. HyperCore gives a machine's disks as files on such a share alone; "
        "without one, machines cannot be replicated from here.",
    )
    share_user: str = setting("Share's user", help="DOMAIN\\user or user, who may write there.")
    share_password: str = setting(
        "Share's password", secret=True, help="HyperCore is told it for each export, and may show it to administrators."
    )

    @property
    def nodes(self) -> tuple[str, ...]:
        """The addresses, in order, each once."""
        return tuple(dict.fromkeys(part for part in re.split(r"[\s,;]+", self.addresses) if part))

    @property
    def real_port(self) -> int:
        return self.port or USUAL_PORT

    @property
    def endpoint(self) -> str:
        """What messages call this cluster; holds no secret."""
        return f"HyperCore at {self.nodes[0]}" if self.nodes else "HyperCore"

    @property
    def pins(self) -> frozenset[str]:
        """The fingerprints as lower-case hexadecimal without colons."""
        lines = (line.replace(":", "").replace(" ", "").lower() for line in self.fingerprints.splitlines())
        return frozenset(line.removeprefix("sha256").removeprefix("=") for line in lines if line)

    @property
    def extra_vlans(self) -> tuple[int, ...]:
        return tuple(int(part) for part in re.split(r"[\s,;]+", self.vlans) if part)

    @property
    def place(self) -> Place | None:
        """Where the share is; None if it is not set, or is no share."""
        found = re.fullmatch(SHARE, self.share.strip().removeprefix("smb:").replace("\\", "/"))
        if found is None:
            return None
        folders = tuple(part for part in (found["folder"] or "").split("/") if part)
        if any(part in (".", "..") for part in folders):
            return None
        return Place(found["host"].strip("[]"), int(found["port"] or SMB_PORT), found["share"], folders)

    def redacted(self, text: str) -> str:
        """What the platform says, without the share's password: it is in addresses that HyperCore may repeat."""
        for secret in {self.share_password, quote(self.share_password, safe=""), quote(self.share_password)} - {""}:
            text = text.replace(secret, "•••")
        return text

    def require_complete(self) -> None:
        """Raises `Unsupported` naming the first thing that is missing or contradicts another."""
        if not self.nodes:
            raise Unsupported("Give the address of at least one node of the cluster.")
        if bad := [node for node in self.nodes if not re.fullmatch(r"[A-Za-z0-9._:\-\[\]]+", node) or "@" in node]:
            raise Unsupported(f"{bad[0]!a} is no address of a node. Give names or addresses alone, without https://.")
        if bad := [node for node in self.nodes if re.fullmatch(r"[^:\[\]]+:\d+", node)]:
            raise Unsupported(
                f"{bad[0]!a} has a port in it. Give the port in its own field: it is the same for all nodes."
            )
        if not self.user or not self.password:
            raise Unsupported("Give the user and the password of an account on the cluster.")
        if not self.ca_certificate.strip() and not self.pins:
            raise Unsupported("Say whom to trust: give a CA certificate, or fingerprints of the nodes' certificates.")
        if self.ca_certificate.strip() and self.pins:
            raise Unsupported("Give a CA certificate or fingerprints, not both.")
        if bad := [pin for pin in sorted(self.pins) if not re.fullmatch(r"[0-9a-f]{64}", pin)]:
            raise Unsupported(f"{bad[0][:20]}… is no SHA-256 fingerprint: those have 64 hexadecimal digits.")
        if not re.fullmatch(r"[\d\s,;]*", self.vlans) or any(vlan > HIGHEST_VLAN for vlan in self.extra_vlans):
            raise Unsupported(f"VLANs are numbers from 0 to {HIGHEST_VLAN}, separated by commas.")
        if not 0 < self.screen_port < 65536:
            raise Unsupported("The guests' VNC port is a number from 1 to 65535.")
        if self.share and self.place is None:
            raise Unsupported(f"{self.share!a} is no share. Give it as //server/share or //server/share/folder.")
        if self.share and not (self.share_user and self.share_password):
            raise Unsupported("Give the user and the password of an account on the share for exports.")
