"""Registering hypervisors and changing how they are reached. Nothing here speaks to one: a worker signs in and looks.

After every change of access the row says "new"; the worker's next look fills in product, orders, warnings and status.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from broker.domain.lifecycle import LIVE
from broker.hypervisors import sealing
from broker.models import (
    Assignment,
    Desktop,
    FileSigner,
    Host,
    Hypervisor,
    Pool,
    PoolMember,
    ReplicationSource,
    TemplateCopy,
    Ticket,
    Vault,
)
from broker.services import audit, history, nudges
from broker.services.errors import Clash, Invalid
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import alter, locked, refusing_duplicates
from connectors.base import Connector, Settings
from connectors.errors import ConnectorError
from connectors.registry import UnknownKind, kinds, load

NAME_TAKEN = "There is already a hypervisor of that name."
LINE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class ConnectorKind:
    """An installed connector, as people choose it."""

    kind: str
    version: str
    label: str
    orders: tuple[str, ...]


def connector_kinds() -> list[ConnectorKind]:
    """Every connector whose SDK is installed, built-in ones first."""
    return [_described(kind, connector) for kind in kinds() if (connector := _loadable(kind))]


def _loadable(kind: str) -> type[Connector] | None:
    try:
        return load(kind)
    except ImportError:
        return None


def _described(kind: str, connector: type[Connector]) -> ConnectorKind:
    orders = tuple(sorted(order.__name__ for order in connector.takes))
    return ConnectorKind(kind, connector.version, connector.label, orders)


def register_hypervisor(*, actor: User, name: str, kind: str, values: Mapping[str, str]) -> Hypervisor:
    """A new row of status "new"; a worker signs in within moments and the row then says what it found.

    `values` are the connector's settings by name, as typed; secrets are sealed. Raises `Forbidden`, `Invalid`.
    """
    require(actor, Right.ADMINISTER)
    intake = Intake()
    name = intake.free_name("name", intake.name("name", name), Hypervisor.objects.all(), "hypervisor")
    plain, secrets = _settings(intake, kind, values, kept={})
    intake.refuse_faults("The hypervisor was not registered.")
    now = timezone.now()
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        hypervisor = Hypervisor.objects.create(
            name=name, kind=kind, settings=plain, secrets=sealing.seal(secrets) if secrets else b"",
            status=Hypervisor.Status.NEW, status_since=now, next_inventory_at=now,
        )  # fmt: skip
        shown = {"name": name, "kind": kind, **plain, **dict.fromkeys(secrets, audit.SECRET)}
        changes = {field: [None, value] for field, value in shown.items()}
        audit.record(actor=actor, action="hypervisor.register", subject=hypervisor, changes=changes)
        _look_again(hypervisor)
    return hypervisor


def change_hypervisor(*, actor: User, hypervisor_id: UUID, name: str, values: Mapping[str, str]) -> Hypervisor:
    """Settings that are not named, and secrets left blank, stay as they are.

    Raises `Missing`, `Forbidden`, `Invalid`.
    """
    require(actor, Right.ADMINISTER)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        hypervisor = locked(Hypervisor.objects.all(), hypervisor_id, "hypervisor")
        intake = Intake()
        others = Hypervisor.objects.exclude(pk=hypervisor.pk)
        name = intake.free_name("name", intake.name("name", name), others, "hypervisor")
        kept = sealing.unseal(hypervisor.secrets)
        plain, secrets = _settings(intake, hypervisor.kind, values, kept={**hypervisor.settings, **kept})
        intake.refuse_faults("The hypervisor was not changed.")
        changes = _setting_changes(hypervisor.settings, plain)
        changes |= {field: [audit.SECRET, audit.SECRET] for field in secrets if secrets[field] != kept.get(field, "")}
        changes |= {field: [audit.SECRET, ""] for field in kept.keys() - secrets.keys()}
        if changes:
            hypervisor.settings, hypervisor.secrets = plain, sealing.seal(secrets) if secrets else b""
            hypervisor.save(update_fields=["settings", "secrets"])
        changes |= alter(hypervisor, {"name": name})
        if changes:
            audit.record(actor=actor, action="hypervisor.change", subject=hypervisor, changes=changes)
        _ask_anew(hypervisor)
    return hypervisor


def recheck_hypervisor(*, actor: User, hypervisor_id: UUID) -> Hypervisor:
    """Sign in and read anew now, even if the account was refused before: one try for each asking."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        hypervisor = locked(Hypervisor.objects.all(), hypervisor_id, "hypervisor")
        audit.record(actor=actor, action="hypervisor.recheck", subject=hypervisor)
        _ask_anew(hypervisor)
    return hypervisor


