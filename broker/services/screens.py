"""Screens in the browser: who may open one, the one-time ticket, the address, and the streams that came of it.

The screen of a machine is an order like any other: `connect` writes it with a ticket and answers at once; the pump
carries it out and hands the address to `store_target`; the relay burns the ticket (`admit`), waits for `target_of` and
carries the stream. The remote desktop of a guest (RDP) needs no screen: there is a ticket, `services/guests` tells the
relay where the guest is, and at most its password there is ordered first (`services/guest_passwords`).
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
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from broker.domain.applications import why_not_in_browser
from broker.domain.lifecycle import State
from broker.hypervisors import sealing
from broker.models import (
    ApiToken,
    Application,
    Assignment,
    Client,
    Desktop,
    Entitlement,
    Hypervisor,
    Operation,
    Pool,
    ScreenSession,
    Ticket,
)
from broker.services import audit, brokering, guest_passwords, nudges, operations, power, sessions
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from connectors.base import Power, PowerAction, ScreenOpened

log = structlog.get_logger()

VNC, RDP = Pool.Protocol.VNC.value, Pool.Protocol.RDP.value
NATIVE = Client.NATIVE.value
RELAY_PATH = "/relay/screen"
RDP_PATH = "/relay/rdp"
SUBPROTOCOL = "binary"
"""What the relay speaks once the stream is open."""
TICKET_PREFIX = "ticket."
"""Before the ticket in the WebSocket's list of subprotocols: a ticket never stands in an address or an access log."""

TICKET_S = 30
"""How long a ticket may be used to start."""
TARGET_S = 60
"""How long the screen's address is kept."""
HEARTBEAT_S = 10
LEFT_ALONE = "Nothing was typed or moved for a long time."
"""Why a stream was closed whose user may come back at once."""
RECONNECT_S = 300
"""How long after its stream was last heard of a native client may come back."""
CAME_BACK = "Its program connected anew."
LOST_S = 60
"""A stream whose relay has not been heard of for so long has ended with it."""


@dataclass(frozen=True, slots=True)
class GuestRules:
    """What a viewer has to know of the guest it is to show."""

    name: str
    """The desktop's."""
    account: str
    """ask: the user signs in; pool, local: the relay does, or the guest asks by itself."""
    user: str
    """Of that account; empty if the user signs in. The password never leaves the broker this way."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Leave to open one screen once."""

    ticket: str = field(repr=False)
    """In clear, for the person who asked; only its hash is kept."""
    operation: Operation | None
    """The order for the screen; where a guest shows itself (RDP), for its user's password there, or None."""
    expires_at: datetime
    protocol: str = VNC
    guest: GuestRules | None = None
    """With RDP only."""
    has_clipboard: bool = True

    @property
    def subprotocols(self) -> list[str]:
        """What the WebSocket must offer. RDP carries its ticket in its first message instead."""
        return [SUBPROTOCOL, TICKET_PREFIX + self.ticket] if self.protocol == VNC else []


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
    client: str = Client.BROWSER.value
    application_id: UUID | None = None
    """What alone is shown; None: the whole desktop."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a screen is. `password` is good for one viewing."""

    protocol: str
    host: str
    port: int
    password: str = field(repr=False)
    has_clipboard: bool = True


@dataclass(frozen=True, slots=True)
class Heartbeat:
    session_id: UUID
    bytes_to_user: int
    bytes_from_user: int
    idle_s: float = 0.0
    """How long ago a key or the mouse last moved."""
    ticket_id: UUID | None = None
    """Of a native client: it stays good while the stream lives."""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def address(*, host: str, is_secure: bool, protocol: str = VNC) -> str:
    """The relay's public WebSocket address: its own if it runs apart, else beside the page that asked."""
    base = settings.RELAY_URL or f"{'wss' if is_secure else 'ws'}://{host}"
    return base.rstrip("/") + (RDP_PATH if protocol == RDP else RELAY_PATH)


