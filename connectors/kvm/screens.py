"""OpenScreen: a VNC password for one viewing.

Every machine is started with a password nobody knows and an end in the past, since QEMU demands passwords only of
machines started with one. VNC knows eight characters of a password; what keeps it safe is its short life. The end is a
time of the
*hypervisor's* clock: clocks must agree to some seconds (NTP).
"""

from __future__ import annotations

import secrets
import string
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import libvirt

from connectors.base import OpenScreen, Outcome, ScreenOpened
from connectors.errors import Conflict, Unsupported
from connectors.kvm import held, mapping
from connectors.kvm.settings import KvmSettings
from connectors.kvm.work import Work

PASSWORD_LENGTH = 8
_ALPHABET = string.ascii_letters + string.digits
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - read from the machine, not bound
_HERE = ("127.0.0.1", "::1", "localhost")


def new_password() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(PASSWORD_LENGTH))


def open_screen(work: Work[OpenScreen]) -> Outcome:
    """Each attempt sets a new password: one that was lost on the way ends with its time."""
    work.begin("Looking at the machine")
    domain, seen = work.ours(work.order.machine)
    if not domain.isActive() or held.is_held(domain):
        raise Conflict(f"Machine {seen.name!r} is off and shows nothing. Switch it on first.")
    live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
    screen = next((graphics for graphics in mapping.read_domain(live).graphics if graphics.kind == "vnc"), None)
    if screen is None or screen.port <= 0:
        raise Unsupported(f"Machine {seen.name!r} has no VNC screen on a port. Add one to its template.")
    host = reachable_host(work.settings, screen.listen)
    password = new_password()
    # A second more than asked: the time is cut to whole seconds, and QEMU counts from its own clock.
    ends_at = datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=work.order.valid_s + 1)
    device = mapping.screen_password_xml(live, password, ends_at.strftime("%Y-%m-%dT%H:%M:%S"))
    work.begin("Setting the screen's password")
    domain.updateDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    return work.done(ScreenOpened(protocol="vnc", host=host, port=screen.port, password=password))


def reachable_host(settings: KvmSettings, listen: str) -> str:
    """Where the relay finds a screen that listens there. Raises `Unsupported` if it cannot reach it."""
    if settings.screen_address:
        return settings.screen_address
    remote = urlsplit(settings.uri).hostname or "" if settings.uri else settings.address
    if listen in _EVERYWHERE:
        return remote or "127.0.0.1"
    if listen in _HERE and remote and settings.transport != "local":
        raise Unsupported(
            f"Screens on {settings.endpoint} listen on {listen}, which only that host itself reaches. "
            "Set «Screens listen on» to an address the relay reaches, then recycle the machine."
        )
    return listen
