"""Runs of replication as they are ordered: by people, by the clock, and by the broker for itself.

Movers carry them out (`services/movers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from broker.models import ReplicationPolicy, ReplicationRun, ReplicationSource, Vault
from broker.services import audit, nudges
from broker.services.errors import Clash
from broker.services.permissions import Right, require
from broker.services.replication import ENGINES, RANK_ASKED, RANK_SCHEDULED, RANK_SELF, UNFINISHED, next_run
from broker.services.rows import alter, locked

DUE_AT_ONCE = 500
"""Sources that one turn of the clock takes up: bounds its transaction."""


def forget_bookmark(source: ReplicationSource) -> None:
    """Nothing builds on its bookmark any more: the platform need not keep it."""
    debt = ReplicationRun(
        kind=ReplicationRun.Kind.RELEASE, hypervisor_id=source.hypervisor_id, platform_id=source.platform_id,
        subject=source.name, rank=RANK_SELF,
    )  # fmt: skip
    # One that waits does the same, and a run that is at work ends with it.
    ReplicationRun.objects.bulk_create([debt], ignore_conflicts=True)
    nudges.nudge(nudges.MOVE, debt.pk)


def run_now(*, actor: User, policy_id: UUID) -> list[ReplicationRun]:
    """A run of each of its sources that has none under way; paused policies too. Raises `Missing`, `Clash`."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        policy = locked(ReplicationPolicy.objects.filter(is_own=False), policy_id, "policy")
        if policy.engine == ENGINES.PLATFORM:
            raise Clash(f"{policy} runs nothing: the platform replicates its machines. Start it there.")
        sources = list(policy.sources.filter(is_chosen=True))
        if not sources:
            raise Clash(f"{policy} has no machine to replicate. Choose one first.")
        made = queue(sources, actor, RANK_ASKED)
        if not made:
            raise Clash("Each of its machines is being replicated already.")
        audit.record(actor=actor, action="policy.run", subject=policy, changes={"runs": [None, len(made)]})
    return made


def cancel_run(*, actor: User, run_id: UUID) -> ReplicationRun:
    """A queued one ends now, a running one when its mover hears of it. Raises `Missing`, `Clash` if it has ended."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        run = locked(ReplicationRun.objects.all(), run_id, "run")
        if run.state not in UNFINISHED:
            raise Clash(f"This run has ended: {run.get_state_display().lower()}.")
        if run.state == ReplicationRun.State.QUEUED and not run.attempt:
            alter(run, {"state": ReplicationRun.State.CANCELLED, "finished_at": timezone.now(), "is_to_end": True})
        else:
            # What an attempt began must be taken away again: a mover does that.
            alter(run, {"is_to_end": True, "not_before": None})
            nudges.nudge(nudges.MOVE, run.pk)
        audit.record(actor=actor, action="run.cancel", subject=run)
        nudges.announce("replication")
    return run


def due() -> int:
    """Write the runs of sources whose time has come; how many. Any number of clocks may call it.

    What was missed while nothing ran is caught up with once. A source whose machine is still being replicated is
    left out this time, and says so.
    """
    now = timezone.now()
    rows = ReplicationSource.objects.filter(next_run_at__lte=now, is_chosen=True, policy__is_enabled=True)
    if not rows.exists():
        return 0
    with transaction.atomic():
        found = list(
            rows.select_related("policy")
            .order_by("next_run_at")
            .select_for_update(skip_locked=True, of=("self",))[:DUE_AT_ONCE]
        )
        for source in found:
            source.next_run_at = next_run(source.policy, source, now)
        ReplicationSource.objects.bulk_update(found, ["next_run_at"])
        return len(queue(found, None, RANK_SCHEDULED))


def queue(sources: Sequence[ReplicationSource], actor: User | None, rank: int) -> list[ReplicationRun]:
    """Runs of those whose machine is not being replicated. Inside a transaction; sources with their policies."""
    busy = set(
        ReplicationRun.objects.filter(
            kind=ReplicationRun.Kind.REPLICATE,
            state__in=UNFINISHED,
            hypervisor__in={source.hypervisor_id for source in sources},
        ).values_list("hypervisor_id", "platform_id")
    )
    wanted = [source for source in sources if (source.hypervisor_id, source.platform_id) not in busy]
    _take_over_releases(wanted)
    fresh = [
        ReplicationRun(
            kind=ReplicationRun.Kind.REPLICATE, source=source, vault_id=source.policy.vault_id,
            hypervisor_id=source.hypervisor_id, platform_id=source.platform_id, subject=source.name, rank=rank,
            requested_by=actor,
        )
        for source in wanted
    ]  # fmt: skip
    # Somebody may write one in this moment: the constraint decides, and theirs serves as well as ours.
    ReplicationRun.objects.bulk_create(fresh, ignore_conflicts=True)
    made = list(ReplicationRun.objects.filter(pk__in=[run.pk for run in fresh]))
    for run in made:
        nudges.nudge(nudges.MOVE, run.pk)
    if made:
        nudges.announce("replication")
    return made


def _take_over_releases(sources: Sequence[ReplicationSource]) -> None:
    """A run begins with what a release does, so that one that waits need not stand in its way."""
    waiting = ReplicationRun.objects.filter(
        kind=ReplicationRun.Kind.RELEASE,
        state=ReplicationRun.State.QUEUED,
        hypervisor__in={source.hypervisor_id for source in sources},
        platform_id__in=[source.platform_id for source in sources],
    )
    waiting.delete()


def order_collection(vault: Vault, rank: int) -> None:
    """One that waits or is at work serves as well. Inside a transaction."""
    run = ReplicationRun(kind=ReplicationRun.Kind.COLLECT, vault=vault, subject=vault.name, rank=rank)
    ReplicationRun.objects.bulk_create([run], ignore_conflicts=True)
    # A mover takes whatever waits, whichever run it was told of.
    nudges.nudge(nudges.MOVE, run.pk)
