"""Names of machines and snapshots: what HyperCore is asked to take."""

from __future__ import annotations

from connectors.errors import Conflict, Unsupported
from connectors.hypercore.work import O, Work

LONGEST_NAME_BYTES = 128
"""What HyperCore takes at most is written nowhere; longer ones are hard to read in its page anyway."""


def require_usable(name: str, what: str = "machine") -> None:
    """Raises `Unsupported` for a name that could not be shown or found again."""
    if not name.strip():
        raise Unsupported(f"The {what}'s name is empty. Give it a name.")
    if bad := sorted({char for char in name if not char.isprintable()}):
        shown = ", ".join(ascii(char) for char in bad)
        raise Unsupported(f"HyperCore cannot take the {what}'s name {name[:80]!a}: it has {shown}. Choose another.")
    if (size := len(name.encode())) > LONGEST_NAME_BYTES:
        raise Unsupported(
            f"The {what}'s name {name[:40]!a}… has {size} bytes; HyperCore is given at most {LONGEST_NAME_BYTES}. "
            "Shorten it."
        )


def require_free(work: Work[O], name: str, but: str = "") -> None:
    """HyperCore takes a name twice, but its own tools then find neither machine. Raises `Conflict`."""
    if any(vm.name == name and vm.id != but for vm in work.view.vms()):
        raise Conflict(f"{work.settings.endpoint} already has a machine named {name!r}. Choose another name.")
