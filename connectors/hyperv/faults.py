"""Windows' errors -> ours, in one table. Nothing here looks at a message: Windows localises those.

Sources: the prefix of `FullyQualifiedErrorId` (`AccessDenied,Microsoft.HyperV.PowerShell.Commands.StartVM`) is the
identifier of Hyper-V's own cmdlets; HRESULTs are Win32 error codes (winerror.h) as 0x8007xxxx; WSMan codes are those of
[MS-WSMV] 3.1.4.5.2.1 and wsmerror.h. Ids that begin with `Deskyard.` are thrown by our own scripts.
"""

from __future__ import annotations

from collections.abc import Mapping

import requests
import urllib3
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)

from connectors.errors import (
    Busy,
    CapacityExhausted,
    CertificateRejected,
    Conflict,
    ConnectorError,
    CredentialsRejected,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)

Kind = type[ConnectorError]

OUR_OWN: Mapping[str, tuple[Kind, str]] = {
    "Deskyard.NoRights": (
        Unsupported,
        "the account is no administrator and no Hyper-V administrator, so it is shown no machines. Make it one",
    ),
    "Deskyard.NoMachine": (NotFound, "the machine is not there any more"),
    "Deskyard.NoTemplate": (NotFound, "the template is not there"),
    "Deskyard.NoSnapshot": (NotFound, "the machine has no such checkpoint"),
    "Deskyard.NoSwitch": (NotFound, "there is no virtual switch of that name. Choose another network"),
    "Deskyard.NoStorage": (NotFound, "there is no such volume. Choose another storage"),
    "Deskyard.WrongStamp": (
        Conflict,
        "the machine bears another stamp than expected: somebody else may own it. Nothing was done. See the drift page",
    ),
    "Deskyard.IsTemplate": (Conflict, "the machine is marked as a template. Nothing was done to it"),
    "Deskyard.HasClones": (Conflict, "linked clones hang from the machine's disks. Nothing was done to it"),
    "Deskyard.TemplateOn": (
        Conflict,
        "the template is switched on or saved: its disks change under its clones. Shut it down",
    ),
    "Deskyard.TemplateIsDesktop": (
        Unsupported,
        "the machine that was named is a desktop, not a template: starting it would destroy its clones",
    ),
    "Deskyard.TemplateHasNoDisk": (Unsupported, "the template has no disk"),
    "Deskyard.TemplateDisk": (
        Unsupported,
        "the template has a disk that is no VHD or VHDX file of its own. Only such disks can be cloned",
    ),
    "Deskyard.TemplateHasCheckpoints": (
        Unsupported,
        "the template has checkpoints: what they hold would be merged under its clones. Delete them",
    ),
    "Deskyard.TemplateHasTpm": (
        Unsupported,
        "the template has a virtual TPM, whose keys stay with their machine. Take it out of the template",
    ),
    "Deskyard.IsOff": (Conflict, "the machine is off. Switch it on first"),
    "Deskyard.NotSuspended": (Conflict, "the machine is off, not suspended. Switch it on instead"),
    "Deskyard.IsOn": (Unsupported, "the machine is on; this can only be changed while it is off"),
    "Deskyard.NotNow": (Busy, "the machine is between two states. It will be tried again"),
    "Deskyard.GuestSilent": (
        Busy,
        "the guest does not hear: it has not booted, or its shutdown service is off. It will be tried again",
    ),
    "Deskyard.RestartUnknown": (
        PlatformFault,
        "whether the machine was restarted is not known: the answer was lost. See whether it was, and ask again if not",
    ),
    "Deskyard.NoDisk": (NotFound, "the machine has no such disk. Choose among its disks anew"),
    "Deskyard.NothingToRead": (Unsupported, "the machine has no disk. Add one, or take it out of the policy"),
    "Deskyard.DiskIsNoFile": (
        Unsupported,
        "the machine has a disk that is no VHD or VHDX file, and of others no point can be taken. Leave it out",
    ),
    "Deskyard.PointFailed": (
        PlatformFault,
        "Hyper-V did not make the checkpoint. See Hyper-V-VMMS/Admin in the host's event log",
    ),
    "Deskyard.NotQuiet": (Busy, "the guest could not be asked to hold still. It will be tried again"),
    "Deskyard.NoChanges": (Conflict, "Hyper-V does not tell any more what has changed since the last point"),
    "Deskyard.DiskNotOpened": (
        Unsupported,
        "the host may not open the checkpoint's disk for reading. See whether something on it guards raw disks",
    ),
    "Deskyard.DiskShort": (PlatformFault, "the checkpoint's disk ended before its size was read"),
    "Deskyard.WrongCertificate": (
        CertificateRejected,
        "the host was shown another certificate than the mover's: something between them opens TLS. Nothing was sent",
    ),
    "Deskyard.LineLost": (Busy, "the line between host and mover was lost. It will be tried again"),
    "Deskyard.Refused": (Busy, "the mover has given this transfer up. It will be tried again"),
    "Deskyard.Garbled": (Busy, "what the host has written is not what the mover sent. It will be tried again"),
    "Deskyard.FolderLeadsElsewhere": (
        Unsupported,
        "somebody has put a link in the place of ProgramData\\Deskyard there. See who, and delete it",
    ),
    "Deskyard.LandingGone": (
        Conflict,
        "a disk of the machine in the making is not there any more: another attempt has begun. Bring it up again",
    ),
    "Deskyard.NotReplicated": (Unsupported, "Hyper-V does not replicate the machine. Set its replication up there"),
    "Deskyard.NotReplicating": (
        Conflict,
        "its replication does not go on just now: it is paused, has failed or is at its first copy. See to it there",
    ),
    "Deskyard.IsReplica": (Conflict, "the machine there is a replica, and its original stands elsewhere"),
    "Deskyard.IsNoReplica": (Conflict, "the machine there is no replica: it has been failed over already"),
    "Deskyard.UnknownOrder": (Unsupported, "Hyper-V knows no such order"),
}
"""What our scripts say -> our error, and the words."""

