"""What an administrator fills in to register a vCenter or a stand-alone ESXi host. Data only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from connectors.base import Settings, setting
from connectors.errors import Unsupported

DEFAULT_PORT = 443
DEFAULT_SCREEN_PORT = 5900


@dataclass(frozen=True, slots=True)
class EsxiSettings(Settings):
    """How to reach one vCenter or ESXi host, and where its guests show their screens."""

    address: str = setting("Address", help="Name or address of the vCenter or of the ESXi host.")
    port: int = setting("Port", default=0, help="0: the usual one (443).")
    user: str = setting("User", help="Such as deskyard@vsphere.local, or root on a stand-alone host.")
    password: str = setting("Password", secret=True)
    ca_certificate: str = setting(
        "CA certificate",
        multiline=True,
        help="PEM; whom to trust as this endpoint. On a vCenter: the root certificates that its home page offers. "
        "Empty, and no fingerprint: whom this machine trusts anyway.",
    )
    fingerprint: str = setting(
        "Certificate fingerprint",
        help="SHA-256 of the endpoint's own certificate, for one that signed itself. Compare it at the host's own "
        "console first: it is what guards the password.",
    )
    screen_port: int = setting(
        "VNC port of guests",
        default=0,
        help="Where a VNC server inside the guests listens. 0: the usual one (5900). vSphere itself offers no VNC.",
    )
    screen_password: str = setting("VNC password of guests", secret=True, help="Of the server inside the guests.")

    @property
    def endpoint(self) -> str:
        """What messages call this endpoint; holds no secret."""
        return self.address or "vSphere"

    @property
    def real_port(self) -> int:
        return self.port or DEFAULT_PORT

    @property
    def real_screen_port(self) -> int:
        return self.screen_port or DEFAULT_SCREEN_PORT

    @property
    def pin(self) -> str:
        """The fingerprint as 64 lower-case hexadecimal digits, however it was written; empty if there is none."""
        return re.sub(r"[\s:-]|^sha-?256[:=]?", "", self.fingerprint.strip().lower().removeprefix("sha256"))

    def require_complete(self) -> None:
        """Raises `Unsupported` naming the first thing that is missing or contradicts another."""
        if not self.address:
            raise Unsupported("The address of the vCenter or ESXi host is missing.")
        if not (self.user and self.password):
            raise Unsupported("User and password are missing: vSphere lets nobody in without.")
        if self.pin and not re.fullmatch(r"[0-9a-f]{64}", self.pin):
            raise Unsupported("The fingerprint is no SHA-256: that has 64 hexadecimal digits. SHA-1 is not enough.")
        if self.ca_certificate.strip() and "BEGIN CERTIFICATE" not in self.ca_certificate:
            raise Unsupported("The CA certificate is not in PEM form: it must have a line BEGIN CERTIFICATE.")
        for label, port in (("port", self.port), ("VNC port", self.screen_port)):
            if not 0 <= port <= 65535:
                raise Unsupported(f"The {label} {port} does not exist: ports end at 65535.")
