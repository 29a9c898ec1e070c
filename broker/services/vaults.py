"""Vaults: registered by administrators, opened by movers. What lies in them is `disks.vault`'s."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone

from broker.hypervisors import sealing
from broker.models import Failover, Publication, Vault
from broker.services import alive, audit, nudges, operations
from broker.services.errors import Clash, Invalid
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import alter, locked, refusing_duplicates
from disks.errors import DiskError, NotAVault, NotFound, VaultRefused
from disks.vault.folder import FolderStore
from disks.vault.s3 import Bucket, S3Store
from disks.vault.store import Store
from disks.vault.vault import DESCRIPTION
from disks.vault.vault import Vault as Opened

NAME_TAKEN = "There is already a vault of that name."
KEY_BYTES = 32
COLLECT_EVERY = timedelta(days=1)
S3_FIELDS = ("bucket", "endpoint", "region", "prefix", "access_key")
LOCATION = {Vault.Kind.FOLDER.value: ("path",), Vault.Kind.S3.value: S3_FIELDS}
KEY, S3_SECRET = "key", "secret_key"
"""Names of what is kept encrypted."""


def new_key() -> str:
    """A key for an encrypted vault, as people keep it. Who loses it loses what lies in the vault."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def create_vault(
    *, actor: User, name: str, kind: str, location: Mapping[str, str], secret_key: str = "", key: str = ""
) -> Vault:
    """Register a place and make a vault there, or open the one that is there. `key` makes or opens an encrypted one.

    Talks to the place, for a few seconds at most if it answers. Raises `Forbidden`, and `Invalid` if the place cannot
    be used, in words.
    """
    require(actor, Right.ADMINISTER)
    intake = Intake()
    vault = Vault(name=intake.name("name", name), kind=intake.choice("kind", kind, Vault.Kind))
    intake.free_name("name", vault.name, Vault.objects.all(), "vault")
    vault.location = _location(intake, kind, location)
    _key(intake, key)
    intake.refuse_faults("The vault was not registered.")
    hidden = {field: value for field, value in ((KEY, key.strip()), (S3_SECRET, secret_key)) if value}
    vault.secrets = sealing.seal(hidden) if hidden else b""
    _make_or_open(vault)
    now = timezone.now()
    vault.status, vault.status_since, vault.next_collection_at = Vault.Status.UP, now, now + COLLECT_EVERY
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        vault.save(force_insert=True)
        shown = {"name": [None, vault.name], "location": [None, vault.location], "encrypted": [None, bool(key)]}
        audit.record(actor=actor, action="vault.create", subject=vault, changes=shown)
        nudges.announce("replication")
    alive.need_mover(on=True)
    return vault


def change_vault(
    *, actor: User, vault_id: UUID, name: str, location: Mapping[str, str], secret_key: str = "", key: str = ""
) -> Vault:
    """Another name or place of the same vault. An empty secret stays as it is. Raises `Missing`, `Invalid`."""
    require(actor, Right.ADMINISTER)
    intake = Intake()
    vault = Vault.objects.filter(pk=vault_id).first()
    if vault is not None:
        wanted = Vault(name=intake.name("name", name), kind=vault.kind)
        intake.free_name("name", wanted.name, Vault.objects.exclude(pk=vault_id), "vault")
        wanted.location = _location(intake, vault.kind, location)
        _key(intake, key)
        intake.refuse_faults("The vault was not changed.")
        given = {field: value for field, value in ((KEY, key.strip()), (S3_SECRET, secret_key)) if value}
        hidden = {**sealing.unseal(vault.secrets), **given}
        wanted.secrets = sealing.seal(hidden) if hidden else b""
        with _as_fault():
            opened_ = open_vault(wanted)
            opened_.close()
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        row = locked(Vault.objects.all(), vault_id, "vault")
        changes = alter(row, {"name": wanted.name, "location": wanted.location})
        if given:
            row.secrets = wanted.secrets
            row.save(update_fields=["secrets"])
            changes["secrets"] = [audit.SECRET, audit.SECRET]
        alter(row, {"status": Vault.Status.UP, "status_reason": "", "status_since": timezone.now()})
        if changes:
            audit.record(actor=actor, action="vault.change", subject=row, changes=changes)
        nudges.announce("replication")
    return row


def remove_vault(*, actor: User, vault_id: UUID) -> None:
    """Forget it and its points' rows; what lies there stays there, and what went through it is still told.

    Raises `Clash` while a policy, a run, a failover or a publication uses it.
    """
    require(actor, Right.ADMINISTER)
    with transaction.atomic():
        vault = locked(Vault.objects.all(), vault_id, "vault")
        if names := list(vault.policies.filter(is_own=False).values_list("name", flat=True)[:5]):
            raise Clash(f"{vault} is the vault of {', '.join(names)}. Give those another one or delete them first.")
        if vault.runs.filter(state__in=["queued", "running"]).exists():
            raise Clash(f"A run is at work in {vault}. Wait for its end or cancel it.")
        for went in (Failover, Publication):
            if row := went.objects.filter(vault=vault, state="running").first():
                raise Clash(f"{row} goes through {vault}. Wait for its end or cancel it.")
            went.objects.filter(vault=vault).update(vault_name=vault.name)
        audit.record(actor=actor, action="vault.remove", subject=vault)
        vault.policies.filter(is_own=True).delete()
        vault.points.all().delete()
        try:
            vault.delete()
        except ProtectedError:
            raise Clash(f"A new recovery point came into {vault} meanwhile. Try again.") from None
        nudges.announce("replication")