BY_ID: Mapping[str, Kind] = {
    "AccessDenied": Unsupported,
    "UnauthorizedAccessException": Unsupported,
    "InvalidParameter": PlatformFault,
    "InvalidState": Conflict,
    "InvalidOperation": Conflict,
    "ObjectNotFound": NotFound,
    "ObjectInUse": Busy,
    "OperationFailed": PlatformFault,
    "OperationTimeout": Busy,
    "OutOfMemory": CapacityExhausted,
    "NotSupported": Unsupported,
    "FileNotFound": NotFound,
    "DeviceNotFound": NotFound,
    "CommandNotFoundException": Unsupported,
}
"""The prefix of FullyQualifiedErrorId."""

BY_HRESULT: Mapping[int, Kind] = {
    0x80070002: NotFound,
    0x80070003: NotFound,
    0x80070005: Unsupported,
    0x8007000E: CapacityExhausted,
    0x80070020: Busy,
    0x80070021: Busy,
    0x80070027: CapacityExhausted,
    0x80070050: Conflict,
    0x80070070: CapacityExhausted,
    0x800705AA: CapacityExhausted,
    0x800700B7: Conflict,
    0x80041003: Unsupported,
    0x80070015: Busy,
    0x800710DF: Busy,
}
"""File, path not found; access denied; out of memory; sharing, lock violation; disk full (handle); file exists; disk
full; no system resources; already exists; WMI access denied; device not ready (both spellings)."""

BY_WSMAN: Mapping[int, Kind] = {
    2150858793: Busy,
    2150858843: Busy,
    2150859173: Busy,
    2150859174: Busy,
    2150859175: Busy,
    2150859179: Busy,
    5: Unsupported,
}
"""Operation timed out; no such shell; too many shells, operations, of one user, of users; access denied."""

NOT_PINNED = "the certificate is not one of the pinned ones"
SHELL_GONE = 2150858843
OPERATIONS_SPENT = 2150859174

