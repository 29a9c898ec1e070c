"""Words that administrators put on machines, and what follows for policies that are about a word."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from broker.models import Machine, MachineTag, ReplicationPolicy
from broker.selectors.hypervisors import not_a_desktop
from broker.services import audit, nudges, replication_sources
from broker.services.errors import Invalid
from broker.services.intake import Intake
from broker.services.permissions import Right, require

LONGEST = 50


def put(*, actor: User, machine_ids: Sequence[UUID], tag: str) -> int:
    """The tag on these machines: how many bear it now that did not. Policies over the tag take them up at once.

    Raises `Forbidden`, `Invalid`: a machine that is not listed, or is a desktop (those are chosen as desktops, whose
    machine may change).
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        word = _word(tag)
        machines = _machines(machine_ids)
        rows = [MachineTag(hypervisor_id=one.hypervisor_id, platform_id=one.platform_id, tag=word) for one in machines]
        before = MachineTag.objects.filter(tag=word).count()
        MachineTag.objects.bulk_create(rows, ignore_conflicts=True)
        added = MachineTag.objects.filter(tag=word).count() - before
        _follow(actor, "tag.put", machines, word)
    return added


def take(*, actor: User, machine_ids: Sequence[UUID], tag: str) -> None:
    """Off these machines; policies over the tag let go of them. Raises as `put`."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        word = _word(tag)
        machines = _machines(machine_ids)
        for one in machines:
            MachineTag.objects.filter(hypervisor=one.hypervisor_id, platform_id=one.platform_id, tag=word).delete()
        _follow(actor, "tag.take", machines, word)


def _word(tag: str) -> str:
    intake = Intake()
    word = intake.name("tag", tag, length=LONGEST)
    if "," in word:
        intake.faults["tag"] = "No commas: a tag is one word or a few."
    intake.refuse_faults("Nothing was tagged.")
    return word


def _machines(ids: Sequence[UUID]) -> list[Machine]:
    found = list(Machine.objects.filter(*not_a_desktop(), pk__in=ids).select_related("hypervisor"))
    if not found or len(found) < len(set(ids)):
        words = "One of them is not listed any more, or is a desktop: choose desktops and pools as such."
        raise Invalid("Nothing was tagged.", {"choice": words if found else "Choose at least one machine."})
    return found


def _follow(actor: User, action: str, machines: Sequence[Machine], word: str) -> None:
    for one in machines:
        audit.record(actor=actor, action=action, subject=one, changes={"tag": [None, word]})
    policies = ReplicationPolicy.objects.filter(choices__kind="tag", choices__tag=word)
    for policy in policies.select_for_update(of=("self",)):
        replication_sources.settle(policy, timezone.now())
    nudges.announce("replication")
