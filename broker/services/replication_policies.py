"""Replication policies and what was chosen for them, as administrators keep them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from broker.domain import replication as rules
from broker.domain import schedules
from broker.domain.lifecycle import LIVE
from broker.domain.replication import BadCron, Timing
from broker.hypervisors.abilities import can_land
from broker.models import (
    Desktop,
    Hypervisor,
    Machine,
    Pool,
    ReplicationChoice,
    ReplicationPolicy,
    ReplicationRun,
    Storage,
    Template,
    Vault,
)
from broker.services import audit, nudges
from broker.services.errors import Clash, Invalid
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.replication import ENGINES, can_serve
from broker.services.replication_promises import move_promises
from broker.services.replication_runs import forget_bookmark
from broker.services.replication_sources import move_runs, settle
from broker.services.rows import alter, locked, refusing_duplicates

NAME_TAKEN = "There is already a policy of that name."
SHORTEST_S = 60
LONGEST_S = 366 * 86_400
KEPT_AT_MOST = 1000
DISKS_AT_MOST = 64
TIMING = {"interval_s", "cron", "zone", "is_enabled"}
OF_COPIES = (
    "vault_id", "interval_s", "cron", "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly",
    "verification", "target_storage_id", "keeps_standby", "standby_every_s", "bytes_a_second", "window_from",
    "window_to",
)  # fmt: skip
"""What is asked only of policies that copy."""


class PolicyFields(TypedDict, total=False):
    """What a policy's form lets people set, all optional."""

    name: str
    engine: str
    vault_id: UUID | None
    interval_s: int | None
    cron: str
    zone: str
    rpo_s: int
    keep_last: int
    keep_hourly: int
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    verification: str
    target_storage_id: UUID | None
    keeps_standby: bool
    standby_every_s: int
    bytes_a_second: int | None
    window_from: time | None
    window_to: time | None
    is_enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceWish:
    """What to put into a policy."""

    kind: str
    machine_id: UUID | None = None
    """Of our row of the machine, not the platform's."""
    desktop_id: UUID | None = None
    template_id: UUID | None = None
    pool_id: UUID | None = None
    tag: str = ""
    disks: Sequence[str] = ()
    """Names; empty: all."""


def create_policy(
    *, actor: User, choices: Sequence[ChoiceWish] = (), **fields: Unpack[PolicyFields]
) -> ReplicationPolicy:
    """Needs `name`, `rpo_s`, and, unless the platform replicates (`engine`), `vault_id` and either `interval_s` or
    `cron`. It runs from now on unless paused.

    Raises `Missing`, `Forbidden`, `Invalid`.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        policy = ReplicationPolicy()
        intake = Intake()
        needed: PolicyFields = {"name": "", "rpo_s": 0}
        policy.engine = intake.choice("engine", fields.pop("engine", ENGINES.VAULT), ENGINES)
        if policy.engine == ENGINES.VAULT and fields.get("vault_id") is None:
            intake.faults["vault_id"] = "Choose a vault."
        values = _cleaned(intake, policy, {**needed, **fields})
        intake.refuse_faults("The policy was not created.")
        for field, value in values.items():
            setattr(policy, field, value)
        policy.save(force_insert=True)
        changes = {field: [None, _plain(value)] for field, value in {"engine": policy.engine, **values}.items()}
        audit.record(actor=actor, action="policy.create", subject=policy, changes=changes)
        for wish in choices:
            _choose(actor, policy, wish)
        settle(policy, timezone.now())
        nudges.announce("replication")
    return policy


def change_policy(*, actor: User, policy_id: UUID, **fields: Unpack[PolicyFields]) -> ReplicationPolicy:
    """Change what is named; the rest stays. Raises `Missing`, `Forbidden`, `Invalid`."""
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        policy = locked(ReplicationPolicy.objects.filter(is_own=False), policy_id, "policy")
        intake = Intake()
        if fields.pop("engine", policy.engine) != policy.engine:
            intake.faults["engine"] = "Who copies is chosen once. Make another policy, and delete this one."
        values = _cleaned(intake, policy, fields)
        intake.refuse_faults("The policy was not changed.")
        before = policy.vault_id
        if changes := alter(policy, values):
            shown = {field: [_plain(old), _plain(new)] for field, (old, new) in changes.items()}
            audit.record(actor=actor, action="policy.change", subject=policy, changes=shown)
            if policy.vault_id != before:
                # What the new vault does not hold cannot be built upon.
                for source in policy.sources.filter(bookmark__isnull=False):
                    forget_bookmark(source)
                policy.sources.update(bookmark=None, common=None)
            if changes.keys() & TIMING:
                move_runs(policy, timezone.now())
            if changes.keys() & {"rpo_s", "is_enabled"}:
                move_promises(policy)
            nudges.announce("replication")
    return policy


def delete_policy(*, actor: User, policy_id: UUID) -> None:
    """Its recovery points stay in their vault. Raises `Clash` while one of its runs is at work."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        policy = locked(ReplicationPolicy.objects.filter(is_own=False), policy_id, "policy")
        running = ReplicationRun.objects.filter(source__policy=policy, state=ReplicationRun.State.RUNNING)
        if run := running.first():
            raise Clash(f"{run.subject} is being replicated. Pause the policy, cancel the run and try again.")
        audit.record(actor=actor, action="policy.delete", subject=policy)
        for source in policy.sources.filter(bookmark__isnull=False):
            forget_bookmark(source)
        policy.delete()
        nudges.announce("replication")