# --- asking ----------------------------------------------------------------------------------------------------------


def connect(
    *,
    user: User,
    desktop_id: UUID,
    protocol: str = "",
    session_key: str = "",
    token: ApiToken | None = None,
    application_id: UUID | None = None,
) -> Opening:
    """Give out a one-time ticket for the screen of the user's own desktop, with an order for it where it needs one.

    With `application_id` for that application alone, of the desktop's pool.

    The ticket is bound to user, desktop, its epoch, the protocol and to what asked: a browser session or a token.
    `protocol`: empty, the desktop's own. Raises `Invalid` for one that is not its pool's, `Missing` for a desktop that
    is not the user's, `Forbidden` if the entitlement is gone, and `Clash` if it is not ready: one that is switched off
    is started, and `Clash.operation` is what brings it up.
    """
    desktop = own_desktop(user, desktop_id, session_key=session_key, token=token, application_id=application_id)
    if application_id is not None:
        application = offered(application_id)
        if why := why_not_in_browser(protocol=desktop.pool.protocol, is_remote_app=application.program.is_remote_app):
            raise Clash(f"{application} is not shown in the browser. {why}")
    own = desktop.pool.protocol
    if protocol not in ("", own):
        raise Invalid("The desktop is not shown in this way.", {"protocol": f"This desktop's is {own}."})
    refuse_unready(user, desktop)
    return _give_out(user, desktop, session_key, token, application_id)


def own_desktop(
    user: User, desktop_id: UUID, *, session_key: str, token: ApiToken | None, application_id: UUID | None = None
) -> Desktop:
    """The desktop, with pool and hypervisor, if this person may open it now, or an application on it, and somebody asks
    whose right can end.

    Raises `Missing` for one that is not theirs, `Forbidden` if the entitlement is gone.
    """
    if not session_key and token is None:
        raise Forbidden("A screen is opened from a signed-in browser or with an API token.")
    assignment = (
        Assignment.objects.filter(user=user, desktop_id=desktop_id, until=None)
        .select_related("desktop__hypervisor", "desktop__pool")
        .first()
    )
    if assignment is None:
        raise Missing("There is no such desktop.")
    if not brokering.may_open(user, assignment.pool_id, application_id):
        what = "this application" if application_id else f"the pool {assignment.desktop.pool}"
        raise Forbidden(f"You no longer have access to {what}. Ask your administrator.")
    return assignment.desktop


def offered(application_id: UUID) -> Application:
    """Raises `Missing` unless it is offered at the moment."""
    application = Application.objects.filter(pk=application_id, is_enabled=True).first()
    if application is None:
        raise Missing("This application is not offered at the moment. Ask your administrator.")
    return application


def refuse_unready(user: User, desktop: Desktop) -> None:
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


def _give_out(
    user: User, desktop: Desktop, session_key: str, token: ApiToken | None, application_id: UUID | None
) -> Opening:
    plain, protocol = secrets.token_urlsafe(32), desktop.pool.protocol
    expires_at = timezone.now() + timedelta(seconds=TICKET_S)
    with transaction.atomic():
        operation = _order(user, desktop)
        Ticket(
            hash=digest(plain),
            user=user,
            desktop=desktop,
            epoch=desktop.epoch,
            protocol=protocol,
            application_id=application_id,
            session_key=digest(session_key) if session_key else "",
            token=token,
            operation=operation,
            expires_at=expires_at,
        ).save(force_insert=True)
        audit.record(actor=user, action="desktop.connect", subject=desktop)
    rules = _rules(desktop) if protocol == RDP else None
    return Opening(plain, operation, expires_at, protocol, rules, desktop.pool.has_clipboard)


def _order(user: User, desktop: Desktop) -> Operation | None:
    """What has to be done before the stream can stand; None if nothing has."""
    if desktop.pool.protocol == VNC:
        return order_screen(user, desktop)
    return guest_passwords.prepare(user=user, desktop=desktop)


