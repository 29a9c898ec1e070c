"""Desktops in programs of people's own: the file that opens one, and who may come in by it.

A file holds a ticket. It must be shown for the first time within `START_S`; from then on it belongs to the address that
showed it, which may come back while its stream lives and for `RECONNECT_S` after, since such programs connect anew by
themselves. Everything else that ends a browser's stream ends this one, and voids the ticket.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from broker.domain import native, rdp_files, vv_files
from broker.domain.applications import NO_SCREEN, Program
from broker.hypervisors import sealing
from broker.models import ApiToken, Client, Desktop, Installation, Pool, Ticket
from broker.services import audit, guesses, screens, signing
from broker.services.errors import Clash, Forbidden
from broker.services.screens import Admission

log = structlog.get_logger()

START_S = 300
"""How long a file may be used to start."""
RECONNECT_S = screens.RECONNECT_S
_SESSION_KEY = "session_key"
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
UNKNOWN = "This file is unknown. Get a new one from the portal."
TOO_LATE = "This file is too old. Get a new one from the portal."
ELSEWHERE = "This file is in use at another address. Get a new one from the portal."
CHANGED_HANDS = "The desktop has changed hands since the file was made."
WAIT = "Too many files that are not good came from this address. Wait a quarter of an hour."


@dataclass(frozen=True, slots=True)
class ClientFile:
    """What a person's program opens a desktop by."""

    name: str
    content_type: str
    content: bytes = field(repr=False)
    expires_at: datetime
    """Until when it may be used to start."""


def kind_for(pool: Pool) -> str:
    """Which kind of file opens this pool's desktops; empty if none does."""
    return native.file_kind(
        is_allowed=pool.native_clients,
        protocol=pool.protocol,
        guest_account=pool.guest_account,
        has_rdp_door=bool(settings.RDP_ADDRESS),
        has_vnc_door=bool(settings.VNC_ADDRESS),
    )


def client_file(
    *,
    user: User,
    desktop_id: UUID,
    session_key: str = "",
    token: ApiToken | None = None,
    application_id: UUID | None = None,
) -> ClientFile:
    """A file that opens the user's own desktop, or one application on it, within `START_S`. Written down in the audit.

    Raises as `screens.connect` does, and `Clash` if its desktops are not opened so.
    """
    desktop = screens.own_desktop(user, desktop_id, session_key=session_key, token=token, application_id=application_id)
    program = screens.offered(application_id).program if application_id is not None else None
    kind = kind_for(desktop.pool)
    if not kind:
        raise Clash(f"{desktop.name} is opened in the browser only. Ask your administrator if you need it otherwise.")
    if program and kind != native.RDP_FILE:
        raise Clash(f"{program.name} cannot be opened. {NO_SCREEN}")
    screens.refuse_unready(user, desktop)
    plain, expires_at = _ticket(user, desktop, session_key, token, application_id)
    name = f"{_NO_NAME.sub('_', program.name if program else desktop.name)}.{kind}"
    if kind == native.VNC_FILE:
        return ClientFile(name, vv_files.CONTENT_TYPE, _of_screen(desktop, user, plain), expires_at)
    return ClientFile(name, rdp_files.CONTENT_TYPE, _of_guest(desktop, user, plain, program), expires_at)


def _of_screen(desktop: Desktop, user: User, ticket: str) -> bytes:
    host, _, port = settings.VNC_ADDRESS.rpartition(":")
    title = f"{desktop.pool.name} ({desktop.name})"
    return vv_files.content(vv_files.Wish(host.strip("[]"), int(port), ticket, user.get_username(), title))


def _of_guest(desktop: Desktop, user: User, ticket: str, program: Program | None) -> bytes:
    wish = rdp_files.Wish(
        address=settings.RDP_ADDRESS,
        ticket=ticket,
        user=user.get_username(),
        has_clipboard=desktop.pool.has_clipboard,
        asks_32_bpp=desktop.pool.asks_32_bpp,
        program=program,
    )
    return _signed(wish)


def _signed(wish: rdp_files.Wish) -> bytes:
    lines = rdp_files.settings(wish)
    scope, covered = rdp_files.signed_part(lines)
    return rdp_files.content([*lines, scope, rdp_files.signature_line(signing.sign(covered))])


