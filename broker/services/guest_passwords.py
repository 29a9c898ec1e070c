"""Passwords of pools' local accounts in guests: one for each assignment, known to the broker and the guest alone.

1. Who opens a desktop whose guest does not have it yet orders it (`prepare`). It is drawn, and kept sealed with the
   assignment, before any guest hears of it: every attempt sets the same one, also after an answer that was lost.
2. Pumps look it up as they send the order (`of_orders`): it stands in no operation, no receipt and no event.
3. The outcome says which machine has it (`taken`). Another machine, a disk of an earlier day (`lost`) or a guest that
   refuses it (`guests.distrust`) gets it anew when the desktop is opened next.
4. The assignment's end forgets it (`FORGOTTEN`), and the guest gets another one that nobody keeps (`replace`) before
   its disk is recycled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from broker.hypervisors import passwords, sealing
from broker.models import Assignment, Desktop, Hypervisor, Operation, Pool
from broker.models.operations import UNFINISHED
from broker.services import operations
from broker.services.errors import Missing
from connectors.base import Power, SetGuestPassword

ORDER = SetGuestPassword.__name__
PASSWORD = "password"  # noqa: S105 - the key of a sealed mapping
FORGOTTEN: Mapping[str, Any] = {"guest_user": "", "guest_secret": b"", "guest_machine": ""}
"""An assignment's columns once it is over."""
REPLACE_S = 20
"""How long recycling waits for the guest to get another password: the disk that knows it goes anyway."""


def can_set(hypervisor: Hypervisor) -> bool:
    """Whether passwords of accounts in guests can be set there."""
    return ORDER in hypervisor.takes


def is_used(desktop: Desktop) -> bool:
    """Whether its users come in by a password of their assignment. Needs `pool` and `hypervisor` selected."""
    pool = desktop.pool
    is_local = pool.protocol == Pool.Protocol.RDP and pool.guest_account == Pool.GuestAccount.LOCAL
    return is_local and can_set(desktop.hypervisor)


def prepare(*, user: User, desktop: Desktop) -> Operation | None:
    """The order that gives the guest the password of this user's assignment; None if it has it, or needs none.

    In the transaction of whoever opens the desktop. Of any number who open it at once one orders, and all wait for
    that. Raises `Missing` if the desktop is not theirs any more.
    """
    if not is_used(desktop):
        return None
    with transaction.atomic():
        desktop = _locked(desktop)
        assignment = Assignment.objects.filter(desktop=desktop, user=user, until=None).first()
        if assignment is None:
            raise Missing("There is no such desktop.")
        if assignment.guest_user != desktop.pool.guest_user:
            _draw(assignment, desktop.pool.guest_user)
        if assignment.guest_machine and assignment.guest_machine == desktop.machine_id:
            return None
        return _under_way(desktop, assignment) or operations.order(
            kind=Operation.Kind.PASSWORD,
            hypervisor_id=desktop.hypervisor_id,
            desktop=desktop,
            parameters=operations.machine_parameters(desktop) | {"user": assignment.guest_user},
            requested_by=user,
            rank=operations.RANK_SCREEN,
            # Somebody looks at an empty page: it waits for no other change, such as a share of the host.
            changes=False,
        )


def _locked(desktop: Desktop) -> Desktop:
    rows = Desktop.objects.select_related("pool").select_for_update(no_key=True, of=("self",))
    return rows.get(pk=desktop.pk)


def _draw(assignment: Assignment, user: str) -> None:
    assignment.guest_user, assignment.guest_machine = user, ""
    assignment.guest_secret = sealing.seal({PASSWORD: passwords.fresh()})
    assignment.save(update_fields=list(FORGOTTEN))


def _under_way(desktop: Desktop, assignment: Assignment) -> Operation | None:
    orders = Operation.objects.filter(desktop=desktop, epoch=desktop.epoch, kind=Operation.Kind.PASSWORD)
    machine = operations.machine_parameters(desktop)["machine"]
    mine = {"parameters__user": assignment.guest_user, "parameters__machine": machine}
    return orders.filter(state__in=UNFINISHED, **mine).first()


def kept(desktop: Desktop) -> tuple[str, str] | None:
    """Account and password by which its guest lets its user in; None while the guest does not have it."""
    given = Assignment.objects.filter(desktop=desktop, until=None).exclude(guest_machine="")
    assignment = given.filter(guest_machine=desktop.machine_id).first()
    if assignment is None:
        return None
    return assignment.guest_user, sealing.unseal(assignment.guest_secret)[PASSWORD]


# --- the pump's part -------------------------------------------------------------------------------------------------


def of_orders(chosen: Sequence[Operation]) -> dict[UUID, str]:
    """What those among these orders are to set that give an assignment its password, by their ids.

    One whose assignment is over is not among them: it sets what nobody keeps.
    """
    orders = [one for one in chosen if one.kind == Operation.Kind.PASSWORD]
    if not orders:
        return {}
    desktops = [order.desktop_id for order in orders]
    open_ones = Assignment.objects.filter(desktop__in=desktops, until=None).exclude(guest_secret=b"")
    sealed = {
        (one.desktop_id, one.desktop.epoch, one.guest_user): one.guest_secret
        for one in open_ones.select_related("desktop")
    }
    wanted = {order.pk: (order.desktop_id, order.epoch, order.parameters["user"]) for order in orders}
    return {pk: sealing.unseal(sealed[whose])[PASSWORD] for pk, whose in wanted.items() if whose in sealed}


def taken(done: Iterable[Operation]) -> None:
    """These orders were carried out: who opens the desktop next need not wait. Idempotent."""
    for order in done:
        Assignment.objects.filter(
            desktop=order.desktop_id, desktop__epoch=order.epoch, until=None, guest_user=order.parameters["user"]
        ).exclude(guest_secret=b"").update(guest_machine=order.parameters["machine"])


def lost(desktop_ids: Iterable[UUID]) -> None:
    """The guests of these desktops may have another password than they were given, or none: they get it anew."""
    Assignment.objects.filter(desktop__in=list(desktop_ids), until=None).update(guest_machine="")


# --- the end ---------------------------------------------------------------------------------------------------------


def replace(desktop: Desktop, ended: Assignment, *, requested_by: User | None) -> Operation | None:
    """Order another password, that nobody keeps, for the guest of an assignment that has just ended.

    None if it was never given one, or does not run, or could not be asked: its disk goes as soon as it is recycled.
    Needs `pool` and `hypervisor` selected.
    """
    hypervisor = desktop.hypervisor
    can_hear = desktop.power == Power.ON and hypervisor.status == Hypervisor.Status.UP and can_set(hypervisor)
    if not ended.guest_secret or not can_hear:
        return None
    return operations.order(
        kind=Operation.Kind.PASSWORD,
        hypervisor_id=desktop.hypervisor_id,
        desktop=desktop,
        parameters=operations.machine_parameters(desktop) | {"user": ended.guest_user},
        requested_by=requested_by,
        rank=desktop.pool.priority,
        deadline_s=REPLACE_S,
    )
