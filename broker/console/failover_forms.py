"""Where a recovery point is tried, a desktop is moved, or brought up."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django import forms
from django.utils.translation import gettext as _

from broker.domain.failover import Kind
from broker.models import Hypervisor, Network, Storage, Vault
from broker.services.failovers import Target

KINDS = {
    Kind.MOVE: "Copies each desktop while its user works, then stops it, copies the rest and starts it there. Nothing "
    "is lost. For desktops whose hypervisor answers.",
    Kind.EMERGENCY: "Brings up the newest recovery point of each desktop. What was done since is lost. For desktops "
    "whose hypervisor is gone.",
}  # fmt: skip


def storage_choices(storages: Sequence[Storage], needed_mib: int) -> list[tuple[str, str]]:
    """The emptiest first: it is the one that is chosen unless somebody chooses."""
    ordered = sorted((one for one in storages if one.is_up), key=lambda one: -one.free_mib)
    return [(str(one.pk), _storage_words(one, needed_mib)) for one in ordered]


def _storage_words(storage: Storage, needed_mib: int) -> str:
    free = _("%(name)s, %(free)d GiB free") % {"name": storage.name, "free": storage.free_mib // 1024}
    return free if storage.free_mib >= needed_mib else _("%s: perhaps too small") % free


class TargetForm(forms.Form):
    """On one hypervisor, which stands in the address: the storage, and what a kind of failover needs beside it."""

    hides_optional = True
    called = {"storage_id": "storage", "vault_id": "vault", "network_ids": "network", "hypervisor_id": "storage"}
    """What the services call it, and what we."""

    storage = forms.ChoiceField(label="Storage")

    def __init__(self, hypervisor: Hypervisor, storages: Sequence[Storage], needed_mib: int, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._hypervisor = hypervisor
        self.fields["storage"].choices = storage_choices(storages, needed_mib)  # type: ignore[attr-defined]

    def target(self) -> Target:
        """The form must be valid."""
        return Target(hypervisor_id=self._hypervisor.pk, storage_id=UUID(self.cleaned_data["storage"]))


class TestForm(TargetForm):
    """All cards on one network, kept apart if there is such a one."""

    __test__ = False

    network = forms.ChoiceField(
        label="Network", required=False,
        help_text="On a network that others are on, the copy may meet the machine itself, with the same address.",
    )  # fmt: skip

    def __init__(
        self,
        hypervisor: Hypervisor,
        storages: Sequence[Storage],
        networks: Sequence[Network],
        needed_mib: int,
        nics: int,
        *args: object,
    ) -> None:
        super().__init__(hypervisor, storages, needed_mib, *args)
        self._nics = nics
        if not nics:
            del self.fields["network"]
            return
        apart = sorted(networks, key=lambda one: not one.is_isolated)
        words = {True: _("%s, kept apart"), False: "%s"}
        offered = [(str(one.pk), words[one.is_isolated] % one.name) for one in apart]
        self.fields["network"].choices = [("", _("Not connected")), *offered]  # type: ignore[attr-defined]
        first = apart[0] if apart and apart[0].is_isolated else None
        self.fields["network"].initial = str(first.pk) if first else ""

    def target(self) -> Target:
        chosen = self.cleaned_data.get("network")
        at = super().target()
        network_ids = [UUID(chosen) if chosen else None] * self._nics
        return Target(hypervisor_id=at.hypervisor_id, storage_id=at.storage_id, network_ids=network_ids)


class MoveForm(TargetForm):
    """Through which vault."""

    vault = forms.ChoiceField(label="Vault")

    def __init__(
        self,
        hypervisor: Hypervisor,
        storages: Sequence[Storage],
        needed_mib: int,
        vaults: Sequence[Vault],
        *args: object,
    ) -> None:
        super().__init__(hypervisor, storages, needed_mib, *args)
        self.fields["vault"].choices = vault_choices(vaults)  # type: ignore[attr-defined]
        self.fields["vault"].help_text = _(
            "Its bytes go through it. Where it is copied to already, least is left to copy."
        )


def vault_choices(vaults: Sequence[Vault]) -> list[tuple[str, str]]:
    down = _("%(name)s (%(state)s)")
    return [
        (
            str(one.pk),
            one.name
            if one.status == Vault.Status.UP
            else down % {"name": one.name, "state": one.get_status_display().lower()},
        )
        for one in vaults
    ]


class PoolForm(forms.Form):
    """Where the desktops of a pool shall go, and how."""

    hides_optional = True

    kind = forms.ChoiceField(
        label="How", widget=forms.RadioSelect, initial=Kind.MOVE,
        choices=[(Kind.MOVE.value, "Move them"), (Kind.EMERGENCY.value, "Bring up their newest recovery points")],
    )  # fmt: skip
    storage = forms.ChoiceField(label="Storage")
    vault = forms.ChoiceField(label="Vault", required=False)

    def __init__(
        self, hypervisor: Hypervisor, storages: Sequence[Storage], vaults: Sequence[Vault], *args: object
    ) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._hypervisor = hypervisor
        self.fields["storage"].choices = storage_choices(storages, 0)  # type: ignore[attr-defined]
        self.fields["vault"].choices = vault_choices(vaults)  # type: ignore[attr-defined]
        self.fields["vault"].when = "kind=move"  # type: ignore[attr-defined]

    def explained(self) -> list[tuple[object, str]]:
        return [(radio, KINDS[Kind(radio.data["value"])]) for radio in self["kind"]]

    def target(self) -> Target:
        """The form must be valid."""
        return Target(hypervisor_id=self._hypervisor.pk, storage_id=UUID(self.cleaned_data["storage"]))

    def chosen_vault(self) -> UUID | None:
        """Of a move."""
        data = self.cleaned_data
        return UUID(data["vault"]) if data["kind"] == Kind.MOVE and data["vault"] else None
