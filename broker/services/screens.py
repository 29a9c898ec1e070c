"""Screens in the browser: who may open one, the one-time ticket, the address, and the streams that came of it.

A screen is an order like any other: `connect` writes it with a ticket and answers at once; the pump carries it out and
hands the address to `store_target`; the relay burns the ticket (`admit`), waits for `target_of` and carries the stream.
Nothing here talks to a hypervisor. Tickets and addresses are never logged, and no ticket is kept in clear.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module
from uuid import UUID

import structlog
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.hypervisors import sealing
from broker.models import (
    ApiToken,
    Assignment,
    Desktop,
    Entitlement,
    Hypervisor,
    Operation,
    ScreenSession,
    Ticket,
)
from broker.services import audit, brokering, nudges, operations, power
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from connectors.base import Power, PowerAction, ScreenOpened

log = structlog.get_logger()

PROTOCOLS = ("vnc",)
"""What `connect` takes."""
RELAY_PATH = "/relay/screen"
SUBPROTOCOL = "binary"
"""What the relay speaks once the stream is open."""
TICKET_PREFIX = "ticket."
"""Before the ticket in the WebSocket's list of subprotocols: a ticket never stands in an address or an access log."""

TICKET_S = 30
"""How long a ticket may be used to start."""
TARGET_S = 60
"""How long the screen's address is kept."""
HEARTBEAT_S = 10
LOST_S = 60
"""A stream whose relay has not been heard of for so long has ended with it."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Leave to open one screen once."""

    ticket: str = field(repr=False)
    """In clear, for the person who asked; only its hash is kept."""
    operation: Operation
    expires_at: datetime

    @property
    def subprotocols(self) -> list[str]:
        """What the WebSocket must offer."""
        return [SUBPROTOCOL, TICKET_PREFIX + self.ticket]


@dataclass(frozen=True, slots=True)
class Admission:
    """A burned ticket that proved good: whose stream of which desktop this is, and what must stay true for it."""

    ticket_id: UUID
    desktop_id: UUID
    epoch: int
    user_id: int
    protocol: str
    session_key: str = field(repr=False, default="")
    """The browser session's key, in clear and only in the relay's memory; empty if a token asked."""
    auth_hash: str = field(repr=False, default="")
    """Changes with the user's password."""
    token_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a screen is. `password` is good for one viewing."""

    protocol: str
    host: str
    port: int
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    session_id: UUID
    bytes_to_user: int
    bytes_from_user: int


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def address(*, host: str, is_secure: bool) -> str:
    """The relay's public WebSocket address: its own if it runs apart, else beside the page that asked."""
    base = settings.RELAY_URL or f"{'wss' if is_secure else 'ws'}://{host}"
    return base.rstrip("/") + RELAY_PATH


# --- asking ----------------------------------------------------------------------------------------------------------


def connect(
    *, user: User, desktop_id: UUID, protocol: str, session_key: str = "", token: ApiToken | None = None
) -> Opening:
    """Order the screen of the user's own desktop and give out a one-time ticket for it.

    The ticket is bound to user, desktop, its epoch, the protocol and to what asked: a browser session or a token.
    Raises `Invalid` for a protocol we do not speak, `Missing` for a desktop that is not the user's, `Forbidden` if the
    entitlement is gone, and `Clash` if it is not ready: one that is switched off is started, and `Clash.operation` is
    what brings it up.
    """
    if protocol not in PROTOCOLS:
        raise Invalid("This way to open a screen is not known.", {"protocol": f"One of: {', '.join(PROTOCOLS)}."})
    if not session_key and token is None:
        raise Forbidden("A screen is opened from a signed-in browser or with an API token.")
    desktop = _own_desktop(user, desktop_id)
    _refuse_unready(user, desktop)
    return _order(user, desktop, protocol, session_key, token)