def add_choice(*, actor: User, policy_id: UUID, wish: ChoiceWish) -> ReplicationChoice:
    """Raises `Missing`, `Forbidden`, `Invalid`; `Clash` if it is chosen already."""
    return add_choices(actor=actor, policy_id=policy_id, wishes=[wish])[0]


def add_choices(*, actor: User, policy_id: UUID, wishes: Sequence[ChoiceWish]) -> list[ReplicationChoice]:
    """All of them or none. Raises as `add_choice`."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        policy = locked(ReplicationPolicy.objects.filter(is_own=False), policy_id, "policy")
        choices = [_choose(actor, policy, wish) for wish in wishes]
        settle(policy, timezone.now())
        nudges.announce("replication")
    return choices


def remove_choice(*, actor: User, choice_id: UUID) -> None:
    """What only it came to is not replicated any more; its recovery points stay."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        choice = locked(ReplicationChoice.objects.select_related("policy"), choice_id, "choice")
        policy = choice.policy
        audit.record(actor=actor, action="policy.remove", subject=policy, changes={"choice": [str(choice), None]})
        choice.delete()
        settle(policy, timezone.now())
        nudges.announce("replication")


def _choose(actor: User, policy: ReplicationPolicy, wish: ChoiceWish) -> ReplicationChoice:
    intake = Intake()
    choice = ReplicationChoice(policy=policy, kind=intake.choice("kind", wish.kind, ReplicationChoice.Kind))
    choice.disks = _disk_names(intake, wish.disks)
    if choice.disks and policy.engine == ENGINES.PLATFORM:
        intake.faults["disks"] = "Which disks are replicated is chosen on the platform."
    intake.refuse_faults("It was not chosen.")
    if wish.kind == ReplicationChoice.Kind.MACHINE:
        machine: Machine = _found(Machine.objects.select_related("hypervisor"), wish.machine_id, "machine")
        choice.hypervisor_id, choice.platform_id = machine.hypervisor_id, machine.platform_id
        _refuse_unreadable(policy, [machine.hypervisor], "machine_id")
    elif wish.kind == ReplicationChoice.Kind.DESKTOP:
        live = Desktop.objects.filter(state__in=LIVE).select_related("pool", "hypervisor")
        desktop: Desktop = _found(live, wish.desktop_id, "desktop")
        choice.desktop = desktop
        _refuse_floating(desktop.pool, "desktop_id")
        _refuse_unreadable(policy, [desktop.hypervisor], "desktop_id")
    elif wish.kind == ReplicationChoice.Kind.TEMPLATE:
        template: Template = _found(Template.objects.all(), wish.template_id, "template")
        choice.template = template
        copied_to = Hypervisor.objects.filter(copies__version__template=template).distinct()
        _refuse_unreadable(policy, copied_to, "template_id")
    elif wish.kind == ReplicationChoice.Kind.TAG:
        choice.tag = wish.tag
        tagged = Hypervisor.objects.filter(tags__tag=wish.tag).distinct()
        if not tagged:
            raise Invalid("It was not chosen.", {"tag": f"No machine bears the tag {wish.tag}."})
        _refuse_unreadable(policy, tagged, "tag")
    else:
        pool: Pool = _found(Pool.objects.all(), wish.pool_id, "pool")
        choice.pool = pool
        _refuse_floating(pool, "pool_id")
        _refuse_unreadable(policy, Hypervisor.objects.filter(members__pool=pool).distinct(), "pool_id")
    try:
        with transaction.atomic():
            choice.save(force_insert=True)
    except IntegrityError as error:
        raise Clash(f"{policy} has it already.") from error
    audit.record(actor=actor, action="policy.add", subject=policy, changes={"choice": [None, str(choice)]})
    return choice


