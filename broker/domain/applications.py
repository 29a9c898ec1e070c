"""A program that a session starts instead of a whole desktop. Pure.

Linux: xrdp's session manager starts the client's "alternate shell" in its "working dir" (MS-RDPBCGR §2.2.1.11.1.1) in
place of the desktop, so the session is that program and ends with it. Windows: RemoteApp, which the client asks for by
keys of its file (MS-RDPERP); IronRDP does not know it, so no browser shows one.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST = 255
"""Characters of what a session is told to start: 512 bytes with the end of the text, in UTF-16."""
NOT_IN_BROWSER = "It is shown by a Remote Desktop program only: browsers cannot show a single Windows application."
NO_SCREEN = "Its pool shows the machine's screen (VNC), which always holds the whole desktop."


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    command: str
    arguments: str = ""
    folder: str = ""
    is_remote_app: bool = False

    @property
    def line(self) -> str:
        """Command and arguments, as a session is told."""
        return f"{self.command} {self.arguments}".rstrip()


def why_not_in_browser(*, protocol: str, is_remote_app: bool) -> str:
    """Why the browser does not show it, in words for its user; empty if it does."""
    if protocol != "rdp":
        return NO_SCREEN
    return NOT_IN_BROWSER if is_remote_app else ""