def _own_desktop(user: User, desktop_id: UUID) -> Desktop:
    assignment = (
        Assignment.objects.filter(user=user, desktop_id=desktop_id, until=None)
        .select_related("desktop__hypervisor", "desktop__pool")
        .first()
    )
    if assignment is None:
        raise Missing("There is no such desktop.")
    if not brokering.is_entitled(user, assignment.pool_id):
        raise Forbidden(f"You no longer have access to the pool {assignment.desktop.pool}. Ask your administrator.")
    return assignment.desktop


def _refuse_unready(user: User, desktop: Desktop) -> None:
    """Raises `Clash` unless the screen can be ordered now; starts a desktop that is switched off."""
    if desktop.state != State.ASSIGNED:
        raise Clash(f"{desktop.name} cannot be found at the moment. We keep looking; your administrator can see why.")
    if desktop.is_moving:
        raise Clash(f"{desktop.name} is being moved to another host. It will be there in a while.")
    if desktop.hypervisor.status in (Hypervisor.Status.DOWN, Hypervisor.Status.REFUSED):
        raise Clash(f"The host of {desktop.name} cannot be reached at the moment. We keep trying.")
    wake = {Power.OFF: PowerAction.ON, Power.SUSPENDED: PowerAction.RESUME}.get(Power(desktop.power))
    if wake is None:
        return
    under_way = operations.unfinished_change(desktop) or power.set_power(
        actor=user, desktop_id=desktop.pk, action=wake.value
    )
    raise Clash(f"{desktop.name} is being started.", under_way)


def _order(user: User, desktop: Desktop, protocol: str, session_key: str, token: ApiToken | None) -> Opening:
    plain = secrets.token_urlsafe(32)
    expires_at = timezone.now() + timedelta(seconds=TICKET_S)
    with transaction.atomic():
        operation = operations.order(
            kind=Operation.Kind.SCREEN,
            hypervisor_id=desktop.hypervisor_id,
            desktop=desktop,
            parameters=operations.machine_parameters(desktop) | {"valid_s": TICKET_S},
            requested_by=user,
            rank=operations.RANK_SCREEN,
            changes=False,
        )
        Ticket(
            hash=digest(plain),
            user=user,
            desktop=desktop,
            epoch=desktop.epoch,
            protocol=protocol,
            session_key=digest(session_key) if session_key else "",
            token=token,
            operation=operation,
            expires_at=expires_at,
        ).save(force_insert=True)
        audit.record(actor=user, action="desktop.connect", subject=desktop)
    return Opening(ticket=plain, operation=operation, expires_at=expires_at)


def store_target(operation: Operation, opened: ScreenOpened) -> None:
    """The pump's part: keep the address encrypted for the relay that waits for it, and wake that relay."""
    sealed = sealing.seal(
        {"protocol": opened.protocol, "host": opened.host, "port": opened.port, "password": opened.password}
    )
    Ticket.objects.filter(operation=operation).update(
        target=sealed, target_expires_at=timezone.now() + timedelta(seconds=TARGET_S)
    )
    nudges.announce("screens", operation=str(operation.pk))


# --- the relay's part ------------------------------------------------------------------------------------------------


def admit(*, ticket: str, session_key: str) -> Admission:
    """Burn a ticket: of any number who show the same one, a single caller gets past this line.

    `session_key` is what the browser's cookie holds (empty without one). Raises `Forbidden`; the ticket stays burned
    even if what came with it was wrong, since then it has leaked.
    """
    now = timezone.now()
    burned = Ticket.objects.filter(hash=digest(ticket), used_at=None, expires_at__gt=now).update(used_at=now)
    if burned != 1:
        raise Forbidden("This ticket is unknown, was used before, or has expired. Open the desktop again.")
    found = Ticket.objects.select_related("user", "desktop", "token").get(hash=digest(ticket))
    auth_hash = _refuse_other_holder(found, session_key)
    if found.desktop.epoch != found.epoch:
        raise Forbidden("The desktop has changed hands since the ticket was given out.")
    return Admission(
        ticket_id=found.pk,
        desktop_id=found.desktop_id,
        epoch=found.epoch,
        user_id=found.user_id,
        protocol=found.protocol,
        session_key="" if found.token_id else session_key,
        auth_hash=auth_hash,
        token_id=found.token_id,
    )


