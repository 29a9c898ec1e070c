"""What can go wrong with disks and their copies, grouped by what the caller does next.

`message` is for people: what failed, on what, what to do. It never holds a secret.
"""

from __future__ import annotations


class DiskError(Exception):
    """Base of all; never raised itself."""

    retry = False
    """Whether the same copy may succeed later without anybody changing anything."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Lost(DiskError):
    """One end no longer answers: abandon this copy, begin anew later with back-off."""

    retry = True


class SourceLost(Lost):
    """The end that is read."""


class SinkLost(Lost):
    """The end that is written."""


class StoreLost(Lost):
    """Where the vault lies."""


class OutOfSpace(DiskError):
    """No room at the end that is written: make room or copy elsewhere. Nothing of what was there is harmed."""


class Refused(DiskError):
    """It cannot be done that way, and trying again changes nothing: tell the administrator."""


class SourceRefused(Refused):
    """Not there, not readable, not the format that was said."""


class SinkRefused(Refused):
    """Read-only, no rights, too small, a format that cannot be written."""


class VaultRefused(Refused):
    """The vault cannot be used as it is."""


class NotAVault(VaultRefused):
    """There is no vault, or its description is not readable."""


class WrongKey(VaultRefused):
    """The vault was made with another key."""


class NewerFormat(VaultRefused):
    """A later release made or changed this vault."""


class NotFound(DiskError):
    """The object, point or run is not there: read the list again."""


class Damaged(DiskError):
    """What is stored is not what was written: verify the point, then run a copy, which reads the damaged areas anew."""


class Cancelled(DiskError):
    """Somebody asked to stop: abandon this copy."""
