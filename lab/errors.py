"""What can go wrong in a world; each server says it in its maker's own words."""

from __future__ import annotations


class WorldError(Exception):
    """Base of all."""


class NoSuch(WorldError):
    """There is no such thing, or the account may not see it."""


class WrongState(WorldError):
    """Not in this power state."""


class OutOfStorage(WorldError):
    """The storage has no room for it."""


class OutOfMemory(WorldError):
    """The host has no memory left for it."""


class InUse(WorldError):
    """Something else hangs from it: a linked clone, a snapshot."""


class Locked(WorldError):
    """Another task works on it."""


class NameTaken(WorldError):
    """Names are unique there."""


class HostDown(WorldError):
    """The host does not answer."""


class Forbidden(WorldError):
    """The account may see it but may not do that."""


class GuestSilent(WorldError):
    """Nothing in the guest hears: no agent, or not booted."""


class TaskBroke(WorldError):
    """A task failed in mid-flight, as it was told to."""


class Misfit(WorldError):
    """No disk has such a size, or it does not reach that far."""


class UnknownToken(WorldError):
    """Of another history than the disk's: what has changed since cannot be told."""
