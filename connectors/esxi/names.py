"""Names and ids that the connector gives to things in vSphere. Pure.

vSphere keeps `%`, `/` and `\\` in names of inventory objects as `%25`, `%2f` and `%5c`, and shows them so too
(vSphere Web Services API reference, ManagedEntity.name). What we call a machine is the name without that.
"""

from __future__ import annotations

import re
from uuid import UUID

from connectors.errors import Unsupported

LONGEST_NAME = 80
"""vCenter refuses longer names of machines."""

_ESCAPES = (("%", "%25"), ("/", "%2f"), ("\\", "%5c"))
_ESCAPED = re.compile(r"%(25|2f|5c)", re.IGNORECASE)

BASE_SNAPSHOT = "deskyard-base"
"""The snapshot of a template that linked clones hang from, where an administrator has made none."""

POINT = "deskyard-point"
"""Our snapshots of machines that are being replicated; whose and of which point stands in the description."""
LANDING = "deskyard-landing-"
"""How a machine is called until a landing has finished it; listings leave it out."""


def uuid_of(key: str) -> str:
    """The instance uuid of the machine that an order of this key makes: the key itself, in vSphere's spelling."""
    return str(UUID(key))


def is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def landing(key: str) -> str:
    """What the machine of an unfinished landing is called."""
    return f"{LANDING}{uuid_of(key)}"


def folder_of(machine: str) -> str:
    """The folder on a datastore that holds all files of a machine on a stand-alone host, and nothing else."""
    return f"deskyard-{machine}"


def interim(name: str, key: str) -> str:
    """What a recycled machine is called until the old one is gone: names are unique in a folder."""
    return f"{name[: LONGEST_NAME - 12]} ({uuid_of(key)[:8]})"


def to_wire(name: str) -> str:
    for plain, escaped in _ESCAPES:
        name = name.replace(plain, escaped)
    return name


def from_wire(name: str) -> str:
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1]).decode(), name)


def require_usable(name: str, what: str = "machine") -> None:
    """Raises `Unsupported` for a name that vSphere would refuse or could not keep as it is."""
    if not name.strip():
        raise Unsupported(f"The {what}'s name is empty. Give it a name.")
    if name != name.strip():
        raise Unsupported(f"The {what}'s name {name!a} begins or ends with a blank, which vSphere drops.")
    if bad := sorted({char for char in name if not char.isprintable()}):
        shown = ", ".join(ascii(char) for char in bad)
        raise Unsupported(f"vSphere cannot take the {what}'s name {name[:80]!a}: it has {shown}. Choose another.")
    if len(to_wire(name)) > LONGEST_NAME:
        raise Unsupported(f"The {what}'s name {name[:40]!a}… is longer than the {LONGEST_NAME} letters vSphere takes.")
