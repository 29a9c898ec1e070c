"""What a connector may have beside `connectors.base.Connector`: asking guests who is logged on. Data only, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class GuestUsers:
    """What one guest said."""

    machine: str
    """The platform's id of the machine."""
    began_at: datetime
    """When it was asked, by our clock."""
    names: tuple[str, ...] | None
    """Who is logged on, in the guest's words, each once; empty: nobody is. None: it could not tell, which says
    nothing."""


@runtime_checkable
class TellsUsers(Protocol):
    """The platform has a way to ask a guest who is logged on, without an account in the guest."""

    def guest_users(self, machines: Sequence[str], deadline: float) -> Iterator[GuestUsers]:
        """Ask these machines' guests. Changes nothing.

        A machine that is gone, off or silent yields `names` None, or nothing at all; so do those for which there was no
        time left. Raises `ConnectorError` only when the endpoint is lost.
        """