def _found(rows: Any, pk: UUID | None, what: str) -> Any:
    row = rows.filter(pk=pk).first()
    if row is None:
        raise Invalid("It was not chosen.", {f"{what}_id": f"There is no such {what}."})
    return row


def _refuse_floating(pool: Pool, field: str) -> None:
    if pool.kind != Pool.Kind.DEDICATED:
        words = f"Desktops of {pool} float: nothing of a user stays on them. Choose its template instead."
        raise Invalid("It was not chosen.", {field: words})


def _refuse_unreadable(policy: ReplicationPolicy, hypervisors: Iterable[Hypervisor], field: str) -> None:
    """Unless one of them can serve it; that there is none yet is no reason."""
    found = list(hypervisors)
    if not found or any(can_serve(policy, one.kind) for one in found):
        return
    names = ", ".join(one.name for one in found[:5])
    words = f"Machines on {names} cannot be replicated: no connector reads them."
    if policy.engine == ENGINES.PLATFORM:
        words = f"{names}: no connector tells what is replicated there."
    raise Invalid("It was not chosen.", {field: words})


def _disk_names(intake: Intake, names: Iterable[str]) -> list[str]:
    found = list(dict.fromkeys(intake.name("disks", name, length=100) for name in names))
    if len(found) > DISKS_AT_MOST:
        intake.faults["disks"] = f"At most {DISKS_AT_MOST} disks."
    return found


def _cleaned(intake: Intake, policy: ReplicationPolicy, fields: PolicyFields) -> dict[str, Any]:
    """What is named, checked against what stays; what is wrong is in `intake`."""
    values: dict[str, Any] = dict(fields)
    if policy.engine == ENGINES.PLATFORM:
        _refuse_copying(intake, values)
    if "name" in values:
        values["name"] = intake.name("name", values["name"])
    if values.get("vault_id") is None and policy.engine == ENGINES.VAULT and "vault_id" in values:
        intake.faults["vault_id"] = "Choose a vault."
    elif "vault_id" in values and not Vault.objects.filter(pk=values["vault_id"]).exists():
        intake.faults["vault_id"] = "There is no such vault."
    if "zone" in values and values["zone"] not in schedules.zones():
        intake.faults["zone"] = "Choose a time zone such as Europe/Berlin."
    if "rpo_s" in values:
        intake.whole("rpo_s", values["rpo_s"], lowest=SHORTEST_S, highest=LONGEST_S)
    for field in ("keep_hourly", "keep_daily", "keep_weekly", "keep_monthly"):
        if field in values:
            intake.whole(field, values[field], highest=KEPT_AT_MOST)
    if "keep_last" in values:
        intake.whole("keep_last", values["keep_last"], lowest=1, highest=KEPT_AT_MOST)
    if "verification" in values:
        intake.choice("verification", values["verification"], ReplicationPolicy.Verification)
    if values.get("bytes_a_second") is not None:
        # Slower than a block in ten seconds, and the mover would be taken for dead.
        intake.whole("bytes_a_second", values["bytes_a_second"], lowest=100_000, highest=1 << 40)
    if policy.engine == ENGINES.VAULT:
        _check_timing(intake, policy, values)
        _check_target(intake, policy, values)
    window = [values.get(field, getattr(policy, field)) for field in ("window_from", "window_to")]
    if (window[0] is None) != (window[1] is None):
        intake.faults["window_to" if window[1] is None else "window_from"] = "Give both ends of the window, or none."
    return values


