"""OpenScreen: the VNC server in the guest, at the guest's own address.

Prism's console (`generate-console-token`, v4.2 and up) speaks RFB inside a WebSocket that wants a token, an `Origin`
and an account (prism-go-client `converged/v4/vms.go`; packer-plugin-nutanix `step_vnc_connect.go`): a relay that speaks
plain TCP cannot use it, and it would need the account's credentials.
"""

from __future__ import annotations

import time

from connectors.base import OpenScreen, Outcome, Power, ScreenOpened
from connectors.errors import Conflict, Unsupported
from connectors.nutanix.work import StillGoing, Work


def open_screen(work: Work[OpenScreen]) -> Outcome:
    """Where the guest's VNC server is. A guest that has no address yet is waited for as long as the screen would be
    valid."""
    order = work.order
    work.begin("Looking for the guest's address")
    if not work.settings.screen_port:
        raise Unsupported(f"Desktops on {work.settings.endpoint} have no screen: the VNC port in the settings is 0.")
    vm = work.ours(order.machine).vm
    if vm.power is not Power.ON:
        raise Conflict(f"Machine {vm.name!r} is {vm.power}: it shows nothing. Switch it on first.")
    if not vm.addresses:
        work.receipt.setdefault("until", time.time() + order.valid_s)
        if time.time() < work.number("until"):
            raise StillGoing(after_s=1.0)
        raise Conflict(
            f"Machine {vm.name!r} has no address yet. Wait until it has started; if it never gets one, check its "
            "network and Nutanix Guest Tools."
        )
    return work.done(ScreenOpened(protocol="vnc", host=vm.addresses[0], port=work.settings.screen_port))
