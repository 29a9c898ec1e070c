"""Machines that are not what the broker expects: adopted, forgotten or deleted, always by an administrator's word.

Another installation's machines can only be forgotten: that installation still counts on them.
"""

from __future__ import annotations

import re
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from broker.domain.lifecycle import LIVE, State
from broker.models import Assignment, Desktop, Machine, Operation, Pool, PoolMember, Request
from broker.services import audit, brokering, nudges, operations, strays
from broker.services.errors import Clash, Invalid
from broker.services.permissions import Right, require
from broker.services.rows import alter, locked

HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def adopt(*, actor: User, machine_id: UUID, pool_id: UUID, user_id: int | None = None) -> Desktop:
    """Make a machine a desktop of a pool that builds on its hypervisor.

    With a user it becomes that user's desktop at once, as it is, with what lies on it. Without one it is recycled into
    the pool: **its disks are replaced**. Raises `Clash` if it is no drift any more or does not fit, `Invalid`.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        machine = _drifting(machine_id)
        strays.refuse_foreign(machine, "adopted")
        pool = locked(Pool.objects.all(), pool_id, "pool")
        member = pool.members.select_related("copy").filter(hypervisor=machine.hypervisor).first()
        if member is None:
            raise Invalid("The machine was not adopted.", {"pool": f"{pool} does not build on {machine.hypervisor}."})
        user = User.objects.filter(pk=user_id, is_active=True).first() if user_id is not None else None
        if user_id is not None and user is None:
            raise Invalid("The machine was not adopted.", {"user": "There is no such user."})
        if user and pool.is_shared:
            words = f"{pool} has session hosts: nobody has one alone. Adopt it without a user."
            raise Invalid("The machine was not adopted.", {"user": words})
        _refuse_misfit(pool, machine)
        desktop = _adopted(machine, pool, member, State.ASSIGNED if user else State.RECYCLING)
        if user:
            _hand_over(desktop, user)
        changes = {"pool": [None, pool.name], "user": [None, user and user.get_username()]}
        audit.record(actor=actor, action="drift.adopt", subject=desktop, changes=changes)
        operations.event("desktop.adopted", f"Adopted by {actor.get_username()}.", desktop=desktop).save()
        nudges.nudge(nudges.RECONCILE, pool.pk)
        nudges.announce("desktops")
    return desktop


def forget(*, actor: User, machine_id: UUID) -> None:
    """Leave the machine alone and do not mention it again. Idempotent."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        machine = locked(Machine.objects.all(), machine_id, "machine")
        if changes := alter(machine, {"is_forgotten": True}):
            audit.record(actor=actor, action="drift.forget", subject=machine, changes=changes)
            nudges.announce("desktops")


def delete(*, actor: User, machine_id: UUID) -> Operation:
    """Order the deletion of a machine with its disks. Raises `Clash` if it is in use or another installation's."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        machine = _drifting(machine_id)
        strays.refuse_foreign(machine, "deleted")
        strays.refuse_second_delete(machine)
        operation = operations.order(
            kind=Operation.Kind.DELETE,
            hypervisor_id=machine.hypervisor_id,
            parameters={"machine": machine.platform_id, "stamp_key": machine.stamp_key},
            requested_by=actor,
            rank=operations.RANK_PERSON,
        )
        audit.record(actor=actor, action="drift.delete", subject=machine)
    return operation


def _drifting(machine_id: UUID) -> Machine:
    """The machine, locked, if no live desktop and no template copy is it."""
    machine = locked(Machine.objects.select_related("hypervisor"), machine_id, "machine")
    strays.check(machine)
    return machine


def _refuse_misfit(pool: Pool, machine: Machine) -> None:
    if not HOST_NAME.fullmatch(machine.name):
        name = machine.name[:80]
        raise Clash(
            f"{name!r} cannot be a desktop's name: letters, digits and hyphens, at most 63. Rename the machine."
        )
    if Desktop.objects.filter(name__iexact=machine.name, state__in=LIVE).exists():
        raise Clash(f"There is already a desktop named {machine.name}.")
    if Desktop.objects.filter(pool=pool, state__in=LIVE).count() >= pool.maximum:
        raise Clash(f"{pool} has reached its maximum of {pool.maximum} desktops.")
    if machine.vcpus < 1 or machine.memory_mib < 1:
        raise Clash(f"The inventory does not say how many CPUs and how much memory {machine.name} has.")


def _adopted(machine: Machine, pool: Pool, member: PoolMember, state: State) -> Desktop:
    return Desktop.objects.create(
        name=machine.name,
        pool=pool,
        member=member,
        hypervisor=machine.hypervisor,
        copy=member.copy,
        state=state,
        state_since=timezone.now(),
        machine_id=machine.platform_id,
        stamp_key=machine.stamp_key,
        vcpus=machine.vcpus,
        memory_mib=machine.memory_mib,
        power=machine.power,
        target_host=machine.host,
    )


def _hand_over(desktop: Desktop, user: User) -> None:
    """The assignment, and the request that stands for its use; both are one a user and pool by constraint."""
    now = timezone.now()
    request = Request(
        pool=desktop.pool, user=user, state=Request.State.READY, desktop=desktop, created_at=now, served_at=now
    )
    try:
        with transaction.atomic():
            assignment = Assignment(pool=desktop.pool, user=user, desktop=desktop, since=now)
            brokering.set_lease(assignment, desktop.pool.terms)
            assignment.save(force_insert=True)
            request.save(force_insert=True)
    except IntegrityError as error:
        raise Clash(f"{user.get_username()} already has or awaits a desktop of {desktop.pool}.") from error
