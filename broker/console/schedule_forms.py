"""The forms of power schedules and of calendars. What contradicts itself is refused by the services, as for the API."""

from __future__ import annotations

from datetime import date
from itertools import groupby
from typing import Any

from django import forms
from django.utils.translation import gettext as _

from broker.console.fields import WholeField
from broker.domain.schedules import NAMES, Action, Reach, weekdays_of, zones
from broker.models import HolidayCalendar, PowerSchedule
from broker.services.schedules import ScheduleFields

DOES = [
    (Reach.ALL, "Switch on all of them"),
    (Reach.NUMBER, "Switch on until so many are on"),
    (Reach.SHARE, "Switch on until so many per cent are on"),
    (Action.OFF, "Shut down what nobody uses"),
]
"""What a schedule does, in one choice."""
EXPLAINED = {
    Action.OFF: "Spares what is in use, just given out or in maintenance. Guests get 5 minutes to end.",
    Reach.ALL: "Before people come: nobody waits for a start.",
}


def zone_choices() -> list[tuple[str, Any]]:
    """UTC, then the zones by region, as places are called."""
    grouped = groupby(zones()[1:], key=lambda zone: zone.partition("/")[0])
    return [
        ("UTC", "UTC"),
        *((region, [(zone, zone.partition("/")[2].replace("_", " ")) for zone in found]) for region, found in grouped),
    ]


class ScheduleForm(forms.Form):
    hides_optional = True
    """How many is asked only where it is needed, and the choice of a calendar says what none means."""
    called = {"action": "does", "reach": "does", "calendar_id": "calendar"}
    """What the services call it, and what we."""

    name = forms.CharField(label="Name", max_length=100, help_text="Such as Weekday mornings; operations name it.")
    does = forms.ChoiceField(label="What it does", choices=DOES, widget=forms.RadioSelect, initial=Reach.ALL)
    amount = WholeField(
        label="How many", min_value=1, required=False, help_text="Desktops or per cent. Those that are on count."
    )
    at = forms.TimeField(
        label="Time", widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"), initial="08:30",
        error_messages={"invalid": "A time of day such as 08:30."},
    )  # fmt: skip
    zone = forms.ChoiceField(label="Time zone", choices=zone_choices, help_text="Its clock counts, summer and winter.")
    weekdays = forms.MultipleChoiceField(
        label="Days", choices=[(str(day), name) for day, name in enumerate(NAMES, 1)],
        widget=forms.CheckboxSelectMultiple, initial=["1", "2", "3", "4", "5"],
        error_messages={"required": "Choose at least one day."},
    )  # fmt: skip
    calendar = forms.ModelChoiceField(
        label="Not on the holidays of", queryset=HolidayCalendar.objects.all(), required=False,
        empty_label="It runs on holidays too",
    )  # fmt: skip

    def __init__(self, *args: Any, is_new: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["amount"].when = "does=number share"  # type: ignore[attr-defined]
        if is_new and not self.is_bound:
            # The page sets the reader's own zone.
            self.fields["zone"].widget.attrs["data-own-zone"] = True

    def explained(self) -> list[tuple[Any, str]]:
        """Each choice of what it does with what that means."""
        return [(radio, EXPLAINED.get(radio.data["value"], "")) for radio in self["does"]]

    def values(self) -> ScheduleFields:
        """As the service takes them; the form must be valid."""
        data = self.cleaned_data
        is_off = data["does"] == Action.OFF
        return {
            "name": data["name"],
            "action": Action.OFF.value if is_off else Action.ON.value,
            "reach": Reach.ALL.value if is_off else data["does"],
            "amount": data["amount"],
            "at": data["at"],
            "zone": data["zone"],
            "weekdays": weekdays_of(int(day) for day in data["weekdays"]),
            "calendar_id": data["calendar"].pk if data["calendar"] else None,
        }


def schedule_initial(schedule: PowerSchedule) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "does": Action.OFF.value if schedule.action == Action.OFF else schedule.reach,
        "amount": schedule.amount,
        "at": schedule.at,
        "zone": schedule.zone,
        "weekdays": list(schedule.weekdays),
        "calendar": schedule.calendar_id,
    }


class CalendarForm(forms.Form):
    name = forms.CharField(label="Name", max_length=100, help_text="Such as Public holidays in Berlin.")
    days = forms.CharField(
        label="Days", required=False, max_length=50_000, widget=forms.Textarea(attrs={"rows": 14, "class": "mono"}),
        help_text="One a line, with what it is if you like: 2026-12-25 Christmas Day",
    )  # fmt: skip

    def clean_days(self) -> dict[date, str]:
        found: dict[date, str] = {}
        for number, line in enumerate(self.cleaned_data["days"].splitlines(), 1):
            if not line.strip():
                continue
            text, _space, name = line.strip().partition(" ")
            try:
                day = date.fromisoformat(text)
            except ValueError:
                words = _("Line %(n)d: %(text)s is no date. Write the year first: 2026-12-25.")
                raise forms.ValidationError(words % {"n": number, "text": text[:40]}) from None
            if day in found:
                raise forms.ValidationError(_("Line %(n)d: %(day)s stands there twice.") % {"n": number, "day": day})
            found[day] = name.strip()[:100]
        return found


def calendar_initial(calendar: HolidayCalendar) -> dict[str, Any]:
    return {"name": calendar.name, "days": "\n".join(str(day) for day in calendar.days.all())}
