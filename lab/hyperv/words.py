"""Errors as PowerShell tells them: an id, an HRESULT, and a German message, for nobody may rely on those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.errors import (
    Forbidden,
    GuestSilent,
    HostDown,
    InUse,
    NoSuch,
    OutOfMemory,
    OutOfStorage,
    TaskBroke,
    WorldError,
    WrongState,
)

COMMANDS = "Microsoft.HyperV.PowerShell.Commands"

_IDS: Mapping[type[WorldError], tuple[str, int]] = {
    NoSuch: (f"ObjectNotFound,{COMMANDS}.GetVM", 0x80070002),
    WrongState: (f"InvalidState,{COMMANDS}.StartVM", 0x80131500),
    OutOfStorage: ("OperationFailed,Microsoft.Vhd.PowerShell.Cmdlets.NewVhd", 0x80070070),
    OutOfMemory: (f"OutOfMemory,{COMMANDS}.StartVM", 0x8007000E),
    InUse: (f"ObjectInUse,{COMMANDS}.RemoveVM", 0x80131500),
    HostDown: (f"OperationFailed,{COMMANDS}.NewVM", 0x80131500),
    Forbidden: (f"AccessDenied,{COMMANDS}.NewVM", 0x80070005),
    GuestSilent: ("Deskyard.GuestSilent", 0x80131501),
    TaskBroke: ("OperationFailed,Microsoft.Vhd.PowerShell.Cmdlets.ConvertVhd", 0x80131500),
}


class Thrown(Exception):
    """A script's own `throw`: the text is the error's id."""


def fault_of(error: Exception) -> dict[str, Any]:
    """As PowerShell tells an error record."""
    if isinstance(error, Thrown):
        return {"id": str(error), "hresult": _signed(0x80131501), "msg": str(error)}
    for kind, (id, hresult) in _IDS.items():
        if isinstance(error, kind):
            return {"id": id, "hresult": _signed(hresult), "msg": "Der Vorgang ist fehlgeschlagen."}
    return {"id": f"OperationFailed,{COMMANDS}.GetVM", "hresult": _signed(0x80131500), "msg": "Unbekannter Fehler."}


def _signed(hresult: int) -> int:
    return hresult - (1 << 32) if hresult >= 1 << 31 else hresult