def drain_hypervisor(*, actor: User, hypervisor_id: UUID, on: bool) -> Hypervisor:
    """A draining hypervisor gets no new desktops; those it has stay in use. Idempotent."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        hypervisor = locked(Hypervisor.objects.all(), hypervisor_id, "hypervisor")
        if changes := alter(hypervisor, {"is_draining": on}):
            audit.record(actor=actor, action="hypervisor.drain", subject=hypervisor, changes=changes)
            for pool_id in Pool.objects.filter(members__hypervisor=hypervisor).values_list("pk", flat=True):
                nudges.nudge(nudges.RECONCILE, pool_id)
            nudges.announce("hypervisors")
    return hypervisor


def drain_host(*, actor: User, host_id: UUID, on: bool) -> Host:
    """A draining host gets no new desktops; free ones leave it as others are ready elsewhere, those in use stay.

    Idempotent. Machines that are no desktops are not touched.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        host = locked(Host.objects.select_related("hypervisor"), host_id, "host")
        if changes := alter(host, {"is_draining": on}):
            audit.record(actor=actor, action="host.drain", subject=host, changes=changes)
            there = Pool.objects.filter(desktops__hypervisor=host.hypervisor_id, desktops__state__in=LIVE)
            for pool_id in there.values_list("pk", flat=True).distinct():
                nudges.nudge(nudges.RECONCILE, pool_id)
            nudges.announce("hypervisors")
    return host


def set_budgets(
    *,
    actor: User,
    hypervisor_id: UUID,
    build_budget: int,
    power_budget: int,
    memory_ratio: float,
    vcpu_ratio: float,
) -> Hypervisor:
    """How much may be in flight at once and promised beyond what the hosts have. Raises `Invalid`."""
    require(actor, Right.OPERATE)
    intake = Intake()
    intake.whole("build_budget", build_budget, lowest=1, highest=1000)
    intake.whole("power_budget", power_budget, lowest=1, highest=1000)
    for field, ratio in (("memory_ratio", memory_ratio), ("vcpu_ratio", vcpu_ratio)):
        if not 0.1 <= ratio <= 100:
            intake.faults[field] = "A number from 0.1 to 100."
    intake.refuse_faults("The budgets were not changed.")
    wanted: dict[str, float] = {
        "build_budget": build_budget, "power_budget": power_budget,
        "memory_ratio": memory_ratio, "vcpu_ratio": vcpu_ratio,
    }  # fmt: skip
    with transaction.atomic():
        hypervisor = locked(Hypervisor.objects.all(), hypervisor_id, "hypervisor")
        if changes := alter(hypervisor, wanted):
            audit.record(actor=actor, action="hypervisor.budgets", subject=hypervisor, changes=changes)
            nudges.nudge(nudges.PUMP, hypervisor.pk)
            nudges.announce("hypervisors")
    return hypervisor


def confirm_absence(*, actor: User, hypervisor_id: UUID) -> Hypervisor:
    """The administrator's word that the machines in doubt are really gone; the worker's next look acts on it.

    Raises `Clash` if nothing is in doubt.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        hypervisor = locked(Hypervisor.objects.all(), hypervisor_id, "hypervisor")
        if hypervisor.status != Hypervisor.Status.DOUBT:
            raise Clash(f"Nothing on {hypervisor.name} is in doubt.")
        now = timezone.now()
        changes = {"machines": [hypervisor.doubt, []]}
        alter(hypervisor, {"absence_confirmed_at": now, "next_inventory_at": now})
        audit.record(actor=actor, action="hypervisor.confirm_absence", subject=hypervisor, changes=changes)
        _look_again(hypervisor)
    return hypervisor


def remove_hypervisor(*, actor: User, hypervisor_id: UUID) -> None:
    """Forget a hypervisor with its inventory, copies and history; its machines are not touched, the audit is kept.

    Raises `Clash` while a pool builds there, a desktop lives there, or a machine of it is replicated.
    """
    require(actor, Right.ADMINISTER)
    with transaction.atomic():
        hypervisor = locked(Hypervisor.objects.all(), hypervisor_id, "hypervisor")
        _refuse_removal_in_use(hypervisor)
        audit.record(actor=actor, action="hypervisor.remove", subject=hypervisor)
        history.forget_gone_desktops(Desktop.objects.filter(hypervisor=hypervisor))
        history.forget_operations(hypervisor)
        TemplateCopy.objects.filter(hypervisor=hypervisor).delete()
        # What was replicated once: its recovery points stay in their vaults.
        ReplicationSource.objects.filter(hypervisor=hypervisor).delete()
        hypervisor.delete()
        nudges.announce("hypervisors")


def rotate_secrets() -> int:
    """Encrypt every stored secret anew with the newest key; returns how many. For operators: no actor, no permission.

    Each row is its own transaction, so that it may run beside a busy broker and again after a failure. Raises
    `sealing.SecretsLocked` at the first secret that no configured key opens.
    """
    hypervisors, vaults = Hypervisor.objects.all(), Vault.objects.all()
    pools, signers = Pool.objects.all(), FileSigner.objects.all()
    # Tickets hold secrets too, for minutes.
    return (
        _rotate(hypervisors, "secrets")
        + _rotate(vaults, "secrets")
        + _rotate(pools, "guest_secret")
        + _rotate(signers, "secrets")
        + _rotate(Assignment.objects.all(), "guest_secret")
        + _rotate(Ticket.objects.all(), "holder")
    )


def _rotate(rows: QuerySet[Any], field: str) -> int:
    done = 0
    for pk in rows.exclude(**{field: b""}).values_list("pk", flat=True):
        with transaction.atomic():
            row = rows.select_for_update(of=("self",)).filter(pk=pk).first()
            if row is None:
                continue
            setattr(row, field, sealing.reseal(getattr(row, field)))
            row.save(update_fields=[field])
            done += 1
    return done


def _settings(
    intake: Intake, kind: str, values: Mapping[str, str], *, kept: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """(plain, secret) settings as they shall be stored; faults go to the intake under the setting's name."""
    try:
        declared = load(kind).settings
    except (UnknownKind, ImportError):
        known = ", ".join(choice.kind for choice in connector_kinds())
        intake.faults["kind"] = f"No connector of this kind is installed. Installed: {known}."
        return {}, {}
    fields = {field.name: field for field in dataclasses.fields(declared)}
    for unknown in values.keys() - fields.keys():
        intake.faults[unknown] = "This kind of hypervisor has no such setting."
    plain: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    for name, field in fields.items():
        is_secret = bool(field.metadata.get("secret"))
        typed = values.get(name, "")
        if name in kept and (name not in values or (is_secret and not typed)):
            value = kept[name]
        elif name not in values or (not typed and not isinstance(field.default, str)):
            value = field.default
        else:
            value = _setting(intake, field, typed)
        if not is_secret:
            plain[name] = value
        elif value:
            secrets[name] = value
    if not intake.faults.keys() & (fields.keys() | values.keys()):
        _refuse_incomplete(intake, declared, {**plain, **secrets})
    return plain, secrets


