"""What an administrator fills in to register a Prism Central. Data only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from connectors.base import Settings, setting
from connectors.errors import Unsupported

SIGN_IN = (("password", "User and password"), ("api_key", "API key of a service account"))
WITH_PASSWORD, WITH_KEY = ("sign_in", ("password",)), ("sign_in", ("api_key",))

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class NutanixSettings(Settings):
    """How to reach one Prism Central and which of its machines are golden images."""

    address: str = setting("Address", help="Name or address of Prism Central (not of a cluster's Prism Element).")
    port: int = setting("Port", default=9440)
    sign_in: str = setting("Sign in with", default="password", choices=SIGN_IN)
    user: str = setting("User", when=WITH_PASSWORD)
    password: str = setting("Password", secret=True, when=WITH_PASSWORD)
    api_key: str = setting("API key", secret=True, when=WITH_KEY, help="Of an IAM service account.")
    ca_certificate: str = setting(
        "CA certificate",
        multiline=True,
        help="PEM; whom to trust as this Prism Central. Empty, without a fingerprint: the system's authorities.",
    )
    fingerprint: str = setting(
        "Certificate fingerprint",
        help="SHA-256 of Prism Central's own certificate, in hexadecimal: nothing is sent to a server that shows "
        "another one.",
    )
    cluster: str = setting("Cluster", help="Name or id of one cluster to use. Empty: all behind this Prism Central.")
    template_category: str = setting(
        "Category of golden images",
        help="Such as Deskyard:Template. Empty: every machine that is off and was not made by Deskyard may be one.",
    )
    screen_port: int = setting(
        "VNC port in the guest",
        default=5900,
        help="Screens are shown by a VNC server in the guest. 0: desktops have none.",
    )
    listing_lag_s: int = setting(
        "Seconds until new machines are listed",
        default=30,
        help="A clone takes its time, and Prism Central may list a new machine late: for so long the absence of what a "
        "lost order made is not believed.",
    )

    @property
    def endpoint(self) -> str:
        """What messages call this Prism Central; holds no secret."""
        return f"{self.address}:{self.port}"

    @property
    def account(self) -> str:
        """Who signs in, for telling accounts apart; holds no secret."""
        return self.user if self.sign_in == "password" else sha256(self.api_key.encode()).hexdigest()

    @property
    def pin(self) -> str:
        """The fingerprint as 64 hexadecimal digits, or empty."""
        return self.fingerprint.replace(":", "").replace(" ", "").strip().lower()

    @property
    def template_mark(self) -> tuple[str, str] | None:
        """Key and value of the category of golden images."""
        key, _, value = self.template_category.partition(":")
        return (key.strip(), value.strip()) if key.strip() else None

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(secret for secret in (self.password, self.api_key) if secret)

    def require_complete(self) -> None:
        """Raises `Unsupported` naming the first thing that is missing or contradicts another."""
        if not self.address.strip():
            raise Unsupported("The address of Prism Central is missing.")
        if re.search(r"[\s/@?#]", self.address):
            raise Unsupported("The address is a name or an IP address alone: no https://, no path, no user.")
        if not 0 < self.port < 65536 or not 0 <= self.screen_port < 65536:
            raise Unsupported("A port is a number up to 65535.")
        if self.sign_in not in dict(SIGN_IN):
            raise Unsupported(f"There is no way to sign in called {self.sign_in!r}. Choose password or api_key.")
        if self.sign_in == "password" and not (self.user and self.password):
            raise Unsupported("Signing in needs a user and a password.")
        if self.sign_in == "api_key" and not self.api_key:
            raise Unsupported("Signing in needs an API key.")
        if self.pin and not _FINGERPRINT.fullmatch(self.pin):
            raise Unsupported("A certificate's fingerprint is 64 hexadecimal digits (SHA-256).")
        if self.ca_certificate.strip() and "BEGIN CERTIFICATE" not in self.ca_certificate:
            raise Unsupported("The CA certificate is not PEM: it begins with -----BEGIN CERTIFICATE-----.")
        if self.template_mark and not self.template_mark[1]:
            raise Unsupported("A category is a key and a value, such as Deskyard:Template.")
