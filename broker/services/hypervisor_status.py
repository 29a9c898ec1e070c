"""What the broker believes about a hypervisor's reachability. Logged once when lost and once when back."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.utils import timezone

from broker.domain.backoff import delay_s
from broker.domain.budgets import effective
from broker.domain.lifecycle import State
from broker.hypervisors import gate
from broker.models import Desktop, Hypervisor
from broker.services import nudges, operations
from connectors.errors import CertificateRejected, ConnectorError, CredentialsRejected

log = structlog.get_logger()

RETRY_BASE_S = 2.0
RETRY_CAP_S = 30.0


def lost(asked: Hypervisor, error: ConnectorError) -> None:
    """The endpoint does not answer, or refuses us. Nothing more is sent before `retry_at`; refused: not at all.

    `asked` is the row with which it was asked. What was refused says nothing of access that was changed meanwhile, and
    a doubt that arose meanwhile stays.
    """
    now = timezone.now()
    hypervisor = Hypervisor.objects.select_for_update(no_key=True).get(pk=asked.pk)
    if gate.access(hypervisor) != gate.access(asked):
        return
    refused = isinstance(error, (CredentialsRejected, CertificateRejected))
    status = Hypervisor.Status.REFUSED if refused else Hypervisor.Status.DOWN
    if hypervisor.status == Hypervisor.Status.DOUBT and not refused:
        status = Hypervisor.Status.DOUBT
    failures = hypervisor.failures + 1
    pause = delay_s(failures, str(hypervisor.pk), base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
    changed = hypervisor.status != status
    hypervisor.failures = failures
    hypervisor.retry_at = now + timedelta(seconds=max(pause, error.retry_after_s or 0))
    hypervisor.status_reason = error.message
    if changed:
        hypervisor.status, hypervisor.status_since = status, now
    hypervisor.save(update_fields=["failures", "retry_at", "status", "status_reason", "status_since"])
    if not changed:
        nudges.announce("hypervisors")  # the reason may be another one, and the next try is later
        return
    log.warning("hypervisor.lost", hypervisor=hypervisor.name, reason=error.message)
    operations.event("hypervisor.lost", error.message, level="error", hypervisor_id=hypervisor.pk).save()
    # Nobody is given a desktop that can't be reached. Locked in the order of their ids, as everywhere.
    answering = Desktop.objects.filter(hypervisor=hypervisor, is_answering=True).exclude(state=State.GONE)
    list(answering.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
    answering.update(is_answering=False)
    _wake_pools(hypervisor)


def back(hypervisor: Hypervisor) -> None:
    """It answered. What inventory sees next brings its desktops back."""
    if hypervisor.status == Hypervisor.Status.UP and not hypervisor.failures:
        return
    changed = hypervisor.status not in (Hypervisor.Status.UP, Hypervisor.Status.DOUBT)
    hypervisor.failures, hypervisor.retry_at = 0, None
    if changed:
        hypervisor.status, hypervisor.status_since, hypervisor.status_reason = (
            Hypervisor.Status.UP,
            timezone.now(),
            "",
        )
    hypervisor.save(update_fields=["failures", "retry_at", "status", "status_since", "status_reason"])
    if changed:
        log.info("hypervisor.back", hypervisor=hypervisor.name)
        operations.event("hypervisor.back", "It answers.", hypervisor_id=hypervisor.pk).save()
        Hypervisor.objects.filter(pk=hypervisor.pk).update(next_inventory_at=timezone.now())
        nudges.nudge(nudges.INVENTORY, hypervisor.pk)
        nudges.nudge(nudges.PUMP, hypervisor.pk)
        _wake_pools(hypervisor)


def doubt(hypervisor: Hypervisor, machine_ids: list[str], reason: str) -> None:
    """Too much vanished at once: nothing is built, deleted or counted as gone here until an administrator confirms."""
    hypervisor.status_reason, hypervisor.doubt = reason, machine_ids
    if hypervisor.status == Hypervisor.Status.DOUBT:
        hypervisor.save(update_fields=["status_reason", "doubt"])
    else:
        hypervisor.status, hypervisor.status_since = Hypervisor.Status.DOUBT, timezone.now()
        hypervisor.save(update_fields=["status", "status_reason", "status_since", "doubt"])
        log.warning("hypervisor.doubted", hypervisor=hypervisor.name, machines=len(machine_ids))
        operations.event("hypervisor.doubted", reason, level="error", hypervisor_id=hypervisor.pk).save()
        _wake_pools(hypervisor)


def slow_down(asked: Hypervisor, now: datetime) -> None:
    """It answered that it is busy: less is in flight there until it has caught up. Said once, when it begins."""
    hypervisor = Hypervisor.objects.select_for_update(no_key=True).get(pk=asked.pk)
    before, after = hypervisor.slowdown, hypervisor.slowdown.after_busy(now)
    if after == before:
        return
    hypervisor.halvings, hypervisor.halved_at = after.halvings, after.since
    hypervisor.save(update_fields=["halvings", "halved_at"])
    nudges.announce("hypervisors")
    if before.at(now).halvings:
        return
    builds, others = (effective(b, after, now) for b in (hypervisor.build_budget, hypervisor.power_budget))
    words = f"It is busy. For a while it is asked for at most {builds} builds and {others} other orders at once."
    log.warning("hypervisor.slowed", hypervisor=hypervisor.name, builds=builds, others=others)
    operations.event("hypervisor.slowed", words, level="warning", hypervisor_id=hypervisor.pk).save(force_insert=True)


def _wake_pools(hypervisor: Hypervisor) -> None:
    nudges.announce("hypervisors")
    for pool_id in hypervisor.members.values_list("pool_id", flat=True):
        nudges.nudge(nudges.RECONCILE, pool_id)
