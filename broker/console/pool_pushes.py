"""A template version pushed to a pool: chosen, reviewed with what it means for each desktop, cancelled, rolled back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from broker.console.access import Right, actor_of, needs, staff_only
from broker.console.answers import Question, ask_first, done, posted, saved, show
from broker.console.fields import MinutesField, WholeField
from broker.console.schedule_forms import zone_choices
from broker.domain import pushes as rules
from broker.models import Pool, Push
from broker.selectors import pushes as selectors
from broker.selectors.pushes import Choice
from broker.services import pushes as services

NOW, LATER = "now", "later"
LOCAL = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"]


def _moment(label: str) -> forms.DateTimeField:
    return forms.DateTimeField(
        label=label, required=False, input_formats=LOCAL,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=LOCAL[0]),
        error_messages={"invalid": "A date and a time, such as 2026-12-24 18:30."},
    )  # fmt: skip


class PushForm(forms.Form):
    hides_optional = True

    version_id = forms.ChoiceField(
        label="Version", widget=forms.RadioSelect, error_messages={"required": "Choose a version."}
    )
    starts = forms.ChoiceField(
        label="When it begins", choices=[(NOW, "Now"), (LATER, "At a date and time")], widget=forms.RadioSelect,
        initial=NOW,
    )  # fmt: skip
    starts_at = _moment("It begins")
    users = forms.ChoiceField(
        label="Desktops in use", choices=Push.Users.choices, widget=forms.RadioSelect, initial=rules.Users.LEAVE.value
    )
    deadline_at = _moment("Deadline")
    notice_min = MinutesField(label="Told before", initial=15, help_text="Such as 15 min or 2 h.")
    zone = forms.ChoiceField(label="Time zone", choices=zone_choices, help_text="Of both times.", initial="UTC")
    stops_after = WholeField(
        label="Stop after failures in a row", min_value=1, max_value=100, initial=rules.STOPS_AFTER,
        help_text="The pool then builds from the version before.",
    )  # fmt: skip

    def __init__(self, choices: Sequence[Choice], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offered = list(choices)
        open_ones = [(str(one.version.pk), str(one.version)) for one in self.offered if not one.lacking]
        self.fields["version_id"].choices = open_ones  # type: ignore[attr-defined]
        self.fields["starts_at"].when = f"starts={LATER}"  # type: ignore[attr-defined]
        for name in ("deadline_at", "notice_min"):
            self.fields[name].when = "users=deadline"  # type: ignore[attr-defined]
        if not self.is_bound:
            # The page sets the reader's own zone.
            self.fields["zone"].widget.attrs["data-own-zone"] = True

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        for name, asked_by, value, words in (
            ("starts_at", "starts", LATER, _("Say when it begins.")),
            ("deadline_at", "users", rules.Users.DEADLINE.value, _("Say when.")),
        ):
            if data.get(asked_by) != value:
                # What is not asked for now is not held against anybody.
                data[name] = None
                self.errors.pop(name, None)
            elif name in data and data[name] is None:
                self.add_error(name, words)
            elif data.get(name) and data.get("zone"):
                data[name] = data[name].replace(tzinfo=ZoneInfo(data["zone"]))
        return data

    def shown(self) -> list[tuple[Choice, bool]]:
        """Each version with whether it is chosen."""
        chosen = self["version_id"].value()
        return [(one, str(one.version.pk) == chosen) for one in self.offered]

    def wish(self) -> dict[str, Any]:
        """As the service takes it; the form must be valid."""
        data = self.cleaned_data
        return {
            "version_id": UUID(data["version_id"]),
            "starts_at": data["starts_at"],
            "users": data["users"],
            "deadline_at": data["deadline_at"],
            "notice_min": data["notice_min"],
            "stops_after": data["stops_after"],
        }


def _address(pool_id: UUID) -> str:
    return reverse("console:pool", args=[pool_id])


@needs(Right.OPERATE)
def push(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    """Fill in, review, push, on one address. The review bears the id that the push will have: sent twice, it is one."""
    pool = get_object_or_404(Pool, pk=pool_id)
    form = PushForm(selectors.choices(pool), posted(request))
    step = request.POST.get("step", "")
    if step == "review" and form.is_valid():
        return show(request, "console/pools/push_review.html", _review(request, pool, form))
    if step == "push":
        actor, key = actor_of(request), _key(request)
        made = saved(form, lambda _data: services.push(actor=actor, pool_id=pool_id, key=key, **form.wish()))
        if made:
            return done(request, _("%(version)s is pushed.") % {"version": made.version}, _address(pool_id))
    context = {"pool": pool, "form": form, "is_fresh": step == "edit"}
    return show(request, "console/pools/push.html", context, status=422 if form.errors and step != "edit" else 200)


def _key(request: HttpRequest) -> UUID | None:
    try:
        return UUID(request.POST.get("key", ""))
    except ValueError:
        return None


def _review(request: HttpRequest, pool: Pool, form: PushForm) -> dict[str, Any]:
    """What it will do to each desktop, counted."""
    wish = form.wish()
    version = next(one.version for one in form.offered if one.version.pk == wish["version_id"])
    members = selectors.concerned(pool, version)
    left_out = ("step", "csrfmiddlewaretoken", "key")
    starts_at: datetime | None = wish["starts_at"]
    return {
        "pool": pool,
        "version": version,
        "members": members,
        "before": sorted({str(member.copy.version) for member in members if member.copy.version_id != version.pk}),
        "tally": selectors.tally(pool.pk, version),
        "wish": wish,
        "zone": form.cleaned_data["zone"],
        "starts_at": starts_at,
        "is_dedicated": pool.kind == Pool.Kind.DEDICATED,
        "running": Push.objects.filter(pool=pool, state=Push.State.RUNNING).select_related("version__template").first(),
        "key": uuid4(),
        "typed": [(key, value) for key, values in request.POST.lists() if key not in left_out for value in values],
    }


@staff_only
def detail(request: HttpRequest, push_id: UUID) -> HttpResponse:
    row = get_object_or_404(selectors.pushes(), pk=push_id)
    context = {"push": row, "pool": row.pool, "standing": selectors.standing_of(row)}
    return show(request, "console/pools/push_detail.html", context)


@needs(Right.OPERATE)
def cancel(request: HttpRequest, push_id: UUID) -> HttpResponse:
    row = get_object_or_404(selectors.pushes(), pk=push_id)
    question = Question(
        title=_("Cancel the push of %(version)s to %(pool)s?") % {"version": row.version, "pool": row.pool},
        verb=_("Cancel the push"),
        back=_address(row.pool_id),
        sentences=[
            _("Nothing more goes over, and the pool builds from the version before again."),
            _("Desktops that went over stay so until they are given back. To take them back too, roll back."),
        ],
        is_harmless=True,
    )

    def do() -> str:
        services.cancel(actor=actor_of(request), push_id=push_id)
        return _("The push is cancelled.")

    return ask_first(request, question, do, _address(row.pool_id))


@needs(Right.OPERATE)
def roll_back(request: HttpRequest, push_id: UUID) -> HttpResponse:
    row = get_object_or_404(selectors.pushes(), pk=push_id)
    question = Question(
        title=_("Roll %(pool)s back to %(version)s?") % {"pool": row.pool, "version": row.before or "?"},
        verb=_("Roll back"),
        back=_address(row.pool_id),
        sentences=[
            _("Free desktops on %s are rebuilt a few at a time, those in use as it was said for this push.")
            % row.version,
            _("Each desktop that is rebuilt gets a fresh disk: what lies on it is deleted."),
        ],
        hidden=[("key", str(uuid4()))],
    )

    def do() -> str:
        made = services.roll_back(actor=actor_of(request), push_id=push_id, key=_key(request))
        return _("%(pool)s goes back to %(version)s.") % {"pool": row.pool, "version": made.version}

    return ask_first(request, question, do, _address(row.pool_id))
