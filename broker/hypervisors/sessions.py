"""Inventory sessions: one open connector a hypervisor and process, kept between readings so that cursors stay good."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from uuid import UUID

from broker.hypervisors import gate
from broker.models import Hypervisor
from connectors.base import Connector, Cursor

IDLE_S = 120.0


@dataclass
class Session:
    connector: Connector
    access: int
    """`gate.access` of the row it was opened with."""
    cursor: Cursor | None = None
    complete_at: float = 0.0
    """`time.monotonic()` of the last complete listing of this session."""
    used_at: float = field(default_factory=time.monotonic)
    is_checked: bool = False


_sessions: dict[UUID, Session] = {}
_guard = threading.Lock()


def borrow(hypervisor: Hypervisor) -> Session:
    """The session of this hypervisor, opened anew if its settings changed. The inventory lease keeps users apart."""
    access = gate.access(hypervisor)
    with _guard:
        session = _sessions.pop(hypervisor.pk, None)
    if session is not None and session.access != access:
        gate.shut(session.connector)
        session = None
    return session or Session(gate.open_hypervisor(hypervisor), access)


def give_back(hypervisor_id: UUID, session: Session) -> None:
    """Keep it for the next reading; close those that nobody used for a while."""
    session.used_at = time.monotonic()
    with _guard:
        _sessions[hypervisor_id] = session
        stale = [key for key, kept in _sessions.items() if session.used_at - kept.used_at > IDLE_S]
        idle = [_sessions.pop(key) for key in stale]
    for old in idle:
        gate.shut(old.connector)


def discard(session: Session) -> None:
    """Close a session that broke."""
    gate.shut(session.connector)
