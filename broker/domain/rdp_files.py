"""The `.rdp` file by which a Remote Desktop program opens a desktop: its keys, and what of them a signature covers.

Pure.

Keys and their meaning: Microsoft, "Supported RDP properties". How such a file is signed is not published; the order of
the signed settings and the layout of the signature are those that the free program rdpsign found in Windows' own
`rdpsign.exe`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.domain.applications import Program

CONTENT_TYPE = "application/x-rdp"
ROUTING_TOKEN = "Cookie: msts="  # noqa: S105 - what stands before a token, not one
"""What a ticket is preceded by in the first message of a connection (MS-RDPBCGR §2.2.1.1)."""
SIGNED = {
    "full address": "Full Address",
    "alternate full address": "Alternate Full Address",
    "pcb": "PCB",
    "use redirection server name": "Use Redirection Server Name",
    "server port": "Server Port",
    "negotiate security layer": "Negotiate Security Layer",
    "enablecredsspsupport": "EnableCredSspSupport",
    "autoreconnection enabled": "AutoReconnection Enabled",
    "gatewayhostname": "GatewayHostname",
    "gatewayusagemethod": "GatewayUsageMethod",
    "gatewayprofileusagemethod": "GatewayProfileUsageMethod",
    "gatewaycredentialssource": "GatewayCredentialsSource",
    "promptcredentialonce": "PromptCredentialOnce",
    "alternate shell": "Alternate Shell",
    "remoteapplicationprogram": "RemoteApplicationProgram",
    "remoteapplicationmode": "RemoteApplicationMode",
    "remoteapplicationname": "RemoteApplicationName",
    "remoteapplicationcmdline": "RemoteApplicationCmdLine",
    "prompt for credentials": "Prompt For Credentials",
    "authentication level": "Authentication Level",
    "audiomode": "AudioMode",
    "redirectdrives": "RedirectDrives",
    "redirectprinters": "RedirectPrinters",
    "redirectcomports": "RedirectCOMPorts",
    "redirectsmartcards": "RedirectSmartCards",
    "redirectclipboard": "RedirectClipboard",
    "devicestoredirect": "DevicesToRedirect",
    "drivestoredirect": "DrivesToRedirect",
    "loadbalanceinfo": "LoadBalanceInfo",
}
"""Key -> its name in `signscope`, in the order in which a signature covers them. What is not here may be changed by
whoever holds the file."""
_SIGNATURE_HEAD = 0x00010001, 1
_FORBIDDEN = frozenset("\r\n\0")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person's program is told about one desktop."""

    address: str
    """Where the relay listens: host:port."""
    ticket: str = field(repr=False)
    user: str
    """Filled in as a name; the program lets it be changed."""
    has_clipboard: bool
    asks_32_bpp: bool
    """Off: as many bits a pixel as the program asks for by itself."""
    program: Program | None = None
    """What alone is shown; None: the whole desktop."""


def settings(wish: Wish) -> tuple[str, ...]:
    """The lines of the file, without signature. Raises `ValueError` for a value that would begin a line of its own.

    Never holds a password: the format's own field is sealed to one Windows account, and worth nothing elsewhere.
    """
    address = _text(wish.address)
    return (
        f"full address:s:{address}",
        # Else whoever changes the file could name another address here, which programs prefer.
        f"alternate full address:s:{address}",
        f"loadbalanceinfo:s:{ROUTING_TOKEN}{_text(wish.ticket)}",
        f"username:s:{_text(wish.user)}",
        # Warn where the certificate is not known; 1 would refuse every guest's own one, 0 would say nothing.
        "authentication level:i:2",
        "enablecredsspsupport:i:1",
        "negotiate security layer:i:1",
        "prompt for credentials:i:0",
        "autoreconnection enabled:i:1",
        "screen mode id:i:2",
        "use multimon:i:0",
        "dynamic resolution:i:1",
        *(["session bpp:i:32"] if wish.asks_32_bpp else []),
        *_program(wish.program),
        f"redirectclipboard:i:{int(wish.has_clipboard)}",
        "redirectdrives:i:0",
        "redirectprinters:i:0",
        "redirectcomports:i:0",
        "redirectsmartcards:i:0",
        "drivestoredirect:s:",
        "devicestoredirect:s:",
        "usbdevicestoredirect:s:",
        "audiomode:i:0",
        "audiocapturemode:i:0",
    )


def _program(program: Program | None) -> tuple[str, ...]:
    """One program instead of the desktop: RemoteApp where the guest is Windows, else what a session starts first."""
    if program is None:
        return ()
    if not program.is_remote_app:
        folder = [f"shell working directory:s:{_text(program.folder)}"] if program.folder else []
        return (f"alternate shell:s:{_text(program.line)}", *folder)
    return (
        "remoteapplicationmode:i:1",
        f"remoteapplicationprogram:s:{_text(program.command)}",
        f"remoteapplicationname:s:{_text(program.name)}",
        f"remoteapplicationcmdline:s:{_text(program.arguments)}",
        # What Windows' own server names for these: the program itself is started by it.
        "alternate shell:s:rdpinit.exe",
        "disableremoteappcapscheck:i:1",
    )


def signed_part(lines: Iterable[str]) -> tuple[str, bytes]:
    """The `signscope` line for these lines, and the bytes that a signature must cover."""
    by_key = {line.partition(":")[0].lower(): line for line in lines}
    covered = [key for key in SIGNED if key in by_key]
    scope = "signscope:s:" + ",".join(SIGNED[key] for key in covered)
    text = "".join(f"{by_key[key]}\r\n" for key in covered) + f"{scope}\r\n\0"
    return scope, text.encode("utf-16-le")


def signature_line(cms: bytes) -> str:
    """`cms`: a detached SignedData in DER."""
    return "signature:s:" + base64.b64encode(struct.pack("<III", *_SIGNATURE_HEAD, len(cms)) + cms).decode("ascii")


def content(lines: Iterable[str]) -> bytes:
    """The file: UTF-16 with a byte order mark, as Windows writes it."""
    return b"\xff\xfe" + "".join(f"{line}\r\n" for line in lines).encode("utf-16-le")


def _text(value: str) -> str:
    if _FORBIDDEN & set(value):
        raise ValueError("a value of an .rdp file that does not fit on one line")
    return value
