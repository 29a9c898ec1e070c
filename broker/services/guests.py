"""The guest behind a desktop, as its user's stream meets it over RDP: where it is, as whom, and whether it is still the
same one.

Nothing here talks to a guest; the relay does, and asks here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from broker.domain.applications import Program
from broker.hypervisors import sealing
from broker.models import Application, Assignment, Desktop, GuestCertificate, Operation, Pool, Ticket
from broker.services import audit, guest_passwords, nudges, operations
from broker.services.errors import Clash, Forbidden
from broker.services.permissions import Right, require
from broker.services.rows import locked
from broker.services.screens import Admission

log = structlog.get_logger()

PASSWORD = guest_passwords.PASSWORD
CHANGED = (
    "The desktop answers with another certificate than when it was first opened, so it may be somebody else. "
    "Tell your administrator."
)


@dataclass(frozen=True, slots=True)
class GuestAccount:
    """As whom guests let people in who do not sign in themselves."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach a desktop's guest, and by which rules of its pool."""

    addresses: tuple[str, ...]
    """Never empty."""
    port: int
    asks_32_bpp: bool
    has_clipboard: bool
    account: GuestAccount | None
    """None: the user signs in."""
    program: Program | None = None
    """What alone is shown; None: the whole desktop."""
    can_renew: bool = False
    """Whether a guest that refuses the account may be told of (`distrust`), and gets its password anew then."""


def way_to(admission: Admission) -> Way | None:
    """Where the guest of an admitted stream is; None while no address of it is known, or it has not got the password
    yet that lets its user in.

    Raises `Forbidden` if the desktop changed hands meanwhile, `Clash` if the guest could not be given the password.
    """
    desktop = Desktop.objects.select_related("pool", "hypervisor").get(pk=admission.desktop_id)
    if desktop.epoch != admission.epoch:
        raise Forbidden("The desktop was released.")
    addresses = reachable(desktop.addresses)
    is_local = guest_passwords.is_used(desktop)
    account = _local_account(desktop, admission) if is_local else account_of(desktop.pool)
    if not addresses or (is_local and account is None):
        return None
    pool = desktop.pool
    shown = Application.objects.filter(pk=admission.application_id).first() if admission.application_id else None
    if admission.application_id and (shown is None or not shown.is_enabled):
        raise Forbidden("This application is not offered any more.")
    program = shown.program if shown else None
    return Way(addresses, pool.rdp_port, pool.asks_32_bpp, pool.has_clipboard, account, program, is_local)


def _local_account(desktop: Desktop, admission: Admission) -> GuestAccount | None:
    """By which its guest lets its user in; None while it is being given the password. Raises `Clash`."""
    if kept := guest_passwords.kept(desktop):
        return GuestAccount(*kept)
    order = Ticket.objects.select_related("operation").get(pk=admission.ticket_id).operation
    if order is None or order.state == Operation.State.DONE:
        raise Clash("The desktop has no password for its user any more. Open it again.")
    if order.state in (Operation.State.FAILED, Operation.State.CANCELLED):
        raise Clash(order.error or "The desktop got no password for its user.", order)
    return None


def distrust(*, admission: Admission) -> None:
    """The guest refused the password of its assignment: it gets it anew when the desktop is opened next."""
    with transaction.atomic():
        rows = Assignment.objects.filter(desktop=admission.desktop_id, user=admission.user_id, until=None)
        if not rows.filter(desktop__epoch=admission.epoch).exclude(guest_machine="").update(guest_machine=""):
            return
        desktop = Desktop.objects.get(pk=admission.desktop_id)
        words = "Its guest refused the password of its user's assignment, and gets it anew."
        operations.event("desktop.password_refused", words, level="warning", desktop=desktop).save(force_insert=True)
    log.warning("guest.password_refused", desktop=str(admission.desktop_id))


def account_of(pool: Pool) -> GuestAccount | None:
    """The pool's own account; None if its users sign in themselves, or the account has no password to hand over."""
    if pool.guest_account != Pool.GuestAccount.POOL:
        return None
    password = sealing.unseal(pool.guest_secret).get(PASSWORD, "")
    return GuestAccount(pool.guest_user, password) if password else None


def reachable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Those of a guest's addresses that are its own, IPv4 first.

    A guest says itself which it has: one that names the relay's own loopback, or nobody's address, is not followed.
    """
    found = []
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        is_nobodys = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        if not is_nobodys:
            found.append(address)
    return tuple(str(address) for address in sorted(found, key=lambda address: address.version))


def recognise(*, admission: Admission, sha256: str) -> None:
    """Trust a guest's certificate when it is first met, and from then on only that one.

    What was met holds for the desktop's epoch and machine: after recycling the guest is another one and is met anew.
    Raises `Clash` for another certificate, which is written down in the audit once; `Forbidden` if the desktop changed
    hands.
    """
    with transaction.atomic():
        desktop = Desktop.objects.select_for_update(of=("self",)).get(pk=admission.desktop_id)
        if desktop.epoch != admission.epoch:
            raise Forbidden("The desktop was released.")
        known = GuestCertificate.objects.filter(desktop=desktop).first()
        if known is None or (known.epoch, known.machine_id) != (desktop.epoch, desktop.machine_id):
            GuestCertificate(
                desktop=desktop, epoch=desktop.epoch, machine_id=desktop.machine_id, sha256=sha256,
                seen_at=timezone.now(),
            ).save()  # fmt: skip
            return
        if known.sha256 == sha256:
            return
        if known.refused_sha256 != sha256:
            GuestCertificate.objects.filter(pk=known.pk).update(refused_sha256=sha256)
            changes = {"certificate": [known.sha256, sha256]}
            audit.record(actor=None, action="desktop.refuse_certificate", subject=desktop, changes=changes)
    log.warning("guest.certificate_refused", desktop=str(desktop.pk), known=known.sha256, shown=sha256)
    raise Clash(CHANGED)


def forget_certificate(*, actor: User, desktop_id: UUID) -> None:
    """Let the desktop's guest be met anew, by whatever certificate it shows next, and be given its user's password anew
    where it has one. Nothing to forget changes nothing.

    Raises `Missing`, `Forbidden`.
    """
    require(actor, Right.SERVE)
    with transaction.atomic():
        desktop = locked(Desktop.objects.all(), desktop_id, "desktop")
        guest_passwords.lost([desktop.pk])
        known = GuestCertificate.objects.filter(desktop=desktop).first()
        if known is None:
            return
        known.delete()
        changes = {"certificate": [known.sha256, ""]}
        audit.record(actor=actor, action="desktop.forget_certificate", subject=desktop, changes=changes)
        nudges.announce("desktops", desktop=str(desktop.pk))
