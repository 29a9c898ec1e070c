"""A lease of vSphere's by which whole disks leave or come in, kept alive for as long as it is used.

It ends by itself some minutes after nobody told how far the transfer is; an import's machine goes with it (vSphere Web
Services API reference, HttpNfcLease). So a thread tells, and what a dead process held is let go of without anybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from connectors.errors import ConnectorError, Unsupported
from connectors.esxi import faults, soap
from connectors.esxi.api import vim
from connectors.esxi.client import Client
from connectors.esxi.errands import Errand
from connectors.esxi.faults import VimFault
from connectors.esxi.transfer import DeviceUrl

KIND = "HttpNfcLease"
INFO_PATHS = ("info.deviceUrl", "info.leaseTimeout", "info.entity")
SLOWEST_S, FASTEST_S = 30.0, 0.2
"""How often it is told."""
CALL_S = 30.0
ABORT_S = 5.0
"""It would end by itself."""


class Lease:
    """One that is ready to be used. Whoever has it ends it, by `complete` or `abort`."""

    def __init__(self, client: Client, id: str, seen: soap.Seen) -> None:
        self.id = id
        self.entity = seen.text("info.entity")
        self.urls = tuple(
            DeviceUrl(
                key=soap.text(url, "key"),
                url=soap.text(url, "url"),
                thumbprint=soap.text(url, "sslThumbprint"),
                is_disk=soap.text(url, "disk") == "true",
            )
            for url in seen.values.get("info.deviceUrl", ())
        )
        self.percent = 0
        """How far the transfer is: what is told. Whoever transfers writes it."""
        self._client = client
        self._ended = threading.Event()
        timeout_s = seen.number("info.leaseTimeout") or SLOWEST_S
        self._every_s = max(FASTEST_S, min(SLOWEST_S, timeout_s / 5))
        threading.Thread(target=self._keep, name="vsphere-lease", daemon=True).start()

    @classmethod
    def begin(cls, errand: Errand, step: str, call: Callable[[], Any]) -> Lease:
        """Raises `VimFault` for one that does not come about, `Busy`."""
        errand.begin(step)
        id = str(call()._moId)
        try:
            return cls(errand.client, id, _ready(errand, id))
        except (VimFault, ConnectorError):
            with suppress(VimFault, ConnectorError):
                errand.client.object(vim.HttpNfcLease, id, time.monotonic() + ABORT_S).Abort()
            raise

    def url_of(self, device: str) -> DeviceUrl:
        """Where the disk on that controller and place is ("ParaVirtualSCSIController0:1"). Raises `Unsupported`."""
        disks = [url for url in self.urls if url.is_disk]
        found = [url for url in disks if url.key.endswith(f"/{device}")] or (disks if len(disks) == 1 else [])
        if len(found) != 1:
            raise Unsupported(
                f"Endpoint {self._client.settings.endpoint} does not tell which of the disks that it gives out is "
                f"{device}. Nothing was read."
            )
        return found[0]

    def size_of(self, url: DeviceUrl, deadline: float) -> int | None:
        """How many bytes vSphere says it has given out there; None if it does not say."""
        try:
            told = self._object(deadline).GetManifest()
        except VimFault:
            return None
        return next((int(entry.size) for entry in told or () if entry.key == url.key), None)

    def complete(self, deadline: float) -> None:
        self._ended.set()
        self._object(deadline).Complete()

    def abort(self) -> None:
        """As if it had never been. Never raises: else it ends by itself."""
        self._ended.set()
        with suppress(VimFault, ConnectorError):
            self._object(time.monotonic() + ABORT_S).Abort()

    def let_go(self) -> None:
        """Tell nothing any more: it ends by itself."""
        self._ended.set()

    def why_ended(self) -> VimFault | None:
        """What vSphere says that went wrong with it, if it says so."""
        with suppress(VimFault, ConnectorError):
            seen = self._client.object_seen(KIND, self.id, ("state", "error"), time.monotonic() + CALL_S)
            if seen is None:
                return VimFault("ManagedObjectNotFound")
            return _fault(seen.values.get("error")) if seen.text("state") == "error" else None
        return None

    def _object(self, deadline: float) -> Any:
        return self._client.object(vim.HttpNfcLease, self.id, deadline)

    def _keep(self) -> None:
        while not self._ended.wait(self._every_s):
            # One that was not heard is told again soon: the lease lasts for several of them.
            with suppress(VimFault, ConnectorError):
                self._object(time.monotonic() + CALL_S).Progress(percent=max(0, min(99, self.percent)))


def _ready(errand: Errand, id: str) -> soap.Seen:
    """What it tells once it is."""
    while True:
        seen = errand.client.object_seen(KIND, id, ("state", "error"), errand.deadline)
        state = seen.text("state") if seen is not None else ""
        if seen is None or state in ("error", "done"):
            raise _fault(seen.values.get("error") if seen is not None else None)
        if state == "ready":
            break
        errand.pause()
    seen = errand.client.object_seen(KIND, id, INFO_PATHS, errand.deadline)
    if seen is None:
        raise VimFault("ManagedObjectNotFound")
    return seen


def _fault(error: soap.Element | None) -> VimFault:
    """Of a lease: a fault itself, or one with words around it."""
    if error is None:
        return VimFault("RuntimeFault", "the lease ended")
    if soap.child(error, "fault") is not None:
        return faults.of_task(error)
    return VimFault(soap.kind_of(error) or "RuntimeFault", "", error)