def _refuse_copying(intake: Intake, values: dict[str, Any]) -> None:
    """Where the platform replicates, what it copies, how often and what it keeps is its own affair."""
    for field in OF_COPIES:
        if values.pop(field, None):
            intake.faults[field] = "This is set on the platform: the policy only watches it."


def _check_target(intake: Intake, policy: ReplicationPolicy, values: dict[str, Any]) -> None:
    """Where machines are brought up: the storage names its hypervisor."""
    if "standby_every_s" in values:
        intake.whole("standby_every_s", values["standby_every_s"], lowest=SHORTEST_S, highest=LONGEST_S)
    if "target_storage_id" in values:
        storage_id = values.pop("target_storage_id")
        storage = Storage.objects.select_related("hypervisor").filter(pk=storage_id).first() if storage_id else None
        if storage_id and storage is None:
            intake.faults["target_storage_id"] = "There is no such storage."
        elif storage is not None and not can_land(storage.hypervisor.kind):
            words = f"Nothing can be brought up on {storage.hypervisor}: its connector makes no machines from copies."
            intake.faults["target_storage_id"] = words
        values["target_id"] = storage.hypervisor_id if storage else None
        values["target_storage"] = storage.platform_id if storage else ""
    if values.get("target_id", policy.target_id) is None and "target_storage_id" not in intake.faults:
        if values.get("keeps_standby", policy.keeps_standby):
            intake.faults["target_storage_id"] = "Choose where the machines stand by."
        elif values.get("verification", policy.verification) == ReplicationPolicy.Verification.BOOT:
            intake.faults["target_storage_id"] = "Choose where copies are started."


def _check_timing(intake: Intake, policy: ReplicationPolicy, values: dict[str, Any]) -> None:
    if not {"interval_s", "cron"} & values.keys() and not policy._state.adding:
        return
    if values.get("interval_s") and "cron" not in values:
        values["cron"] = ""
    if (values.get("cron") or "").strip() and "interval_s" not in values:
        values["interval_s"] = None
    interval = values.get("interval_s", policy.interval_s)
    cron = values["cron"] = (values.get("cron", policy.cron) or "").strip()
    if (interval is None) == (not cron):
        intake.faults["interval_s"] = "Give an interval or a cron expression, one of them."
    elif interval is not None:
        intake.whole("interval_s", interval, lowest=SHORTEST_S, highest=LONGEST_S)
    elif "zone" not in intake.faults:
        try:
            rules.next_run(Timing(cron=cron, zone=values.get("zone", policy.zone)), timezone.now())
        except BadCron as error:
            intake.faults["cron"] = str(error)


def _plain(value: Any) -> Any:
    """As the audit keeps it."""
    if isinstance(value, time):
        return f"{value:%H:%M}"
    return str(value) if isinstance(value, UUID | datetime) else value


def own_policy(vault: Vault) -> ReplicationPolicy:
    """The broker's own into a vault, locked; made if there is none. Inside a transaction."""
    values = {
        "name": f"Moves through {vault.name[:70]} ({vault.pk.hex[:8]})", "interval_s": 86_400, "rpo_s": 86_400,
        "keep_daily": 0, "keep_last": 1, "is_enabled": False,
    }  # fmt: skip
    ReplicationPolicy.objects.get_or_create(vault=vault, is_own=True, defaults=values)
    return ReplicationPolicy.objects.select_for_update().get(vault=vault, is_own=True)
