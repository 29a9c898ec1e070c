"""Where a template version shall go, and through which vault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django import forms
from django.forms import BoundField
from django.utils.translation import gettext as _

from broker.console.failover_forms import storage_choices, vault_choices
from broker.models import Hypervisor, Pool, Storage, TemplateCopy, Vault
from broker.services.publications import Target


@dataclass(frozen=True, slots=True)
class Place:
    """What may be chosen: a hypervisor at which members lack the version, or any other one."""

    key: str
    hypervisor: Hypervisor
    storages: Sequence[Storage]
    wanted: str = ""
    """Platform id of the storage that its members use."""
    serves: Sequence[str] = ()
    """Names of pools that build there."""
    pools: Sequence[Pool] = ()
    """That could build there too."""


@dataclass(frozen=True, slots=True)
class ShownPlace:
    """A place as the page shows it."""

    place: Place
    is_chosen: bool
    storage: BoundField | None
    pool: BoundField | None
    why_not: str = ""


class PublishForm(forms.Form):
    """Places where members lack it are chosen from the beginning."""

    hides_optional = True
    called = {"vault_id": "vault", "source_id": "source", "version_id": "to"}

    to = forms.MultipleChoiceField(required=False)
    source = forms.ChoiceField(label="Read from")
    vault = forms.ChoiceField(label="Vault", help_text="Its bytes go through it: they are read once for all places.")
    name = forms.CharField(label="Name there", max_length=63)
    gives_present = forms.BooleanField(label="", required=False, initial=True)

    def __init__(
        self,
        places: Sequence[Place],
        sources: Sequence[TemplateCopy],
        vaults: Sequence[Vault],
        behind: Sequence[str],
        name: str,
        *args: object,
    ) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.places = {place.key: place for place in places}
        self._offer("to", [(place.key, str(place.hypervisor)) for place in places])
        self._offer("source", [(str(copy.pk), f"{copy.hypervisor}: {copy.name}") for copy in sources])
        self._offer("vault", vault_choices(vaults))
        self.fields["name"].initial = name
        if len(sources) < 2:
            self.fields["source"].widget = forms.HiddenInput()
            self.fields["source"].initial = str(sources[0].pk) if sources else ""
        if behind:
            words = _("Give it also to members where it lies already: %s")
            self.fields["gives_present"].label = words % ", ".join(behind)
        else:
            del self.fields["gives_present"]
        needed_mib = sources[0].disk_mib if sources else 0
        for place in places:
            self._add_place(place, needed_mib)

    def _add_place(self, place: Place, needed_mib: int) -> None:
        choices = storage_choices(place.storages, needed_mib)
        initial = next((str(one.pk) for one in place.storages if one.platform_id == place.wanted), None)
        self.fields[f"storage_{place.key}"] = forms.ChoiceField(
            label=_("Storage"), choices=choices, required=False, initial=initial
        )
        if place.pools:
            pools = [("", _("No pool")), *((str(pool.pk), pool.name) for pool in place.pools)]
            self.fields[f"pool_{place.key}"] = forms.ChoiceField(
                label=_("Pool that builds there from then on"), choices=pools, required=False
            )

    def _offer(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
        field.choices = choices

    def clean(self) -> dict[str, object]:
        data = super().clean() or {}
        for key in data.get("to", ()):
            if not data.get(f"storage_{key}"):
                self.add_error("to", _("%s has listed no storage that is up.") % self.places[key].hypervisor)
        if "to" in data and not data["to"] and not data.get("gives_present"):
            self.add_error("to", _("Choose at least one place."))
        return data

    # --- as the page shows it ---

    @property
    def lacking(self) -> list[ShownPlace]:
        return [self._shown(place) for place in self.places.values() if place.serves]

    @property
    def others(self) -> list[ShownPlace]:
        return [self._shown(place) for place in self.places.values() if not place.serves]

    def _shown(self, place: Place) -> ShownPlace:
        chosen = self["to"].value() if self.is_bound else None
        why_not = ""
        if place.hypervisor.status != Hypervisor.Status.UP:
            why_not = _("It is %s.") % place.hypervisor.get_status_display().lower()
        elif not any(one.is_up for one in place.storages):
            why_not = _("It has listed no storage that is up.")
        pool = f"pool_{place.key}"
        return ShownPlace(
            place,
            is_chosen=not why_not and (place.key in chosen if chosen is not None else bool(place.serves)),
            storage=self[f"storage_{place.key}"] if not why_not else None,
            pool=self[pool] if pool in self.fields and not why_not else None,
            why_not=why_not,
        )

    # --- what was chosen: the form must be valid ---

    def targets(self) -> list[Target]:
        data = self.cleaned_data
        return [
            Target(
                hypervisor_id=self.places[key].hypervisor.pk,
                storage_id=UUID(data[f"storage_{key}"]),
                pool_id=UUID(data[f"pool_{key}"]) if data.get(f"pool_{key}") else None,
            )
            for key in data["to"]
        ]
