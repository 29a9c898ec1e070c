"""libvirt's errors -> ours, in one table.

Codes and domains: libvirt `virterror.h` (virErrorNumber, virErrorDomain); the patterns are for codes that libvirt uses
for everything (system error, internal error, operation failed), with words seen on libvirt 9.0.
"""

from __future__ import annotations

import errno
import re

import libvirt

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

BY_CODE: dict[int, type[ConnectorError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: NotFound,
    libvirt.VIR_ERR_NO_NETWORK: NotFound,
    libvirt.VIR_ERR_NO_STORAGE_POOL: NotFound,
    libvirt.VIR_ERR_NO_STORAGE_VOL: NotFound,
    libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT: NotFound,
    libvirt.VIR_ERR_NO_DOMAIN_METADATA: NotFound,
    libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT: NotFound,
    libvirt.VIR_ERR_DOM_EXIST: Conflict,
    libvirt.VIR_ERR_STORAGE_VOL_EXIST: Conflict,
    libvirt.VIR_ERR_OPERATION_INVALID: Conflict,
    libvirt.VIR_ERR_RESOURCE_BUSY: Busy,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: Busy,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: Busy,
    libvirt.VIR_ERR_AGENT_UNSYNCED: Busy,
    libvirt.VIR_ERR_AUTH_FAILED: CredentialsRejected,
    libvirt.VIR_ERR_AUTH_CANCELLED: CredentialsRejected,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: CredentialsRejected,
    libvirt.VIR_ERR_ACCESS_DENIED: Unsupported,
    libvirt.VIR_ERR_OPERATION_DENIED: Unsupported,
    libvirt.VIR_ERR_NO_SUPPORT: Unsupported,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: Unsupported,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: Unsupported,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: Unsupported,
    libvirt.VIR_ERR_SNAPSHOT_REVERT_RISKY: Unsupported,
    libvirt.VIR_ERR_NO_CONNECT: Unreachable,
    libvirt.VIR_ERR_INVALID_CONN: Unreachable,
    libvirt.VIR_ERR_RPC: Unreachable,
    libvirt.VIR_ERR_GNUTLS_ERROR: Unreachable,
    libvirt.VIR_ERR_SSH: Unreachable,
    libvirt.VIR_ERR_LIBSSH: Unreachable,
}

ON_THE_LINE = {
    libvirt.VIR_FROM_RPC,
    libvirt.VIR_FROM_REMOTE,
    libvirt.VIR_FROM_SSH,
    libvirt.VIR_FROM_LIBSSH,
    libvirt.VIR_FROM_AUTH,
    libvirt.VIR_FROM_NONE,
}
"""Error domains of the connection itself: the words below mean something else when QEMU says them."""


def _table(*rows: tuple[str, type[ConnectorError]]) -> tuple[tuple[re.Pattern[str], type[ConnectorError]], ...]:
    return tuple((re.compile(words, re.IGNORECASE), kind) for words, kind in rows)


LINE_WORDS = _table(
    (r"non-properly terminated", Unreachable),  # libvirt calls it "authentication failed" when the peer dies meanwhile
    (r"certificate|certification|tls confirmation", CertificateRejected),  # the last: the host hangs up on ours
    (r"host key|known hosts|hostkey", CertificateRejected),
    (r"authentication failed|no authentication methods|authentication (method|cancel)|sasl", CredentialsRejected),
    (r"client socket is closed|end of file while reading|keepalive|connection reset|connection refused", Unreachable),
    (r"broken pipe|unable to connect|failed to connect|no route to host|input/output error", Unreachable),
)
WORDS = _table(
    (r"no space left|disk quota exceeded|not enough (free )?space", CapacityExhausted),
    (r"cannot allocate memory|cannot set up guest memory|could not allocate", CapacityExhausted),
    (r"already exists|already in use|is already defined|is already running|is being used", Conflict),
    (r"cannot acquire state change lock|asynchronous jobs running|still being allocated|still in use", Busy),
    (r"checkpoint|active dirty bitmaps|internal snapshots? .*(not supported|unsupported)", Unsupported),
)
"""Looked at in order, for errors whose code says too little."""

VAGUE = {
    libvirt.VIR_ERR_INTERNAL_ERROR,
    libvirt.VIR_ERR_SYSTEM_ERROR,
    libvirt.VIR_ERR_OPERATION_FAILED,
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_GNUTLS_ERROR,
    libvirt.VIR_ERR_SSH,
    libvirt.VIR_ERR_LIBSSH,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_NO_MEMORY,
    libvirt.VIR_ERR_AUTH_FAILED,
}

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}

ADVICE: dict[type[ConnectorError], str] = {
    Unreachable: "Check that libvirt runs there, the address and the port.",
    CertificateRejected: "Check that the host's certificate or key is one you trust, is for this address and has not "
    "expired, and that the host accepts ours. Nothing was sent to it.",
    CredentialsRejected: "Check user, password and key.",
    Busy: "It will be tried again.",
    NotFound: "It is not there any more.",
    Conflict: "It is not in the state it was thought to be in.",
    CapacityExhausted: "There is no room for it: free storage or memory, or use another host.",
    Unsupported: "This host, this account or this machine does not allow it.",
    PlatformFault: "libvirt's own words are kept with the operation.",
}


def kind_of(error: libvirt.libvirtError) -> type[ConnectorError]:
    """Which of our errors a libvirt error is."""
    code = error.get_error_code()
    words = error.get_error_message() or str(error)
    if code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() in NO_ROOM:
        return CapacityExhausted
    if code in VAGUE or code not in BY_CODE:
        is_line = error.get_error_domain() in ON_THE_LINE
        for pattern, kind in (*LINE_WORDS, *WORDS) if is_line else WORDS:
            if pattern.search(words):
                return kind
    return BY_CODE.get(code, PlatformFault)


def ours(error: libvirt.libvirtError, doing: str, endpoint: str) -> ConnectorError:
    """The error in our words. `doing` is what failed, as a phrase: "creating the disk of desk-7"."""
    kind = kind_of(error)
    return kind(f"{endpoint}: {doing} failed. {ADVICE[kind]}", platform_words=str(error))
