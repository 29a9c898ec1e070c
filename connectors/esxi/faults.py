"""vSphere's faults -> our errors, in one table.

Names and their families: vSphere Web Services API reference, "Fault types"; the families are read from pyvmomi's types,
so that a fault that is not named here is what its parent is.
"""

from __future__ import annotations

from functools import cache

from connectors.errors import (
    Busy,
    CapacityExhausted,
    Conflict,
    ConnectorError,
    CredentialsRejected,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)
from connectors.esxi import soap
from connectors.esxi.api import type_named

BY_NAME: dict[str, type[ConnectorError]] = {
    # who we are and what we may do
    "InvalidLogin": CredentialsRejected,
    "NotAuthenticated": CredentialsRejected,
    "NoPermission": Unsupported,
    "SecurityError": Unsupported,
    "RestrictedVersion": Unsupported,
    "NotEnoughLicenses": Unsupported,
    # it is not there
    "ManagedObjectNotFound": NotFound,
    "NotFound": NotFound,
    "FileNotFound": NotFound,
    "InvalidDatastorePath": NotFound,
    # it is not what we thought
    "DuplicateName": Conflict,
    "AlreadyExists": Conflict,
    "FileAlreadyExists": Conflict,
    "InvalidPowerState": Conflict,
    "InvalidState": Conflict,
    "ConcurrentAccess": Conflict,
    "ResourceInUse": Conflict,
    "FileLocked": Conflict,
    # come back later
    "TaskInProgress": Busy,
    "MethodDisabled": Busy,
    "Timedout": Busy,
    "ToolsUnavailable": Busy,
    "GuestOperationsUnavailable": Busy,
    "HostConnectFault": Busy,
    "HostCommunication": Busy,
    "HostNotConnected": Busy,
    "HostNotReachable": Busy,
    "LimitExceeded": Busy,
    "SnapshotLocked": Busy,
    # no room
    "InsufficientResourcesFault": CapacityExhausted,
    "NoDiskSpace": CapacityExhausted,
    "NotEnoughCpus": CapacityExhausted,
    "NoCompatibleHost": CapacityExhausted,
    # it cannot do that
    "NotSupported": Unsupported,
    "NotImplemented": Unsupported,
    "MethodNotFound": Unsupported,
    "VmConfigFault": Unsupported,
    "CustomizationFault": Unsupported,
    "CannotAccessVmComponent": Unsupported,
    "InvalidName": Unsupported,
    "MigrationFault": Unsupported,
}

ADVICE: dict[type[ConnectorError], str] = {
    Unreachable: "Check the address, the port and that the host is up.",
    CredentialsRejected: "Check user and password, and that the account is neither locked nor expired.",
    Busy: "It will be tried again.",
    NotFound: "It is not there any more.",
    Conflict: "It is not in the state it was thought to be in, or its name is taken.",
    CapacityExhausted: "There is no room for it: free storage or memory, or use another host.",
    Unsupported: "This host, this account or this machine does not allow it.",
    PlatformFault: "vSphere's own words are kept with the operation.",
}


class VimFault(Exception):
    """A fault of vSphere, of a call or of a task, by its name in the API."""

    def __init__(self, name: str, words: str = "", detail: soap.Element | None = None) -> None:
        super().__init__(f"{name}: {words}" if words else name)
        self.name = name
        self.words = words
        self.detail = detail

    def is_a(self, *names: str) -> bool:
        """Whether it is one of these faults, or a kind of them."""
        return bool(set(names) & set(family(self.name)))

    def __reduce__(self) -> tuple[type[VimFault], tuple[str, str]]:
        return VimFault, (self.name, self.words)


@cache
def family(name: str) -> tuple[str, ...]:
    """The fault's own name and those it descends from, nearest first. A name that nobody knows stands alone."""
    try:
        found = type_named(name)
    except KeyError:
        return (name,)
    return tuple(ancestor.__name__.rpartition(".")[2] for ancestor in found.__mro__)


def kind_of(fault: VimFault) -> type[ConnectorError]:
    """Which of our errors a fault is."""
    return next((BY_NAME[name] for name in family(fault.name) if name in BY_NAME), PlatformFault)


def ours(fault: VimFault, doing: str, endpoint: str) -> ConnectorError:
    """The fault in our words. `doing` is what failed, as a phrase: "creating the machine"."""
    kind = kind_of(fault)
    advice = ADVICE[kind]
    if fault.is_a("NoPermission"):
        wanted = soap.text(fault.detail, "privilegeId") if fault.detail is not None else ""
        advice = f"The account lacks a right{f' ({wanted})' if wanted else ''}. Give it to the account's role."
    return kind(f"{doing[:1].upper()}{doing[1:]} failed at {endpoint}. {advice}", platform_words=str(fault)[:500])


def of_answer(body: soap.Element) -> VimFault:
    """The fault that an answer with HTTP status 500 carries."""
    words = next((part.text or "" for part in body if soap.local(part) == "faultstring"), "")
    for part in body:
        if soap.local(part) == "detail" and len(part):
            name = soap.kind_of(part[0]) or soap.local(part[0]).removesuffix("Fault")
            return VimFault(name, words, part[0])
    return VimFault("RuntimeFault", words)


def of_task(error: soap.Element) -> VimFault:
    """The fault of a task that failed: a LocalizedMethodFault."""
    fault = soap.child(error, "fault")
    return VimFault(soap.kind_of(fault) or "MethodFault", soap.text(error, "localizedMessage"), fault)