@contextmanager
def opened(vault: Vault) -> Iterator[Opened]:
    """Raises `disks.errors` and `sealing.SecretsLocked`."""
    there = open_vault(vault)
    try:
        yield there
    finally:
        there.close()


def open_vault(vault: Vault) -> Opened:
    """Whoever opens it closes it. Raises as `opened`."""
    hidden = sealing.unseal(vault.secrets)
    store = _store(vault, hidden)
    try:
        return Opened.open(store, _decoded(hidden.get(KEY, "")))
    except BaseException:
        store.close()
        raise


def told(vault_id: UUID, error: DiskError | None) -> None:
    """A mover has used it: what that says about its state. Once when lost, once when back."""
    status = Vault.Status.UP
    if error is not None:
        status = Vault.Status.REFUSED if isinstance(error, VaultRefused) else Vault.Status.DOWN
    words = error.message if error is not None else ""
    with transaction.atomic():
        changed = (
            Vault.objects.filter(pk=vault_id)
            .exclude(status=status)
            .update(status=status, status_reason=words, status_since=timezone.now())
        )
        if changed:
            name = Vault.objects.values_list("name", flat=True).get(pk=vault_id)
            kind, level = ("vault.back", "info") if error is None else ("vault.lost", "error")
            operations.event(kind, f"{name}: {words or 'it can be used again'}.".replace("..", "."), level=level).save()
            nudges.announce("replication")


def _make_or_open(vault: Vault) -> None:
    """Raises `Invalid`."""
    hidden = sealing.unseal(vault.secrets)
    key = _decoded(hidden.get(KEY, ""))
    with _as_fault():
        store = _store(vault, hidden)
        try:
            is_new = not _has_vault(store)
            there = Opened.create(store, key) if is_new else Opened.open(store, key)
            vault.is_encrypted = there.is_encrypted
        finally:
            store.close()


def _has_vault(store: Store) -> bool:
    try:
        store.get(DESCRIPTION)
    except NotFound:
        return False
    return True


@contextmanager
def _as_fault() -> Iterator[None]:
    try:
        yield
    except (VaultRefused, NotAVault) as error:
        raise Invalid("The vault cannot be used.", {"key": error.message}) from error
    except DiskError as error:
        raise Invalid("The vault cannot be used.", {"location": error.message}) from error


def _store(vault: Vault, hidden: Mapping[str, str]) -> Store:
    place = vault.location
    if vault.kind == Vault.Kind.FOLDER:
        return FolderStore(Path(place["path"]))
    return S3Store(
        Bucket(
            name=place["bucket"],
            endpoint=place.get("endpoint", ""),
            region=place.get("region", ""),
            prefix=place.get("prefix", ""),
            access_key=place.get("access_key", ""),
            secret_key=hidden.get(S3_SECRET, ""),
        )
    )


def _location(intake: Intake, kind: str, given: Mapping[str, str]) -> dict[str, Any]:
    """What is known of the kind; faults go to the intake."""
    known = LOCATION.get(kind, ())
    for name in given.keys() - set(known):
        intake.faults[name] = "This kind of vault has no such setting."
    place = {name: intake.line(name, given.get(name, ""), length=1000) for name in known}
    if kind == Vault.Kind.FOLDER:
        path = PurePosixPath(place["path"])
        if not place["path"] or not path.is_absolute() or ".." in path.parts:
            intake.faults["path"] = "Give the whole path of a folder, such as /srv/vault. It must be there already."
    elif kind == Vault.Kind.S3:
        if not place["bucket"]:
            intake.faults["bucket"] = "Give the bucket's name."
        if place["endpoint"] and not place["endpoint"].startswith(("https://", "http://")):
            intake.faults["endpoint"] = "Give an address such as https://s3.example.org, or nothing for Amazon's."
        if place["prefix"] and not place["prefix"].endswith("/"):
            place["prefix"] += "/"
    return place


def _key(intake: Intake, key: str) -> None:
    try:
        _decoded(key)
    except ValueError:
        intake.faults[KEY] = f"A key is {KEY_BYTES} bytes in Base64, as it was shown when the vault was made."


def _decoded(key: str) -> bytes | None:
    """None without one. Raises ValueError."""
    if not key.strip():
        return None
    try:
        found = base64.b64decode(key.strip(), validate=True)
    except binascii.Error as error:
        raise ValueError("not Base64") from error
    if len(found) != KEY_BYTES:
        raise ValueError("not as long as a key")
    return found
