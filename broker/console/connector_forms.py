"""The form of a hypervisor, made from what its connector declares about its settings. Connects to nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext as _

from broker.console.fields import WholeField
from connectors.base import Connector, Settings

PREFIX = "setting_"
"""Settings may be named as they like without meeting the form's own fields."""


class HypervisorForm(forms.Form):
    """Name and the connector's settings. `kept`: the present values of a registered one (no secrets among them)."""

    hides_optional = True
    """Which settings are needed depends on the others; the connector says what is missing."""

    name = forms.CharField(label="Name", max_length=100, help_text="What you call it in Deskyard.")

    def __init__(
        self, connector: type[Connector], *args: Any, kept: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.connector = connector
        for declared in dataclasses.fields(connector.settings):
            field = _field(declared, kept)
            field.when = _condition(declared)  # type: ignore[attr-defined]
            self.fields[PREFIX + declared.name] = field
        # Services name faults by the settings' own names.
        self.called = {
            declared.name: PREFIX + declared.name
            for declared in dataclasses.fields(connector.settings)
            if declared.name not in self.base_fields
        }

    def values(self) -> dict[str, str]:
        """The settings by their own names, as text, the way services take them."""
        return {
            name.removeprefix(PREFIX): _text(value)
            for name, value in self.cleaned_data.items()
            if name.startswith(PREFIX)
        }


def _condition(declared: dataclasses.Field[Any]) -> str:
    """For which values of which other field it is asked, as `data-when` says it: "setting_transport=tls ssh"."""
    if not (when := declared.metadata.get("when")):
        return ""
    other, values = when
    return f"{PREFIX}{other}={' '.join(values)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return "" if value is None else str(value)


def _field(declared: dataclasses.Field[Any], kept: Mapping[str, Any] | None) -> forms.Field:
    meta = declared.metadata
    default = None if declared.default is dataclasses.MISSING else declared.default
    common: dict[str, Any] = {
        "label": meta.get("label") or declared.name.replace("_", " ").capitalize(),
        "help_text": meta.get("help", ""),
        "required": False,
        "initial": default if kept is None else kept.get(declared.name, default),
    }
    if meta.get("secret"):
        return _secret(common, is_multiline=bool(meta.get("multiline")), is_kept=kept is not None)
    if choices := meta.get("choices"):
        return forms.ChoiceField(choices=choices, **common)
    if isinstance(default, bool):
        return forms.BooleanField(**common)
    if isinstance(default, int):
        return WholeField(**common)
    if meta.get("multiline"):
        return forms.CharField(
            widget=forms.Textarea(attrs={"rows": 4, "class": "mono", "spellcheck": "false"}), **common
        )
    return forms.CharField(**common)


def _secret(common: dict[str, Any], *, is_multiline: bool, is_kept: bool) -> forms.Field:
    common["initial"] = None
    if is_kept:
        common["help_text"] = f"{common['help_text']} {_('Leave empty to keep the present one.')}".strip()
    attributes: dict[str, Any] = {"autocomplete": "new-password", "spellcheck": "false"}
    widget: forms.Widget
    if is_multiline:
        widget = forms.Textarea(attrs={**attributes, "rows": 4, "class": "mono"})
    else:
        widget = forms.PasswordInput(attrs=attributes)
    # A password may begin or end with a space.
    return forms.CharField(widget=widget, strip=False, **common)


def settings_shown(declared: type[Settings], values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, value) of what is set and no secret, for the detail page; of certificates and the like only that."""
    shown = []
    for field in dataclasses.fields(declared):
        value = values.get(field.name)
        if field.metadata.get("secret") or value in (None, "", field.default):
            continue
        words = dict(field.metadata.get("choices", ())).get(value, value)
        if field.metadata.get("multiline"):
            words = _("given")
        shown.append((str(field.metadata.get("label") or field.name), str(words)))
    return shown