def _rules(desktop: Desktop) -> GuestRules:
    pool = desktop.pool
    account = Pool.GuestAccount(pool.guest_account)
    if account == Pool.GuestAccount.LOCAL and not guest_passwords.is_used(desktop):
        account = Pool.GuestAccount.ASK
    return GuestRules(desktop.name, account.value, "" if account == Pool.GuestAccount.ASK else pool.guest_user)


def order_screen(user: User, desktop: Desktop) -> Operation:
    """The order that makes the screen. In the transaction of whoever waits for it."""
    return operations.order(
        kind=Operation.Kind.SCREEN,
        hypervisor_id=desktop.hypervisor_id,
        desktop=desktop,
        parameters=operations.machine_parameters(desktop) | {"valid_s": TICKET_S},
        requested_by=user,
        rank=operations.RANK_SCREEN,
        changes=False,
    )


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


def admit(*, ticket: str, session_key: str, protocol: str = VNC) -> Admission:
    """Burn a ticket: of any number who show the same one, a single caller gets past this line.

    `session_key` is what the browser's cookie holds (empty without one), `protocol` what it came to speak. Raises
    `Forbidden`; the ticket stays burned even if what came with it was wrong, since then it has leaked.
    """
    now = timezone.now()
    rows = Ticket.objects.filter(hash=digest(ticket), client=Client.BROWSER)
    burned = rows.filter(used_at=None, expires_at__gt=now).update(used_at=now)
    if burned != 1:
        raise Forbidden("This ticket is unknown, was used before, or has expired. Open the desktop again.")
    found = Ticket.objects.select_related("user", "desktop", "token").get(hash=digest(ticket))
    auth_hash = refuse_other_holder(found, session_key)
    if found.protocol != protocol:
        raise Forbidden("This ticket was given out for another kind of screen.")
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
        application_id=found.application_id,
    )


def refuse_other_holder(ticket: Ticket, session_key: str) -> str:
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
    ticket = Ticket.objects.select_related("operation", "desktop__pool").get(pk=ticket_id)
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
    has_clipboard = ticket.desktop.pool.has_clipboard
    return Target(opened["protocol"], opened["host"], int(opened["port"]), opened["password"], has_clipboard)


def operation_of(ticket_id: UUID) -> UUID | None:
    return Ticket.objects.values_list("operation_id", flat=True).get(pk=ticket_id)


def start_session(*, admission: Admission, address: str | None) -> UUID:
    """Write down that a stream began, and with it that its user is there.

    A native client that comes back takes the place of the stream it had.
    """
    now = timezone.now()
    is_native = admission.client == NATIVE
    session = ScreenSession(
        desktop_id=admission.desktop_id,
        user_id=admission.user_id,
        epoch=admission.epoch,
        protocol=admission.protocol,
        client=admission.client,
        ticket_id=admission.ticket_id if is_native else None,
        address=address,
        session_key=digest(admission.session_key) if admission.session_key else "",
        token_id=admission.token_id,
        started_at=now,
        seen_at=now,
        input_at=now,
    )
    with transaction.atomic():
        sessions.lock(admission.desktop_id, admission.user_id)
        if is_native:
            _end_earlier(admission, now)
        session.save(force_insert=True)
        sessions.entered(session)
        _note(session, "screen.opened", f"{session.user} opened the screen.")
        nudges.announce("desktops", user=str(session.user_id), desktop=str(session.desktop_id))
    return session.pk


def _end_earlier(admission: Admission, now: datetime) -> None:
    """Programs connect anew before anybody noticed that they were gone: one stream a ticket."""
    earlier = ScreenSession.objects.filter(ticket=admission.ticket_id, ended_at=None).select_related("user", "desktop")
    for session in earlier:
        _note(session, "screen.closed", f"The screen of {session.user} was closed: {CAME_BACK}")
    if earlier.update(ended_at=now, end_reason=CAME_BACK):
        recheck(desktop=admission.desktop_id, user=admission.user_id)


