"""A real guest shows one program and no desktop around it: its xrdp starts what the relay wrote into the sign-in."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest
from playwright.sync_api import Page, expect

from broker.models import Application, Desktop, Entitlement, Pool
from broker.services import applications, pools
from tests.broker.portal.cast import Estate
from tests.broker.portal.test_rdp_guest import PORT, SESSION_S, blue, shot, wait_until
from tests.broker.relay.serving import Web
from tests.support.guests import guest_file_exists, run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHosts
from tests.support.server_guest import BOOT_LIMIT_S, remove_server, start_server

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]


def test_a_session_is_the_program_alone_and_ends_with_it(
    alices_page: Page, web: Web, live_house: Estate, kvm_hosts: KvmHosts, rdp_image: Path
) -> None:
    page, house = alices_page, live_house
    pools.change_pool(
        actor=house.dana, pool_id=house.pool.pk, protocol=Pool.Protocol.RDP, rdp_port=PORT,
        guest_account="ask", guest_user="vdi",
    )  # fmt: skip
    application = applications.publish(
        actor=house.dana, pool_id=house.pool.pk, name="Terminal", guest=Application.Guest.LINUX,
        command="/usr/bin/xterm", arguments="-e /bin/sh -c 'pwd > /tmp/where; exec /bin/sh'", folder="/srv",
    )  # fmt: skip
    Entitlement.objects.create(pool=house.pool, application=application, user=house.alice)
    (host,) = kvm_hosts.take(1)
    conn = host.connect()
    domain = start_server(host, conn, rdp_image, "rdp-program", memory_mib=1024)
    try:
        wait_for_agent(domain, limit_s=BOOT_LIMIT_S)
        wait_until(page, "xrdp runs", lambda: guest_file_exists(domain, "/run/xrdp/xrdp.pid"), BOOT_LIMIT_S)
        (lease, *_) = domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE).values()
        Desktop.objects.filter(pk=house.desktop.pk).update(addresses=[host.address])
        with host.passing_on(PORT, lease["addrs"][0]["addr"], 3389):
            # Without the hint about keys, which would lie on the picture.
            page.add_init_script("sessionStorage.setItem('viewer-hint', 'shown')")
            page.goto(f"{web.origin}/desktops/{house.desktop.pk}/open/?application={application.pk}")
            expect(page.locator(".viewer")).to_have_attribute("data-phase", "asking")
            page.get_by_label("User name").fill("vdi")
            page.get_by_label("Password").fill("vdi")
            page.get_by_role("button", name="Open", exact=True).click()
            expect(page.locator(".viewer")).to_have_attribute("data-phase", "open", timeout=240_000)
            wait_until(page, "it runs", lambda: guest_file_exists(domain, "/tmp/where"), SESSION_S)
            assert run_in_guest(domain, "/bin/cat", "/tmp/where") == "/srv\n"
            running = run_in_guest(domain, "/bin/ps", "-u", "vdi", "-o", "comm=").split()
            assert "xterm" in running
            assert not {"openbox", "tint2"} & set(running), "a desktop runs beside it"
            assert blue(shot(page)) == 0, "a desktop is painted"
            page.get_by_role("button", name="Type text").click()
            page.get_by_role("textbox", name="Text").fill("exit")
            page.get_by_label("Press Enter at the end").check()
            page.get_by_role("button", name="Type it").click()
            expect(page.get_by_role("heading", name="The screen closed")).to_be_visible(timeout=120_000)
    finally:
        remove_server(host, domain)
        conn.close()