def _refuse_other_holder(ticket: Ticket, session_key: str) -> str:
    """Raises `Forbidden` unless who shows the ticket is who got it. Returns the hash that a new password changes."""
    if not ticket.user.is_active:
        raise Forbidden("This account is switched off.")
    if ticket.token is not None:
        if not _is_valid(ticket.token):
            raise Forbidden("The API token that asked for this ticket is no longer valid.")
        return ""
    if not session_key or not hmac.compare_digest(digest(session_key), ticket.session_key):
        raise Forbidden("This ticket was given to another browser session.")
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    if get_user(request).pk != ticket.user_id:
        raise Forbidden("The browser session that asked for this ticket has ended.")
    return ticket.user.get_session_auth_hash()


def _is_valid(token: ApiToken) -> bool:
    return token.revoked_at is None and token.expires_at > timezone.now()


def target_of(ticket_id: UUID) -> Target | None:
    """Where the screen is, told once; None while the order is under way.

    Raises `Clash`, in words, if the order failed, and `Forbidden` if the desktop changed hands meanwhile.
    """
    ticket = Ticket.objects.select_related("operation", "desktop").get(pk=ticket_id)
    if ticket.desktop.epoch != ticket.epoch:
        raise Forbidden("The desktop was released.")
    if not ticket.target:
        if ticket.operation is None or ticket.operation.state in (Operation.State.FAILED, Operation.State.CANCELLED):
            words = ticket.operation.error if ticket.operation else ""
            raise Clash(words or "The screen could not be opened.", ticket.operation)
        return None
    Ticket.objects.filter(pk=ticket_id).update(target=b"", target_expires_at=None)
    if ticket.target_expires_at is None or ticket.target_expires_at <= timezone.now():
        raise Clash("The screen's address has expired. Open the desktop again.", ticket.operation)
    opened = sealing.unseal(bytes(ticket.target))
    return Target(opened["protocol"], opened["host"], int(opened["port"]), opened["password"])


def operation_of(ticket_id: UUID) -> UUID | None:
    return Ticket.objects.values_list("operation_id", flat=True).get(pk=ticket_id)


def start_session(*, admission: Admission, address: str | None) -> UUID:
    """Write down that a stream began."""
    now = timezone.now()
    session = ScreenSession(
        desktop_id=admission.desktop_id,
        user_id=admission.user_id,
        epoch=admission.epoch,
        protocol=admission.protocol,
        address=address,
        session_key=digest(admission.session_key) if admission.session_key else "",
        token_id=admission.token_id,
        started_at=now,
        seen_at=now,
    )
    with transaction.atomic():
        session.save(force_insert=True)
        _note(session, "screen.opened", f"{session.user} opened the screen.")
        nudges.announce("desktops", user=str(session.user_id), desktop=str(session.desktop_id))
    return session.pk


def end_session(*, heartbeat: Heartbeat, reason: str) -> None:
    """Write down that a stream ended, and why. Ending it again changes nothing."""
    sessions = ScreenSession.objects.select_related("user", "desktop")
    session = sessions.filter(pk=heartbeat.session_id, ended_at=None).first()
    if session is None:
        return
    now = timezone.now()
    with transaction.atomic():
        ScreenSession.objects.filter(pk=session.pk).update(
            seen_at=now,
            ended_at=now,
            end_reason=reason[:100],
            bytes_to_user=heartbeat.bytes_to_user,
            bytes_from_user=heartbeat.bytes_from_user,
        )
        _note(session, "screen.closed", f"The screen of {session.user} was closed: {reason}")
        nudges.announce("desktops", user=str(session.user_id), desktop=str(session.desktop_id))


def _note(session: ScreenSession, kind: str, message: str) -> None:
    operations.event(kind, message, desktop=session.desktop).save(force_insert=True)


