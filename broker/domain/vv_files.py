"""The `.vv` file by which Remote Viewer (virt-viewer) opens the screen of a machine. Pure.

The format is GLib's key file; keys as virt-viewer 11 reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CONTENT_TYPE = "application/x-virt-viewer"
_FORBIDDEN = frozenset("\r\n\0")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person's program is told about one desktop."""

    host: str
    """Where the relay listens; the name in its certificate."""
    port: int
    ticket: str = field(repr=False)
    user: str
    title: str


def content(wish: Wish) -> bytes:
    """The file. Raises `ValueError` for a value that does not fit on one line."""
    lines = (
        "[virt-viewer]",
        "type=vnc",
        f"host={_text(wish.host)}",
        f"port={wish.port}",
        f"username={_text(wish.user)}",
        f"password={_text(wish.ticket)}",
        f"title={_text(wish.title)}",
        # It is worth nothing once it was used.
        "delete-this-file=1",
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _text(value: str) -> str:
    if _FORBIDDEN & set(value):
        raise ValueError("a value of a .vv file that does not fit on one line")
    escaped = value.replace("\\", "\\\\")
    return "\\s" + escaped[1:] if escaped.startswith(" ") else escaped
