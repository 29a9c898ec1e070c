"""A real machine with a real desktop in a real browser: a Debian guest on a KVM host, xrdp, xorgxrdp, a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import numpy
import pytest
from playwright.sync_api import Page, expect

from broker.models import Desktop, Hypervisor, Operation, Pool, ScreenSession
from broker.services import guest_passwords, pools, pump
from tests.broker.portal.cast import Estate
from tests.broker.relay.serving import Web
from tests.journeys.pictures import difference, pixels
from tests.support.guests import guest_file_exists, run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHosts
from tests.support.server_guest import BOOT_LIMIT_S, remove_server, start_server

PORT = 3390
BLUE = (0x20, 0x4A, 0x87)
"""What the image's desktop is painted in."""
SESSION_S = 240
"""From the login to a painted desktop, under emulation on a busy machine."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]


def shot(page: Page) -> bytes:
    return page.locator("#viewer-screen canvas").screenshot()


def blue(png: bytes) -> int:
    """How many pixels are of the desktop's colour, as near as RemoteFX comes."""
    away = numpy.abs(pixels(png) - numpy.array(BLUE)).max(axis=2)
    return int((away <= 6).sum())


def black(png: bytes) -> int:
    """How many pixels are black, as the terminal is."""
    return int((pixels(png).max(axis=2) <= 8).sum())


def is_running(domain: Any, program: str) -> bool:
    return bool(run_in_guest(domain, "/bin/sh", "-c", 'pgrep -x "$0" || true', program).strip())


def wait_until(page: Page, claim: str, holds: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, claim
        page.wait_for_timeout(500)


@pytest.mark.parametrize("account", ["ask", "pool", "local"])
def test_a_desktop_of_a_real_guest_shows_and_what_is_typed_arrives_in_it(
    alices_page: Page, web: Web, live_house: Estate, kvm_hosts: KvmHosts, rdp_image: Path, account: str
) -> None:
    page, house = alices_page, live_house
    (host,) = kvm_hosts.take(1)
    conn = host.connect()
    domain = start_server(host, conn, rdp_image, "rdp", memory_mib=1024)
    try:
        wait_for_agent(domain, limit_s=BOOT_LIMIT_S)
        # The agent answers well before xrdp does.
        wait_until(page, "xrdp runs", lambda: guest_file_exists(domain, "/run/xrdp/xrdp.pid"), BOOT_LIMIT_S)
        (lease, *_) = domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE).values()
        settings = {"transport": "local", "socket": str(host.folder / "run" / "libvirt-sock"), "acceleration": "qemu"}
        Hypervisor.objects.update(settings=settings, takes=[guest_passwords.ORDER])
        pools.change_pool(
            actor=house.dana, pool_id=house.pool.pk, protocol=Pool.Protocol.RDP, rdp_port=PORT,
            guest_account=account, guest_user="vdi", guest_password="vdi",
        )  # fmt: skip
        Desktop.objects.filter(pk=house.desktop.pk).update(
            addresses=[host.address], machine_id=domain.UUIDString(), stamp_key=""
        )
        with host.passing_on(PORT, lease["addrs"][0]["addr"], 3389):
            page.goto(f"{web.origin}/desktops/{house.desktop.pk}/open/")
            if account == "ask":
                expect(page.locator(".viewer")).to_have_attribute("data-phase", "asking", timeout=60_000)
                page.get_by_label("User name").fill("vdi")
                page.get_by_label("Password").fill("vdi")
                page.get_by_role("button", name="Open", exact=True).click()
            if account == "local":
                wait_until(page, "a password is ordered", Operation.objects.filter(state="queued").exists, 60)
                pump.run(house.hypervisor.pk)
                assert Operation.objects.get().state == "done"
            expect(page.locator(".viewer")).to_have_attribute("data-phase", "open", timeout=240_000)
            wait_until(page, "the desktop is painted", lambda: blue(shot(page)) > 500_000, SESSION_S)
            # It is painted before anything runs on it, and nobody gives a window the keys before its manager is there.
            wait_until(page, "the terminal is there", lambda: black(shot(page)) > 150_000, SESSION_S)
            wait_until(page, "windows have a manager", lambda: is_running(domain, "openbox"), SESSION_S)
            page.locator("#viewer-screen canvas").click(position={"x": 300, "y": 300})
            before = shot(page)
            page.get_by_role("button", name="Type text").click()
            page.get_by_role("textbox", name="Text").fill("touch /tmp/Typed_by-Alice; echo Hello")
            page.get_by_label("Press Enter at the end").check()
            page.get_by_role("button", name="Type it").click()
            wait_until(page, "it arrives", lambda: guest_file_exists(domain, "/tmp/Typed_by-Alice"), 60)
            wait_until(page, "it shows", lambda: difference(shot(page), before) > 200, 60)
            assert {session.protocol for session in ScreenSession.objects.all()} == {"rdp"}
    finally:
        remove_server(host, domain)
        conn.close()
