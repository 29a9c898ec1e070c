"""How many desktops a pool keeps free, and when."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from broker.console.access import Right, actor_of, needs
from broker.console.answers import done, posted, saved, show
from broker.console.fields import WholeField
from broker.console.schedule_forms import zone_choices
from broker.domain.scaling import PERCENT_LIMIT
from broker.domain.schedules import NAMES, weekdays_of
from broker.models import Pool
from broker.services import pools as services


def _number(label: str, help_text: str = "") -> WholeField:
    return WholeField(label=label, min_value=0, help_text=help_text)


def _share() -> WholeField:
    return WholeField(
        label="Spare in % of those in use", min_value=1, max_value=PERCENT_LIMIT, required=False,
        help_text="Rounded up, and never fewer than the number beside it. Empty: the number alone.",
    )  # fmt: skip


def _time(label: str, initial: str) -> forms.TimeField:
    return forms.TimeField(
        label=label, required=False, widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"), initial=initial,
        error_messages={"invalid": "A time of day such as 08:30."},
    )  # fmt: skip


class ScalingForm(forms.Form):
    hides_optional = True

    minimum = _number("Minimum", "Desktops that always exist.")
    spare = _number("Spare", "Kept ready beyond those in use; of a shared pool: seats.")
    spare_percent = _share()
    peak_weekdays = forms.MultipleChoiceField(
        label="Peak hours on", choices=[(str(day), name) for day, name in enumerate(NAMES, 1)],
        widget=forms.CheckboxSelectMultiple, required=False,
    )  # fmt: skip
    peak_begins = _time("From", "07:00")
    peak_ends = _time("To", "18:00")
    peak_zone = forms.ChoiceField(label="Time zone", choices=zone_choices, help_text="Its clock counts.")
    peak_minimum = _number("Minimum in peak hours")
    peak_spare = _number("Spare in peak hours")
    peak_spare_percent = _share()

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if "peak_weekdays" in data:
            data["peak_weekdays"] = weekdays_of(int(day) for day in data["peak_weekdays"])
        return data


def _initial(pool: Pool) -> dict[str, Any]:
    values = {name: getattr(pool, name) for name in ScalingForm.base_fields}
    values["peak_weekdays"] = list(pool.peak_weekdays)
    if not pool.peak_weekdays:
        values |= {"peak_minimum": pool.minimum, "peak_spare": pool.spare, "peak_zone": "UTC"}
        values |= {name: ScalingForm.base_fields[name].initial for name in ("peak_begins", "peak_ends")}
    return values


@needs(Right.OPERATE)
def edit(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    form = ScalingForm(posted(request), initial=_initial(pool))
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda data: services.change_pool(actor=actor, pool_id=pool_id, **data)):
            return done(request, _("Saved."), reverse("console:pool", args=[pool_id]))
    elif not pool.peak_weekdays:
        # The page sets the reader's own zone.
        form.fields["peak_zone"].widget.attrs["data-own-zone"] = True
    context = {"form": form, "pool": pool}
    return show(request, "console/pools/scaling.html", context, status=422 if form.errors else 200)
