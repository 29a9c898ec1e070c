"""The forms of replication. What contradicts itself is refused by the services, as for the API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

from django import forms
from django.utils.translation import gettext as _

from broker.console.failover_forms import storage_choices
from broker.console.fields import SpanField, WholeField
from broker.console.schedule_forms import zone_choices
from broker.models import Network, RecoveryPoint, ReplicationPolicy, Storage, Vault
from broker.services.replication_policies import PolicyFields

MEGABYTE = 1_000_000
STANDBY_EVERY_S = 86_400
NAME_AT_MOST = 63
"""As platforms take it for a machine."""

RHYTHMS = [("interval", "Every so often, day and night"), ("cron", "At set times")]
CHECKED = {
    ReplicationPolicy.Verification.DIGEST: "Each piece has a digest that is checked whenever it is read.",
    ReplicationPolicy.Verification.READ_BACK: "All of it is read again from the vault: surer, and twice the work.",
    ReplicationPolicy.Verification.BOOT: "Once a day the newest copy of each machine is started, apart from all "
    "others, until its guest answers, and taken away again: the surest.",
}
"""Each way of verification with what it means."""


class PolicyForm(forms.Form):
    hides_optional = True
    """What is asked depends on other fields; what may be left empty says so."""
    called = {
        "vault_id": "vault", "interval_s": "interval", "rpo_s": "rpo", "bytes_a_second": "limit",
        "target_storage_id": "target", "standby_every_s": "standby_every",
    }  # fmt: skip
    """What the services call it, and what we."""

    name = forms.CharField(label="Name", max_length=100, help_text="Such as Accounting, hourly.")
    vault = forms.ModelChoiceField(
        label="Into which vault", queryset=Vault.objects.defer("secrets"), empty_label=None,
        help_text="Another vault later means that everything is copied once more.",
    )  # fmt: skip
    rhythm = forms.ChoiceField(label="When", choices=RHYTHMS, widget=forms.RadioSelect, initial="interval")
    interval = SpanField(
        label="How often", required=False, initial=3600,
        help_text="From 1 min; such as 15 min, 4 h or 1 day. Machines take turns within it.",
    )  # fmt: skip
    cron = forms.CharField(
        label="Set times", required=False, max_length=100, initial="30 2 * * *",
        widget=forms.TextInput(attrs={"class": "mono", "autocomplete": "off", "spellcheck": "false"}),
        help_text="Minute, hour, day, month, weekday, as in cron: 30 2 * * 1-5 is 02:30 from Monday to Friday.",
    )  # fmt: skip
    zone = forms.ChoiceField(
        label="Time zone", choices=zone_choices, initial="UTC",
        help_text="Of set times, of the days that are kept and of the hours below.",
    )  # fmt: skip
    rpo = SpanField(
        label="RPO", initial=7200,
        help_text="How old the newest copy may be, so how much may be lost. More than the interval and a run together.",
    )  # fmt: skip
    keep_last = WholeField(label="Last", min_value=1, initial=3)
    keep_hourly = WholeField(label="Hourly", min_value=0, initial=24)
    keep_daily = WholeField(label="Daily", min_value=0, initial=7)
    keep_weekly = WholeField(label="Weekly", min_value=0, initial=4)
    keep_monthly = WholeField(label="Monthly", min_value=0, initial=0)
    verification = forms.ChoiceField(
        label="How copies are checked", choices=ReplicationPolicy.Verification.choices, widget=forms.RadioSelect,
        initial=ReplicationPolicy.Verification.DIGEST,
    )  # fmt: skip
    target = forms.ChoiceField(
        label="Where machines are brought up", required=False,
        help_text="For standbys, and for copies that are started to be checked. Best not where the machines run.",
    )  # fmt: skip
    keeps_standby = forms.BooleanField(
        label="Keep a standby of each machine there", required=False,
        help_text="A machine that is off and holds the newest copy, so that a failover need not write it first.",
    )  # fmt: skip
    standby_every = SpanField(
        label="Make standbys anew at most every", required=False, initial=STANDBY_EVERY_S,
        help_text="Where only whole disks can be written. On KVM what changed is enough, and follows each copy.",
    )  # fmt: skip
    limit = forms.DecimalField(
        label="At most (MB/s)", required=False, min_value=Decimal("0.1"), max_digits=12,
        help_text="Of each run. Empty: as fast as it goes.",
    )  # fmt: skip
    window_from = forms.TimeField(
        label="From", required=False, widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"),
        help_text="Working hours, say. Empty: always.",
        error_messages={"invalid": "A time of day such as 08:00."},
    )  # fmt: skip
    window_to = forms.TimeField(
        label="To", required=False, widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"),
        error_messages={"invalid": "A time of day such as 18:00."},
    )  # fmt: skip

    def __init__(self, *args: Any, is_new: bool, targets: Iterable[Storage] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["target"].choices = [("", _("Nowhere")), *_grouped(targets)]  # type: ignore[attr-defined]
        self.fields["interval"].when = "rhythm=interval"  # type: ignore[attr-defined]
        self.fields["cron"].when = "rhythm=cron"  # type: ignore[attr-defined]
        if is_new and not self.is_bound:
            # The page sets the reader's own zone.
            self.fields["zone"].widget.attrs["data-own-zone"] = True

    def explained(self) -> list[tuple[Any, str]]:
        """Each way of verification with what it means."""
        return [(radio, CHECKED[radio.data["value"]]) for radio in self["verification"]]

    def values(self) -> PolicyFields:
        """As the service takes them; the form must be valid."""
        data = self.cleaned_data
        is_by_interval = data["rhythm"] == "interval"
        return {
            "name": data["name"],
            "vault_id": data["vault"].pk,
            "interval_s": data["interval"] if is_by_interval else None,
            "cron": "" if is_by_interval else data["cron"],
            "zone": data["zone"],
            "rpo_s": data["rpo"],
            "keep_last": data["keep_last"],
            "keep_hourly": data["keep_hourly"],
            "keep_daily": data["keep_daily"],
            "keep_weekly": data["keep_weekly"],
            "keep_monthly": data["keep_monthly"],
            "verification": data["verification"],
            "target_storage_id": UUID(data["target"]) if data["target"] else None,
            "keeps_standby": data["keeps_standby"],
            "standby_every_s": data["standby_every"] or STANDBY_EVERY_S,
            "bytes_a_second": int(data["limit"] * MEGABYTE) if data["limit"] is not None else None,
            "window_from": data["window_from"],
            "window_to": data["window_to"],
        }


class WatchForm(forms.Form):
    """Of a policy that watches what platforms replicate by themselves."""

    called = {"rpo_s": "rpo"}

    name = forms.CharField(label="Name", max_length=100, help_text="Such as Servers, by Hyper-V Replica.")
    rpo = SpanField(
        label="RPO", initial=3600,
        help_text="How old the newest replica may be, so how much may be lost. More than the platform's own interval.",
    )  # fmt: skip

    def values(self) -> PolicyFields:
        """As the service takes them; the form must be valid."""
        return {"name": self.cleaned_data["name"], "rpo_s": self.cleaned_data["rpo"]}

    def values_of_new(self) -> PolicyFields:
        return {**self.values(), "engine": ReplicationPolicy.Engine.PLATFORM.value}


def _grouped(storages: Iterable[Storage]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """By hypervisor, in whose order they come."""
    for name, of_it in groupby(storages, key=lambda one: one.hypervisor.name):
        yield name, [(str(one.pk), f"{name}: {one.name}") for one in of_it]


def policy_initial(policy: ReplicationPolicy, target: Storage | None) -> dict[str, Any]:
    limit = policy.bytes_a_second
    return {
        "name": policy.name,
        "vault": policy.vault_id,
        "rhythm": "interval" if policy.interval_s else "cron",
        "interval": policy.interval_s,
        "cron": policy.cron,
        "zone": policy.zone,
        "rpo": policy.rpo_s,
        "keep_last": policy.keep_last,
        "keep_hourly": policy.keep_hourly,
        "keep_daily": policy.keep_daily,
        "keep_weekly": policy.keep_weekly,
        "keep_monthly": policy.keep_monthly,
        "verification": policy.verification,
        "target": str(target.pk) if target else "",
        "keeps_standby": policy.keeps_standby,
        "standby_every": policy.standby_every_s,
        # Without an exponent: 40, not 4E+1.
        "limit": f"{(Decimal(limit) / MEGABYTE).normalize():f}" if limit else None,
        "window_from": policy.window_from,
        "window_to": policy.window_to,
    }


PLACE = {
    "path": "path", "bucket": "bucket", "endpoint": "endpoint", "region": "region", "prefix": "within",
    "access_key": "access_key",
}  # fmt: skip
"""What says where a vault lies, as the services call it, and our fields."""
KINDS = {
    Vault.Kind.FOLDER: "A directory, or a share that is mounted at the same place wherever Deskyard runs.",
    Vault.Kind.S3: "A bucket at Amazon, or at what speaks like it: MinIO, Ceph, Garage.",
}


class VaultForm(forms.Form):
    """A new vault, or with `vault` the present one: its kind stays, and secrets that are left empty too."""

    hides_optional = True
    called = {"location": "path", "prefix": "within"}

    name = forms.CharField(label="Name", max_length=100, help_text="Such as Cellar.")
    kind = forms.ChoiceField(
        label="Where it lies", choices=Vault.Kind.choices, widget=forms.RadioSelect, initial="folder"
    )
    path = forms.CharField(
        label="Folder", required=False, max_length=1000, widget=forms.TextInput(attrs={"class": "mono"}),
        help_text="The whole path of one that is there already, such as /srv/vault.",
    )  # fmt: skip
    bucket = forms.CharField(label="Bucket", required=False, max_length=1000)
    endpoint = forms.CharField(
        label="Address", required=False, max_length=1000,
        help_text="Such as https://s3.example.org. Empty: Amazon's.",
    )  # fmt: skip
    region = forms.CharField(label="Region", required=False, max_length=100)
    within = forms.CharField(
        label="Prefix", required=False, max_length=500, help_text="If the bucket holds other things too."
    )
    access_key = forms.CharField(label="Access key", required=False, max_length=500)
    secret_key = forms.CharField(
        label="Secret key", required=False, max_length=500, strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )  # fmt: skip
    key = forms.CharField(
        label="Encryption key", required=False, max_length=200,
        widget=forms.TextInput(attrs={"class": "mono", "autocomplete": "off", "spellcheck": "false"}),
        help_text="Empty: what lies in the vault is not encrypted. Of a vault that is there: its own.",
    )  # fmt: skip
    is_kept = forms.BooleanField(label="I have kept the key in a safe place", required=False)

    def __init__(self, *args: Any, vault: Vault | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.vault = vault
        if vault is not None:
            self.fields["kind"].disabled = True
            self.fields["secret_key"].help_text = _("Leave empty to keep the present one.")
            self.fields["key"].help_text = _("Leave empty to keep the present one.")
            del self.fields["is_kept"]
        for name in (*PLACE.values(), "secret_key"):
            self.fields[name].when = "kind=folder" if name == "path" else "kind=s3"  # type: ignore[attr-defined]

    def explained(self) -> list[tuple[Any, str]]:
        return [(radio, KINDS[radio.data["value"]]) for radio in self["kind"]]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if "is_kept" in self.fields and data.get("key") and not data.get("is_kept"):
            self.add_error("is_kept", _("Copy the key first: without it everything in the vault is lost."))
        return data

    def add_error(self, field: str | None, error: Any) -> None:
        """A fault of the place stands with the first field that says where it is."""
        if field == "path" and self.data.get("kind", self.vault.kind if self.vault else "") == Vault.Kind.S3:
            field = "bucket"
        super().add_error(field, error)

    def place(self) -> dict[str, str]:
        """Of the kind that was chosen, as the service takes it."""
        is_folder = self.cleaned_data["kind"] == Vault.Kind.FOLDER
        return {name: self.cleaned_data[field] for name, field in PLACE.items() if (name == "path") == is_folder}


def vault_initial(vault: Vault) -> dict[str, Any]:
    place = {PLACE[name]: value for name, value in vault.location.items() if name in PLACE}
    return {"name": vault.name, "kind": vault.kind, **place}


class BringUpForm(forms.Form):
    """A machine of a recovery point: one choice of network for each of its NICs."""

    hides_optional = True
    called = {"storage_id": "storage", "hypervisor_id": "storage", "network_ids": "nic_1"}

    name = forms.CharField(
        label="Name of the machine", max_length=NAME_AT_MOST, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    storage = forms.ChoiceField(label="Storage")

    def __init__(
        self,
        point: RecoveryPoint,
        storages: Sequence[Storage],
        networks: Sequence[Network],
        *args: Any,
        connects: bool,
        **kwargs: Any,
    ) -> None:
        """`connects`: whether networks of the same names as before are chosen beforehand."""
        super().__init__(*args, **kwargs)
        needed_mib = point.size_bytes // (1 << 20)
        self.fields["storage"].choices = storage_choices(storages, needed_mib)  # type: ignore[attr-defined]
        named = {one.name: str(one.pk) for one in networks} if connects else {}
        offered = [("", _("Not connected")), *((str(one.pk), one.name) for one in networks)]
        for number, nic in enumerate(point.configuration.get("nics", ()), 1):
            self.fields[f"nic_{number}"] = forms.ChoiceField(
                label=_("Network card %(n)d") % {"n": number}, choices=offered, required=False,
                initial=named.get(nic["network"], ""),
                help_text=_("Was on %(network)s.") % {"network": nic["network"] or _("no network")},
            )  # fmt: skip

    def nic_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name.startswith("nic_")]

    def values(self) -> Mapping[str, Any]:
        """As the service takes them; the form must be valid."""
        data = self.cleaned_data
        chosen = [data[bound.name] for bound in self.nic_fields()]
        return {
            "name": data["name"],
            "storage_id": UUID(data["storage"]),
            "network_ids": [UUID(one) if one else None for one in chosen],
        }
