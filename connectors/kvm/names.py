"""Names that the connector gives to things at the hypervisor. Pure.

A volume's name tells whose it is: `deskyard-<machine uuid>-<order key>-<disk>.<suffix>`. So all volumes of a machine
are found by their prefix even when its definition is gone, a second attempt of an order meets the volumes of the
first, and nothing without the prefix is ever deleted.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

from connectors.errors import Unsupported

PREFIX = "deskyard-"
LONGEST_NAME_BYTES = 200
"""libvirt keeps a definition in a file NAME.xml; file names end at 255 bytes, and logs and sockets add their own
parts."""


def uuid_of(key: str) -> str:
    """The uuid of the machine that a clone order makes: the order's key itself, in libvirt's spelling."""
    return str(UUID(key))


def volume_prefix(machine: str) -> str:
    """What the names of all volumes made for this machine begin with."""
    return f"{PREFIX}{machine}-"


def volume_name(machine: str, key: str, disk: str, suffix: str) -> str:
    """Name of one disk that an order makes for a machine; different for every order."""
    return f"{volume_prefix(machine)}{uuid_of(key)}-{disk}.{suffix}"


def probe_volume_name(key: str, file: str) -> str:
    return f"{PREFIX}probe-{uuid_of(key)}-{file}"


def probe_name(key: str) -> str:
    return f"{PREFIX}probe-{uuid_of(key)}"


def mac_of(key: str, nic: int) -> str:
    """A locally administered address, the same at every attempt: 40 bits of the key's hash after KVM's usual 52."""
    digest = hashlib.sha256(f"{uuid_of(key)}/{nic}".encode()).digest()
    return ":".join(["52", *(f"{byte:02x}" for byte in digest[:5])])


def require_usable(name: str, what: str = "machine") -> None:
    """Raises `Unsupported` for a name that libvirt would refuse or could not store."""
    if not name.strip():
        raise Unsupported(f"The {what}'s name is empty. Give it a name.")
    if bad := sorted({char for char in name if char == "/" or not char.isprintable()}):
        shown = ", ".join(ascii(char) for char in bad)
        raise Unsupported(f"libvirt cannot take the {what}'s name {name[:80]!a}: it has {shown}. Choose another.")
    if (size := len(name.encode())) > LONGEST_NAME_BYTES:
        raise Unsupported(
            f"The {what}'s name {name[:40]!a}… has {size} bytes; libvirt can store {LONGEST_NAME_BYTES}. Shorten it."
        )
