"""Which connectors there are. Built-in ones are named here, third-party ones by entry point `deskyard.connectors`.

Importing this module does no I/O and imports no platform's package; `load` does.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connectors.base import Connector

GROUP = "deskyard.connectors"
BUILT_IN = {
    "kvm": "connectors.kvm.connector:KvmConnector",
    "esxi": "connectors.esxi.connector:EsxiConnector",
    "nutanix": "connectors.nutanix.connector:NutanixConnector",
    "hypercore": "connectors.hypercore.connector:HyperCoreConnector",
    "hyperv": "connectors.hyperv.connector:HypervConnector",
}


class UnknownKind(LookupError):
    """No connector of that kind is installed."""


def kinds() -> list[str]:
    """Every kind installed, built-in ones first."""
    return [*BUILT_IN, *sorted(point.name for point in entry_points(group=GROUP) if point.name not in BUILT_IN)]


def load(kind: str) -> type[Connector]:
    """The connector class of a kind. Raises `UnknownKind`, or ImportError if its SDK is missing."""
    if target := BUILT_IN.get(kind):
        module, _, name = target.partition(":")
        found: Any = getattr(import_module(module), name)
        return found  # type: ignore[no-any-return]
    for point in entry_points(group=GROUP, name=kind):
        return point.load()  # type: ignore[no-any-return]
    raise UnknownKind(f"No connector of kind {kind!r} is installed. Installed: {', '.join(kinds())}.")