def _ticket(
    user: User, desktop: Desktop, session_key: str, token: ApiToken | None, application_id: UUID | None
) -> tuple[str, datetime]:
    plain = secrets.token_urlsafe(32)
    expires_at = timezone.now() + timedelta(seconds=START_S)
    with transaction.atomic():
        Ticket(
            hash=screens.digest(plain),
            user=user,
            desktop=desktop,
            epoch=desktop.epoch,
            protocol=desktop.pool.protocol,
            client=Client.NATIVE,
            application_id=application_id,
            session_key=screens.digest(session_key) if session_key and token is None else "",
            holder=sealing.seal({_SESSION_KEY: session_key}) if session_key and token is None else b"",
            token=token,
            expires_at=expires_at,
        ).save(force_insert=True)
        changes = {"client": [None, Client.NATIVE.value]}
        audit.record(actor=user, action="desktop.connect", subject=desktop, changes=changes)
    return plain, expires_at


def admit(*, ticket: str, address: str, protocol: str = screens.RDP) -> Admission:
    """Let in whoever shows a file's ticket from this address, for the first time or again.

    Of any number who show it first, one address gets it. Raises `Forbidden`; who is refused is written down in the
    audit and counted against the address, which after too many is not listened to for a while.
    """
    if guesses.ticket_wait_s(address=address):
        raise Forbidden(WAIT)
    now = timezone.now()
    rows = Ticket.objects.filter(hash=screens.digest(ticket), client=Client.NATIVE, protocol=protocol)
    back = now + timedelta(seconds=RECONNECT_S)
    rows.filter(used_at=None, expires_at__gt=now).update(used_at=now, address=address, expires_at=back)
    found = rows.select_related("user", "desktop", "token").first()
    if found is None:
        _turn_away_stranger(address)
        raise Forbidden(UNKNOWN)
    try:
        return _admission(found, address)
    except Forbidden as refusal:
        _turn_away(found, address, refusal.message)
        raise


def _admission(ticket: Ticket, address: str) -> Admission:
    """Raises `Forbidden` unless it is good, here, and its holder may see the desktop at this moment."""
    if ticket.address and ticket.address != address:
        raise Forbidden(ELSEWHERE)
    if ticket.expires_at <= timezone.now():
        raise Forbidden(TOO_LATE)
    session_key = sealing.unseal(ticket.holder).get(_SESSION_KEY, "")
    auth_hash = screens.refuse_other_holder(ticket, session_key)
    admission = Admission(
        ticket_id=ticket.pk,
        desktop_id=ticket.desktop_id,
        epoch=ticket.epoch,
        user_id=ticket.user_id,
        protocol=ticket.protocol,
        session_key=session_key,
        auth_hash=auth_hash,
        token_id=ticket.token_id,
        client=Client.NATIVE,
        application_id=ticket.application_id,
    )
    if ticket.desktop.epoch != ticket.epoch:
        raise Forbidden(CHANGED_HANDS)
    if why := screens.why_not(admission):
        raise Forbidden(why)
    return admission


def _turn_away(ticket: Ticket, address: str, reason: str) -> None:
    """Whoever shows this knows a ticket of ours, so it is written down: once of its own address, where a program merely
    tries to come back, as these do some twenty times."""
    log.warning("native.refused", desktop=str(ticket.desktop_id), address=address, reason=reason)
    if ticket.address == address and ticket.expires_at <= timezone.now():
        return
    guesses.note_bad_ticket(address=address)
    changes = {"address": [ticket.address, address], "reason": [None, reason], "user": [None, str(ticket.user)]}
    audit.record(actor=None, action="desktop.refuse_client", subject=ticket.desktop, changes=changes)
    if ticket.address == address:
        Ticket.objects.filter(pk=ticket.pk).update(expires_at=timezone.now())


def _turn_away_stranger(address: str) -> None:
    """The first try of an address and the one that silences it are written down: an audit is not to be flooded."""
    count = guesses.note_bad_ticket(address=address)
    if count in (1, guesses.TICKET_LIMIT):
        changes = {"address": [None, address], "reason": [None, UNKNOWN if count == 1 else WAIT]}
        audit.record(actor=None, action="client.refuse", subject=Installation.objects.get(), changes=changes)
    log.warning("native.refused", address=address, reason=UNKNOWN)


def order_screen(*, admission: Admission) -> None:
    """Order the screen of whoever was admitted, as its address is told once and soon forgotten.

    Raises `Clash` if the desktop is not ready; one that is switched off is started.
    """
    ticket = Ticket.objects.select_related("user", "desktop__pool", "desktop__hypervisor").get(pk=admission.ticket_id)
    screens.refuse_unready(ticket.user, ticket.desktop)
    with transaction.atomic():
        operation = screens.order_screen(ticket.user, ticket.desktop)
        Ticket.objects.filter(pk=ticket.pk).update(operation=operation, target=b"", target_expires_at=None)


def void(*, admission: Admission) -> None:
    """The stream was ended for good: its client, which would come back by itself, is not let in again. Idempotent."""
    Ticket.objects.filter(pk=admission.ticket_id, client=Client.NATIVE).update(expires_at=timezone.now())