def beat(heartbeats: Sequence[Heartbeat]) -> None:
    """All streams of one relay in one statement: they are alive, and so much has flowed."""
    now = timezone.now()
    rows = [
        ScreenSession(
            pk=one.session_id, seen_at=now, bytes_to_user=one.bytes_to_user, bytes_from_user=one.bytes_from_user
        )
        for one in heartbeats
    ]
    ScreenSession.objects.bulk_update(rows, ["seen_at", "bytes_to_user", "bytes_from_user"], batch_size=500)


# --- ending ----------------------------------------------------------------------------------------------------------


def recheck(**which: UUID | int | str) -> None:
    """Ask the relays to look again, once this transaction has committed, whether their streams may go on.

    `which` narrows it: `desktop`, `user`. The rows decide, not the message; without it they look every 30 s.
    """
    nudges.announce("screens", **{name: str(value) for name, value in which.items()})


def closures(streams: Mapping[UUID, Admission]) -> dict[UUID, str]:
    """Which of these streams must end, and why, in words for the person before the screen. A handful of statements."""
    if not streams:
        return {}
    facts = _Facts.read(streams.values())
    found = {name: facts.why_not(admission) for name, admission in streams.items()}
    return {name: why for name, why in found.items() if why}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What must hold for streams to go on, read in one go."""

    held: Mapping[tuple[UUID, int], tuple[int, UUID]]
    """(desktop, user) -> (epoch, pool) of open assignments"""
    entitled: frozenset[tuple[UUID, int]]
    """(pool, user)"""
    auth_hashes: Mapping[int, str]
    """of active users"""
    sessions: frozenset[str]
    tokens: frozenset[UUID]

    @classmethod
    def read(cls, streams: Iterable[Admission]) -> _Facts:
        streams, now = list(streams), timezone.now()
        users = {stream.user_id for stream in streams}
        held = {
            (desktop, user): (epoch, pool)
            for desktop, user, epoch, pool in Assignment.objects.filter(
                until=None, user__in=users, desktop__in={stream.desktop_id for stream in streams}
            ).values_list("desktop_id", "user_id", "desktop__epoch", "pool_id")
        }
        pools = {pool for _, pool in held.values()}
        given = Entitlement.objects.filter(pool__in=pools)
        alone = given.filter(user__in=users).values_list("pool_id", "user_id")
        grouped = given.filter(group__user__in=users).values_list("pool_id", "group__user")
        session_keys = {stream.session_key for stream in streams if stream.session_key}
        tokens = {stream.token_id for stream in streams if stream.token_id}
        return cls(
            held=held,
            entitled=frozenset([*alone, *grouped]),
            auth_hashes={
                user.pk: user.get_session_auth_hash() for user in User.objects.filter(pk__in=users, is_active=True)
            },
            sessions=frozenset(
                Session.objects.filter(session_key__in=session_keys, expire_date__gt=now).values_list(
                    "session_key", flat=True
                )
            ),
            tokens=frozenset(
                ApiToken.objects.filter(pk__in=tokens, revoked_at=None, expires_at__gt=now).values_list("pk", flat=True)
            ),
        )

    def why_not(self, stream: Admission) -> str:
        """Empty if the stream may go on."""
        held = self.held.get((stream.desktop_id, stream.user_id))
        if held is None or held[0] != stream.epoch:
            return "The desktop was released."
        if (held[1], stream.user_id) not in self.entitled:
            return "You no longer have access to this desktop."
        if stream.user_id not in self.auth_hashes:
            return "This account was switched off."
        if stream.token_id:
            return "" if stream.token_id in self.tokens else "The API token is no longer valid."
        if stream.session_key not in self.sessions or self.auth_hashes[stream.user_id] != stream.auth_hash:
            return "You signed out."
        return ""


def end_lost() -> int:
    """Housekeeping: end the sessions of relays that are gone and forget addresses nobody came for. Returns how many."""
    now = timezone.now()
    lost = ScreenSession.objects.filter(ended_at=None, seen_at__lt=now - timedelta(seconds=LOST_S))
    ended = lost.update(ended_at=now, end_reason="The relay stopped.")
    stale = Ticket.objects.filter(target_expires_at__lt=now).update(target=b"", target_expires_at=None)
    return ended + stale
