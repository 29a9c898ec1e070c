"""The forms of pools and their members. What contradicts itself is refused by the services, as for the API."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from broker.console.fields import WholeField
from broker.domain import naming, resources
from broker.domain.resources import ResourceClass
from broker.domain.seating import SEATS_LIMIT
from broker.models import Host, LogicalNetwork, Network, Pool, PoolMember, Storage, TemplateCopy
from broker.services.pools import MemberWish

READY_WHEN = [
    (Pool.Preparation.AGENT, "its guest’s agent answers"),
    (Pool.Preparation.RDP, "its guest’s remote desktop (RDP) answers too"),
    (Pool.Preparation.NONE, "its machine stands"),
]


def _own_number(label: str, lowest: int, highest: int, usual: int, help_text: str) -> WholeField:
    """One of the numbers that the resource class decides, asked for only where the pool has its own."""
    field = WholeField(
        label=label, min_value=lowest, max_value=highest, initial=usual, required=False, help_text=help_text
    )
    field.when = f"resource_class={ResourceClass.OWN}"  # type: ignore[attr-defined]
    return field


def _of_rdp(field: forms.Field) -> forms.Field:
    """Asked for only where the guest's own remote desktop is shown."""
    field.when = f"protocol={Pool.Protocol.RDP}"  # type: ignore[attr-defined]
    return field


def _of_session_hosts(field: forms.Field) -> forms.Field:
    """Asked for only where several users are on a desktop."""
    field.when = f"kind={Pool.Kind.SHARED}"  # type: ignore[attr-defined]
    return field


def _of_account(accounts: Iterable[Pool.GuestAccount], field: forms.Field) -> forms.Field:
    """Asked for only where guests let people in by one of these."""
    field.when = f"guest_account={' '.join(accounts)}"  # type: ignore[attr-defined]
    return field


