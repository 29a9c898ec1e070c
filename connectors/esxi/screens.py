"""OpenScreen: the guest's own VNC server, at the guest's own address.

vSphere took VNC out of ESXi 7.0 (release notes, "Removal of the built-in VNC server"); its own consoles (WebMKS
tickets) speak another protocol, which the relay does not.
"""

from __future__ import annotations

import time

from connectors.base import OpenScreen, Outcome, Power, ScreenOpened
from connectors.errors import Busy, Conflict
from connectors.esxi import mapping
from connectors.esxi.work import Work, number

PATIENCE_S = 12.0
"""How long a guest that is coming up may take to have an address: whoever waits for the screen has 15 s."""


def open_screen(work: Work[OpenScreen]) -> Outcome:
    work.begin("Looking at the machine")
    vm = work.ours(work.order.machine, ("guest.ipAddress", "guest.net"))
    if vm.power is not Power.ON:
        raise Conflict(f"Machine {vm.name!r} is {vm.power} and shows nothing. Switch it on first.")
    found = mapping.addresses(vm.seen)
    if found:
        settings = work.client.settings
        work.step = "Finding the guest's address"
        return work.done(
            ScreenOpened(
                protocol="vnc", host=found[0], port=settings.real_screen_port, password=settings.screen_password
            )
        )
    since = number(work.receipt, "since") or time.time()
    work.receipt["since"] = since
    if time.time() - since < PATIENCE_S:
        work.step = "Waiting for the guest's address"
        return work.running(poll_after_s=0.5)
    raise Busy(
        f"The guest of machine {vm.name!r} has no address yet, and its screen is reached there alone. See whether "
        "VMware Tools run in it and whether its network hands out addresses."
    )
