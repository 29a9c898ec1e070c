"""OpenScreen: the VNC server inside the guest, since HyperCore shows screens in its own web page alone.

No REST call for a screen is known (vendor's field notes, Ansible collection, Terraform provider). So the guest has to
run a VNC server, and its agent has to tell an address. The port is the settings'; the password too, so it is not new
for each viewing.
"""

from __future__ import annotations

import time

from connectors.base import OpenScreen, Outcome, Power, ScreenOpened
from connectors.errors import Conflict
from connectors.hypercore.work import Waiting, Work

PATIENCE_S = 12.0
"""How long a guest that has just been started may take to tell its address: nobody waits longer for a screen."""


def open_screen(work: Work[OpenScreen]) -> Outcome:
    work.begin("Looking at the machine")
    vm = work.ours(work.order.machine)
    if vm.power is not Power.ON:
        raise Conflict(f"Machine {vm.name!r} is off and shows nothing. Switch it on first.")
    if not vm.addresses:
        since = float(work.receipt.setdefault("since", time.time()))
        if time.time() < since + PATIENCE_S:
            raise Waiting("Waiting for the guest to tell its address", 0.5)
        raise Conflict(
            f"Machine {vm.name!r} has told no address yet, so its screen cannot be reached. Wait until its guest is "
            "up; if it stays so, install the guest tools (guest agent) in its template."
        )
    return work.done(
        ScreenOpened(
            protocol="vnc",
            host=vm.addresses[0],
            port=work.settings.screen_port,
            password=work.settings.screen_password,
        )
    )