class PoolForm(forms.Form):
    """What a pool is. Its places and people stand on forms of their own once it exists."""

    name = forms.CharField(label="Name", max_length=100, help_text="Users see it in the portal.")
    description = forms.CharField(
        label="Description", required=False, widget=forms.Textarea(attrs={"rows": 2}), help_text="Users see it too."
    )
    kind = forms.ChoiceField(
        label="Kind", choices=Pool.Kind.choices, widget=forms.RadioSelect, initial=Pool.Kind.FLOATING
    )
    seats = _of_session_hosts(
        WholeField(
            label="Seats of each", min_value=1, max_value=SEATS_LIMIT, initial=8, required=False,
            help_text="So many users at once. The guest must allow it: Windows Server with its remote desktop "
            "services, or xrdp.",
        )
    )  # fmt: skip
    freshens_when_empty = _of_session_hosts(
        forms.BooleanField(
            label="A fresh disk when the last user has left", required=False, initial=True,
            help_text="Off: it goes on as it is, with what its users left on it.",
        )
    )  # fmt: skip
    naming = forms.CharField(
        label="Naming pattern",
        max_length=60,
        help_text="One run of # stands for the number: office-### makes office-001.",
    )
    network_id = forms.ModelChoiceField(
        label="Network", queryset=LogicalNetwork.objects.all(), required=False, empty_label="As the templates have it",
        help_text="It must have a counterpart wherever the pool shall build.",
    )  # fmt: skip
    minimum = WholeField(label="Minimum", min_value=0, initial=0, help_text="Desktops that always exist.")
    spare = WholeField(
        label="Spare", min_value=0, initial=2, help_text="Kept ready beyond those in use; of a shared pool: seats."
    )
    maximum = WholeField(label="Maximum", min_value=0, initial=10, help_text="Never more than these.")
    maximum_per_host = WholeField(
        label="At most on one host",
        min_value=1,
        required=False,
        help_text="So that one that fails takes few. Empty: any number.",
    )
    vcpus = WholeField(label="vCPUs", min_value=1, required=False, help_text="Empty: as the template has it.")
    memory_mib = WholeField(
        label="Memory (MiB)", min_value=1, required=False, help_text="Empty: as the template has it."
    )
    is_linked = forms.BooleanField(
        label="Linked clones", required=False, initial=True,
        help_text="Desktops share the template’s disk and keep only what differs: built in seconds. Off: full copies.",
    )  # fmt: skip
    preparation = forms.ChoiceField(label="A desktop is ready when", choices=READY_WHEN)
    prepare_timeout_s = WholeField(
        label="Give up after (seconds)", min_value=10, initial=900, help_text="If the guest has not answered by then."
    )
    gives_seed = forms.BooleanField(label="Hand each guest its name (cloud-init)", required=False, initial=True)
    starts_powered_off = forms.BooleanField(
        label="Give out desktops that are switched off, and start them", required=False, initial=True
    )
    protocol = forms.ChoiceField(
        label="Shown as",
        choices=Pool.Protocol.choices,
        widget=forms.RadioSelect,
        initial=Pool.Protocol.VNC,
        required=False,
    )
    rdp_port = _of_rdp(WholeField(label="RDP port", min_value=1, max_value=65_535, initial=3389, required=False))
    asks_32_bpp = _of_rdp(
        forms.BooleanField(
            label="Full colour (32 bits a pixel)", required=False, initial=True,
            help_text="xrdp’s pictures are wrong without it. Off may be faster with other servers.",
        )
    )  # fmt: skip
    guest_account = _of_rdp(
        forms.ChoiceField(
            label="Guests let people in as", choices=Pool.GuestAccount.choices, initial=Pool.GuestAccount.ASK,
            required=False,
            help_text="A local account gets a password for each assignment, set when its user opens the desktop first "
            "and replaced when they give it back; nobody sees it. KVM can do that; elsewhere users type.",
        )
    )  # fmt: skip
    guest_user = _of_account(
        [Pool.GuestAccount.POOL, Pool.GuestAccount.LOCAL],
        forms.CharField(
            label="Account in the guest", max_length=200, required=False,
            help_text="The pool’s own: name, DOMAIN\\name or name@domain. A local one: its name in the template.",
        )
    )  # fmt: skip
    guest_password = _of_account(
        [Pool.GuestAccount.POOL],
        forms.CharField(
            label="Its password", max_length=500, required=False, strip=False,
            widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
            help_text="Kept encrypted; no browser gets to see it. Empty: the one there is stays.",
        )
    )  # fmt: skip
    has_clipboard = forms.BooleanField(label="Copy and paste between browser and desktop", required=False, initial=True)
    native_clients = forms.BooleanField(
        label="Let users open them in programs of their own too", required=False,
        help_text="Remote Viewer for the machine’s screen; the Remote Desktop app for the guest’s, where users sign in "
        "themselves. That and the guest encrypt what they say: to go without clipboard is then a wish told to the app, "
        "which Deskyard cannot enforce.",
    )  # fmt: skip
    resource_class = forms.ChoiceField(
        label="Resource class",
        choices=[(c.value, c.value.capitalize()) for c in ResourceClass],
        widget=forms.RadioSelect,
        initial=ResourceClass.NORMAL,
    )
    priority = _own_number("Priority", 1, 100, 50, "Smaller goes first in every queue.")
    weight = _own_number("Weight", 1, 10_000, 100, "For CPU and memory, against other machines: 100 is normal.")
    cpu_reservation_percent = _own_number("CPU kept free (%)", 0, 100, 0, "Of each desktop’s own vCPUs.")
    cpu_limit_percent = _own_number("CPU at most (%)", 1, 100, 100, "Of each desktop’s own vCPUs.")
    memory_reservation_percent = _own_number("Memory kept (%)", 0, 100, 0, "Of each desktop’s own memory.")
    delete_budget_per_hour = WholeField(
        label="Deletions an hour", min_value=0, initial=30,
        help_text="When more would go, the pool stops and asks an administrator.",
    )  # fmt: skip

    @property
    def class_words(self) -> dict[str, str]:
        """What each resource class means."""
        meanings = {
            c.value: _("Priority %(priority)d, %(share)s.")
            % {"priority": meaning.priority, "share": resources.words(meaning.share)}
            for c, meaning in resources.MEANINGS.items()
        }
        return meanings | {ResourceClass.OWN.value: _("Numbers of your own.")}

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        # Services check it again; here it spares the round to the review page.
        if "naming" in data and (fault := naming.validate(data["naming"].strip(), data.get("maximum"))):
            self.add_error("naming", fault)
        if data.get("minimum", 0) > data.get("maximum", data.get("minimum", 0)):
            self.add_error("minimum", _("Not more than the maximum."))
        if "network_id" in data:
            data["network_id"] = data["network_id"].pk if data["network_id"] else None
        for name in ("seats", "protocol", "rdp_port", "guest_account", "guest_password"):
            if not data.get(name):
                data.pop(name, None)
        has_own = data.get("resource_class") == ResourceClass.OWN
        return {
            field: value
            for field, value in data.items()
            if field not in resources.NUMBERS or (has_own and value is not None)
        }