ADVICE: Mapping[Kind, str] = {
    Unreachable: "Check that WinRM listens there (winrm enumerate winrm/config/listener), the address and the port.",
    CertificateRejected: "Check that the host's certificate is the trusted or pinned one, is for this address and has "
    "not expired. Nothing was sent to it.",
    CredentialsRejected: "Check user and password. If they are right: a local account needs "
    "LocalAccountTokenFilterPolicy on the host, Kerberos needs right clocks and names, strict channel binding HTTPS.",
    Busy: "It will be tried again.",
    NotFound: "It is not there any more.",
    Conflict: "It is not in the state it was thought to be in.",
    CapacityExhausted: "There is no room for it: free storage or memory, or use another host.",
    Unsupported: "This host, this account or this machine does not allow it.",
    PlatformFault: "Windows' own words are kept with the operation.",
}


def of_answer(fault: Mapping[str, object], doing: str, host: str) -> ConnectorError:
    """The error in our words. `fault` is what a script tells: id, hresult, msg. `doing`: "making desk-7"."""
    told = str(fault.get("id") or "")
    words = str(fault.get("msg") or told)[:2000]
    if told in OUR_OWN:
        kind, sentence = OUR_OWN[told]
        return kind(f"Host {host}: {doing} failed: {sentence}.", platform_words=told)
    kind = _kind_of(told, fault.get("hresult"))
    return kind(f"Host {host}: {doing} failed. {ADVICE[kind]}", platform_words=f"{told}: {words}")


def told_in_full(error: ConnectorError) -> str:
    """Its message, and Windows' name for what went wrong if that is all that is known of it: for errors of disks, with
    which nothing else is kept."""
    if not isinstance(error, PlatformFault) or error.platform_words in OUR_OWN:
        return error.message
    message = error.message.removesuffix(ADVICE[PlatformFault]).strip()
    return f"{message} Windows calls it {error.platform_words.partition(':')[0]}."


def _kind_of(told: str, hresult: object) -> Kind:
    """The HRESULT first: Hyper-V says OperationFailed of a full disk too."""
    if isinstance(hresult, int) and (kind := BY_HRESULT.get(hresult & 0xFFFFFFFF)):
        return kind
    return BY_ID.get(told.split(",")[0].strip(), PlatformFault)


def of_wire(error: Exception, doing: str, host: str) -> ConnectorError:
    """What went wrong between us and WinRM, in our words."""
    kind = _kind_of_wire(error)
    return kind(f"Host {host}: {doing} failed. {ADVICE[kind]}", platform_words=_words(error))


def _kind_of_wire(error: Exception) -> Kind:
    match error:
        case InvalidCredentialsError():
            return CredentialsRejected
        case WinRMOperationTimeoutError():
            return Busy
        case WSManFaultError():
            return BY_WSMAN.get(error.wsman_fault_code or 0, PlatformFault)
        case WinRMTransportError():
            return _of_status(error.code)
        case requests.exceptions.SSLError():
            return CertificateRejected if _is_about_the_certificate(error) else Unreachable
        case requests.exceptions.RequestException() | urllib3.exceptions.HTTPError() | OSError():
            return Unreachable
        case WinRMError():
            return Unsupported if "kerberos" in str(error).lower() else Unreachable
        case _:
            return PlatformFault


def _of_status(status: int) -> Kind:
    """Of answers that are no SOAP: something stands before WinRM, or it is not well."""
    if status == 403:
        return Unsupported
    if status == 404:
        return Unreachable  # another service has this port
    return Busy if status == 429 or status >= 500 else PlatformFault


def _is_about_the_certificate(error: BaseException) -> bool:
    """OpenSSL's verification, or a pin that differs; a handshake that broke off is not."""
    seen: BaseException | None = error
    text = ""
    while seen is not None:
        text += f" {seen}"
        arguments = getattr(seen, "args", ())
        reason = getattr(seen, "reason", None) or next((one for one in arguments if isinstance(one, Exception)), None)
        seen = reason if isinstance(reason, BaseException) and reason is not seen else None
    return "CERTIFICATE_VERIFY_FAILED" in text or NOT_PINNED in text


def _words(error: Exception) -> str:
    """Bounded, and without what pywinrm keeps of a whole answer."""
    if isinstance(error, WSManFaultError):
        return f"WSMan fault {error.wsman_fault_code}: {error.reason}"[:2000]
    return f"{type(error).__name__}: {error}"[:2000]
