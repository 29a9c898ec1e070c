"""Programs of a person's own that show a desktop: which file opens which desktop."""

from __future__ import annotations

from broker.domain import rdp_files, vv_files

RDP_FILE = "rdp"
"""For Remote Desktop programs."""
VNC_FILE = "vv"
"""For Remote Viewer."""
CONTENT_TYPES = (rdp_files.CONTENT_TYPE, vv_files.CONTENT_TYPE)


def file_kind(*, is_allowed: bool, protocol: str, guest_account: str, has_rdp_door: bool, has_vnc_door: bool) -> str:
    """The kind of file by which a desktop of such a pool may be opened; empty if by none.

    Not where guests know only the pool's own account, or one with a password for each assignment: that password never
    leaves the broker, and between such a program and the guest nobody can type it.
    """
    if not is_allowed:
        return ""
    if protocol == "vnc":
        return VNC_FILE if has_vnc_door else ""
    return RDP_FILE if protocol == "rdp" and guest_account == "ask" and has_rdp_door else ""