def initial_of(pool: Pool) -> dict[str, Any]:
    return {field: getattr(pool, field) for field in PoolForm.base_fields if field != "guest_password"}


class NewPoolForm(PoolForm):
    """With the places it may build at and the people who may have its desktops."""

    called = dict.fromkeys(("copy", "members", "member_minimum", "member_maximum"), "copies")

    def __init__(self, copies: list[TemplateCopy], groups: list[Group], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Between the steps what was typed stands in the page; a password shall not. It is given once the pool is there.
        del self.fields["guest_password"]
        self.copy_rows = {str(copy.pk): copy for copy in copies}
        self.fields["copies"] = forms.MultipleChoiceField(
            choices=[(key, str(copy)) for key, copy in self.copy_rows.items()],
            error_messages={"required": _("Choose at least one template copy to build from.")},
        )
        self.fields["groups"] = forms.MultipleChoiceField(
            label=_("Groups"), required=False, choices=[(str(group.pk), group.name) for group in groups],
            widget=forms.CheckboxSelectMultiple,
        )  # fmt: skip
        self.fields["users"] = forms.CharField(
            label=_("Users"), required=False, help_text=_("Sign-in names, separated by commas.")
        )
        for key in self.copy_rows:
            self.fields[f"weight_{key}"] = WholeField(min_value=0, max_value=10_000, required=False)
            self.fields[f"minimum_{key}"] = WholeField(min_value=0, required=False)
            self.fields[f"maximum_{key}"] = WholeField(min_value=1, required=False)

    def clean_copies(self) -> list[str]:
        chosen: list[str] = self.cleaned_data["copies"]
        hypervisors = [self.copy_rows[key].hypervisor_id for key in chosen]
        if len(hypervisors) != len(set(hypervisors)):
            raise ValidationError(_("One copy for each hypervisor: a pool builds from one image there."))
        return chosen

    def clean_users(self) -> list[User]:
        names = {name.strip() for name in re.split(r"[,;\n]", self.cleaned_data["users"]) if name.strip()}
        found = list(User.objects.filter(username__in=names))
        if unknown := sorted(names - {user.username for user in found}):
            raise ValidationError(_("There is no user named %s.") % ", ".join(unknown))
        return found

    def chosen_copies(self) -> list[TemplateCopy]:
        return [self.copy_rows[key] for key in self.cleaned_data["copies"]]

    def wishes(self) -> list[MemberWish]:
        data = self.cleaned_data
        return [
            MemberWish(
                self.copy_rows[key].pk, weight, data.get(f"maximum_{key}"), minimum=data.get(f"minimum_{key}") or 0
            )
            for key in data["copies"]
            for weight in [100 if data.get(f"weight_{key}") is None else data[f"weight_{key}"]]
        ]

    def pool_values(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in PoolForm.base_fields if name in self.cleaned_data}

    def places(self) -> list[dict[str, Any]]:
        """Each copy as the form shows it: whether it is chosen, and its fields for weight and limits."""
        chosen = set(self["copies"].value() or []) if self.is_bound else set()
        return [
            {
                "copy": copy,
                "is_chosen": key in chosen,
                "weight": self.data.get(f"weight_{key}", "100") if self.is_bound else "100",
                "minimum": self.data.get(f"minimum_{key}", "") if self.is_bound else "",
                "maximum": self.data.get(f"maximum_{key}", "") if self.is_bound else "",
                "fields": {name: self[f"{name}_{key}"] for name in ("weight", "minimum", "maximum")},
                "errors": [
                    words
                    for name in ("weight", "minimum", "maximum")
                    for words in (self.errors.get(f"{name}_{key}", []) if self.is_bound else [])
                ],
            }
            for key, copy in self.copy_rows.items()
        ]


@dataclass(frozen=True, slots=True)
class Place:
    """What a hypervisor has to choose from."""

    storages: list[Storage]
    hosts: list[Host]
    networks: list[Network]


class MemberForm(forms.Form):
    """Where and how much a pool builds on one hypervisor."""

    called = {"copy": "copy_id", "member_minimum": "minimum", "member_maximum": "maximum"}

    copy_id = forms.TypedChoiceField(label="Template copy")
    weight = WholeField(
        label="Weight", min_value=0, max_value=10_000, initial=100, help_text="Twice the weight: about twice as many."
    )
    minimum = WholeField(
        label="At least", min_value=0, initial=0, required=False, help_text="Desktops that always stand there."
    )
    maximum = WholeField(
        label="At most",
        min_value=1,
        required=False,
        help_text="Desktops of this pool there. Empty: no limit of its own.",
    )
    storage = forms.ChoiceField(
        label="Storage", required=False, help_text="Where clones go. It must be one that the template can be cloned to."
    )
    hosts = forms.MultipleChoiceField(
        label="Hosts", required=False, widget=forms.CheckboxSelectMultiple, help_text="None chosen: all of them."
    )
    networks = forms.MultipleChoiceField(
        label="Networks", required=False, widget=forms.CheckboxSelectMultiple,
        help_text="One a network card. None: the pool’s network, or as the template has them.",
    )  # fmt: skip
    is_enabled = forms.BooleanField(label="Build here", required=False, initial=True)

    def __init__(self, copies: list[TemplateCopy], place: Place | None, *args: Any, **kwargs: Any) -> None:
        """`place` None: the hypervisor is chosen with the copy, so what it has is not known yet."""
        super().__init__(*args, **kwargs)
        self._offer("copy_id", [(str(copy.pk), f"{copy.version}: {copy.name} on {copy.hypervisor}") for copy in copies])
        if place is None:
            for name in ("storage", "hosts", "networks", "is_enabled"):
                del self.fields[name]
            return
        beside = ("", _("Where the template lies"))
        self._offer("storage", [beside, *((storage.platform_id, storage.name) for storage in place.storages)])
        self._offer("hosts", [(host.platform_id, host.name) for host in place.hosts])
        self._offer("networks", [(network.platform_id, network.name) for network in place.networks])

    def _offer(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
        field.choices = choices

    def clean_minimum(self) -> int:
        return self.cleaned_data["minimum"] or 0


def member_initial(member: PoolMember) -> dict[str, Any]:
    return {
        "copy_id": str(member.copy_id),
        "weight": member.weight,
        "minimum": member.minimum,
        "storage": member.storage,
        "hosts": member.hosts,
        "maximum": member.maximum,
        "networks": member.networks,
        "is_enabled": member.is_enabled,
    }