def _setting(intake: Intake, field: dataclasses.Field[Any], typed: str) -> Any:
    """One setting of the type of its default."""
    choices = [choice for choice, _ in field.metadata.get("choices", ())]
    if choices and typed not in choices:
        intake.faults[field.name] = f"One of: {', '.join(choices)}."
    if isinstance(field.default, bool):
        return typed.lower() in ("1", "true", "on", "yes")
    if isinstance(field.default, int):
        if not typed.strip().isascii() or not typed.strip().isdigit() or len(typed.strip()) > 9:
            intake.faults[field.name] = "A whole number."
            return field.default
        return int(typed)
    if field.metadata.get("secret") and not field.metadata.get("multiline"):
        # A password may begin or end with a space: nothing is trimmed.
        if not typed.isprintable() or len(typed) > LINE_LENGTH:
            intake.faults[field.name] = f"At most {LINE_LENGTH} printable characters on one line."
        return typed
    if field.metadata.get("multiline"):
        return intake.text(field.name, typed)
    return intake.line(field.name, typed, length=LINE_LENGTH)


def _refuse_incomplete(intake: Intake, declared: type[Settings], values: Mapping[str, Any]) -> None:
    """What is missing or contradicts another, as the connector's own settings see it."""
    try:
        declared(**values).require_complete()
    except ConnectorError as error:
        intake.faults["settings"] = error.message
    except TypeError as error:
        raise Invalid("The connector's settings are wrong.", {"settings": str(error)}) from error


def _setting_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = before.keys() | after.keys()
    return {n: [before.get(n), after.get(n)] for n in sorted(names) if before.get(n) != after.get(n)}


def _refuse_removal_in_use(hypervisor: Hypervisor) -> None:
    if pools := PoolMember.objects.filter(hypervisor=hypervisor).values_list("pool__name", flat=True)[:5]:
        raise Clash(f"{hypervisor.name} is a member of {', '.join(pools)}. Remove it from its pools first.")
    if live := Desktop.objects.filter(hypervisor=hypervisor, state__in=LIVE).count():
        raise Clash(
            f"{hypervisor.name} still has live desktops ({live}). Drain it and retire them first; those out of reach "
            "can be forgotten."
        )
    replicated = ReplicationSource.objects.filter(hypervisor=hypervisor, is_chosen=True)
    if policies := replicated.order_by().values_list("policy__name", flat=True).distinct()[:5]:
        raise Clash(f"Machines of {hypervisor.name} are replicated by {', '.join(policies)}. Take them out first.")


def _ask_anew(hypervisor: Hypervisor) -> None:
    """Whatever stopped or slowed us is off: the next look and the next round come at once.

    A doubt stays: only `confirm_absence` or the machines' return ends it.
    """
    now = timezone.now()
    fresh: dict[str, Any] = {"next_inventory_at": now, "retry_at": None, "failures": 0}
    if hypervisor.status in (Hypervisor.Status.REFUSED, Hypervisor.Status.DOWN):
        status = Hypervisor.Status.DOUBT if hypervisor.doubt else Hypervisor.Status.NEW
        words = "Machines of ours had vanished before the access was refused." if hypervisor.doubt else ""
        fresh |= {"status": status, "status_reason": words, "status_since": now}
    alter(hypervisor, fresh)
    _look_again(hypervisor)
    nudges.nudge(nudges.PUMP, hypervisor.pk)


def _look_again(hypervisor: Hypervisor) -> None:
    nudges.nudge(nudges.INVENTORY, hypervisor.pk)
    nudges.announce("hypervisors")