def end_session(*, heartbeat: Heartbeat, reason: str) -> None:
    """Write down that a stream ended, and why. Ending it again changes nothing."""
    streams = ScreenSession.objects.select_related("user", "desktop")
    session = streams.filter(pk=heartbeat.session_id, ended_at=None).first()
    if session is None:
        return
    now = timezone.now()
    with transaction.atomic():
        sessions.lock(session.desktop_id, session.user_id)
        ended = ScreenSession.objects.filter(pk=session.pk, ended_at=None).update(
            seen_at=now,
            input_at=now - timedelta(seconds=heartbeat.idle_s),
            ended_at=now,
            end_reason=reason[:100],
            bytes_to_user=heartbeat.bytes_to_user,
            bytes_from_user=heartbeat.bytes_from_user,
        )
        if not ended:
            return
        sessions.left(session.desktop_id, session.user_id)
        _note(session, "screen.closed", f"The screen of {session.user} was closed: {reason}")
        nudges.announce("desktops", user=str(session.user_id), desktop=str(session.desktop_id))


def _note(session: ScreenSession, kind: str, message: str) -> None:
    operations.event(kind, message, desktop=session.desktop).save(force_insert=True)


def beat(heartbeats: Sequence[Heartbeat]) -> None:
    """All streams of one relay in one statement: they are alive, so much has flowed, and then somebody last moved."""
    now = timezone.now()
    rows = [
        ScreenSession(
            pk=one.session_id,
            seen_at=now,
            input_at=now - timedelta(seconds=one.idle_s),
            bytes_to_user=one.bytes_to_user,
            bytes_from_user=one.bytes_from_user,
        )
        for one in heartbeats
    ]
    fields = ["seen_at", "input_at", "bytes_to_user", "bytes_from_user"]
    ScreenSession.objects.bulk_update(rows, fields, batch_size=500)
    if native := [one.ticket_id for one in heartbeats if one.ticket_id]:
        # Not those that were made void meanwhile.
        still_good = Ticket.objects.filter(pk__in=native, expires_at__gt=now)
        still_good.update(expires_at=now + timedelta(seconds=RECONNECT_S))


def void_tickets(streams: QuerySet[ScreenSession]) -> None:
    """Native clients of these streams, which would come back by themselves, are not let in again."""
    Ticket.objects.filter(pk__in=streams.values("ticket")).update(expires_at=timezone.now())


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
    # Its user may have ended one from another device: its row says so.
    rows = ScreenSession.objects.filter(pk__in=list(streams), ended_at__isnull=False)
    ended: dict[UUID, str] = dict(rows.values_list("pk", "end_reason"))
    found = {name: ended.get(name) or facts.why_not(admission) for name, admission in streams.items()}
    return {name: why for name, why in found.items() if why}


def why_not(admission: Admission) -> str:
    """Why whoever was admitted may not see the desktop at this moment, in words; empty if they may."""
    return _Facts.read([admission]).why_not(admission)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What must hold for streams to go on, read in one go."""

    held: Mapping[tuple[UUID, int], tuple[int, UUID]]
    """(desktop, user) -> (epoch, pool) of open assignments"""
    entitled: frozenset[tuple[UUID, UUID | None, int]]
    """(pool, application or None, user)"""
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
        offered = Q(application=None) | Q(application__is_enabled=True)
        given = Entitlement.objects.filter(offered, pool__in=pools)
        alone = given.filter(user__in=users).values_list("pool_id", "application_id", "user_id")
        grouped = given.filter(group__user__in=users).values_list("pool_id", "application_id", "group__user")
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
        if (held[1], stream.application_id, stream.user_id) not in self.entitled:
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
    sessions.end_lost()
    stale = Ticket.objects.filter(target_expires_at__lt=now).update(target=b"", target_expires_at=None)
    return ended + stale
