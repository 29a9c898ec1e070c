"""Vaults: where recovery points lie. Operators and auditors see them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out
from broker.models import Vault
from broker.selectors import replication as selectors
from broker.services import vaults as services

router = Router(tags=["replication"])


class VaultOut(Out):
    id: UUID
    name: str
    kind: str
    """folder, s3"""
    location: dict[str, str]
    """Folder: `path`. S3: `bucket`, `endpoint`, `region`, `prefix`, `access_key`."""
    is_encrypted: bool
    status: str
    """new, up, down, refused (a wrong key, or no vault there)"""
    status_reason: str
    status_since: datetime | None
    recovery_points: int
    newest_at: datetime | None
    """Of its recovery points the newest."""
    policies: int
    created_at: datetime


class VaultIn(In):
    name: str
    kind: str
    """folder, s3"""
    location: dict[str, str]
    """Folder: `path`, which must be there. S3: `bucket`, and unless it is Amazon's `endpoint`, `region`, `prefix`,
    `access_key`."""
    secret_key: str = ""
    """S3: what goes with the access key."""
    key: str = ""
    """Makes an encrypted vault, or opens the one that is there; see `POST /replication/vaults/key`."""


class VaultChange(In):
    """What is not named stays as it is."""

    name: str | None = None
    location: dict[str, str] | None = None
    secret_key: str = ""
    key: str = ""


class KeyOut(Out):
    key: str
    """Shown this once and kept nowhere. Who loses it loses everything that lies in the vault."""


def show_vault(row: Any) -> VaultOut:
    """A row of `selectors.vaults`."""
    return VaultOut(
        id=row.pk,
        name=row.name,
        kind=row.kind,
        location={name: str(value) for name, value in row.location.items()},
        is_encrypted=row.is_encrypted,
        status=row.status,
        status_reason=row.status_reason,
        status_since=row.status_since,
        recovery_points=row.point_count,
        newest_at=row.newest_at,
        policies=row.policy_count,
        created_at=row.created_at,
    )


def _vault(vault_id: UUID) -> VaultOut:
    return show_vault(one(selectors.vaults(), vault_id, "vault"))


@router.get("", response=Page[VaultOut])
def list_vaults(request: HttpRequest, window: Query[Window]) -> Page[VaultOut]:
    staff(request, Right.REVIEW)
    return page(selectors.vaults(), window, show_vault)


@router.post("/key", response=KeyOut)
def make_vault_key(request: HttpRequest) -> KeyOut:
    """A key for a new encrypted vault. Keep it, then create the vault with it."""
    staff(request, Right.ADMINISTER)
    return KeyOut(key=services.new_key())


@router.get("/{id}", response=VaultOut)
def get_vault(request: HttpRequest, id: UUID) -> VaultOut:
    staff(request, Right.REVIEW)
    return _vault(id)


@router.post("", response={201: VaultOut})
def create_vault(request: HttpRequest, wish: VaultIn) -> VaultOut:
    """Makes a vault at that place, or opens the one that is there; 422 in words if the place cannot be used."""
    actor = staff(request, Right.ADMINISTER)
    made = services.create_vault(
        actor=actor, name=wish.name, kind=wish.kind, location=wish.location, secret_key=wish.secret_key, key=wish.key
    )
    return _vault(made.pk)


@router.patch("/{id}", response=VaultOut)
def change_vault(request: HttpRequest, id: UUID, wish: VaultChange) -> VaultOut:
    """Another name or place of the same vault, which is opened to see that it is there."""
    actor = staff(request, Right.ADMINISTER)
    row: Vault = one(selectors.vaults(), id, "vault")
    services.change_vault(
        actor=actor,
        vault_id=id,
        name=row.name if wish.name is None else wish.name,
        location=row.location if wish.location is None else wish.location,
        secret_key=wish.secret_key,
        key=wish.key,
    )
    return _vault(id)


@router.delete("/{id}", response={204: None})
def remove_vault(request: HttpRequest, id: UUID) -> None:
    """Forgets it and its recovery points here; what lies at its place stays. 409 while a policy uses it."""
    services.remove_vault(actor=staff(request, Right.ADMINISTER), vault_id=id)
