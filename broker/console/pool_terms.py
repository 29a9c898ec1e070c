"""What a pool asks of requests, who decides on them, and how long its desktops are somebody's."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, ask_first, done, posted, saved, show
from broker.console.fields import HoursField, WholeField
from broker.console.who import ask_who
from broker.models import Pool, PoolOwner
from broker.services import owners
from broker.services import pools as services


class TermsForm(forms.Form):
    """What contradicts itself is refused by the service, as for the API."""

    hides_optional = True

    approval = forms.ChoiceField(label="Who approves requests", choices=Pool.Approval.choices, widget=forms.RadioSelect)
    trusted_group_id = forms.ModelChoiceField(
        label="Approved at once", queryset=Group.objects.order_by("name"), required=False, empty_label="Nobody",
        help_text="Requests of this group’s members need nobody’s word.",
    )  # fmt: skip
    asks_why = forms.ChoiceField(label="A reason", choices=Pool.Asks.choices)
    lease_h = HoursField(
        label="A desktop is somebody’s for", required=False,
        help_text="Such as 8 h or 30 days. Empty: until it is released.",
    )  # fmt: skip
    asks_how_long = forms.BooleanField(
        label="Ask for how long it is needed", required=False, help_text="People may choose less than that."
    )
    renewals = WholeField(
        label="Renewals", min_value=0, initial=0, help_text="How often its user may lengthen a lease."
    )
    renewal_h = HoursField(label="Each by", required=False, help_text="Empty: by a whole lease.")
    notice_h = HoursField(label="Told before the end", help_text="By a notice in the portal and by mail.")
    grace_h = HoursField(label="Grace", help_text="How long it waits after the end before it is taken back.")
    reclaims = forms.BooleanField(
        label="Take dedicated desktops back too", required=False,
        help_text="What lies on them is deleted. Off: the pool’s owners are told, and decide. Floating ones always go.",
    )  # fmt: skip

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if "trusted_group_id" in data:
            data["trusted_group_id"] = data["trusted_group_id"].pk if data["trusted_group_id"] else None
        return data


def _address(pool_id: UUID) -> str:
    return reverse("console:pool", args=[pool_id])


@needs(Right.OPERATE)
def edit(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    form = TermsForm(posted(request), initial={name: getattr(pool, name) for name in TermsForm.base_fields})
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda data: services.change_pool(actor=actor, pool_id=pool_id, **data)):
            return done(request, _("Saved."), _address(pool_id))
    context = {"form": form, "pool": pool}
    return show(request, "console/pools/terms.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def appoint(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    return ask_who(
        request,
        pool,
        partial(owners.appoint, actor=actor_of(request)),
        question=_("Who decides on requests for %s?") % pool,
        step=_("Add an owner"),
        verb=_("Make them an owner"),
        said=_("%(who)s may decide on requests for %(pool)s."),
    )


@needs(Right.OPERATE)
def dismiss(request: HttpRequest, owner_id: UUID) -> HttpResponse:
    owner = get_object_or_404(PoolOwner.objects.select_related("pool", "user", "group"), pk=owner_id)
    who = str(owner.user or owner.group)
    question = Question(
        title=_("Is %(who)s no longer an owner of %(pool)s?") % {"who": who, "pool": owner.pool},
        verb=_("No longer an owner"),
        back=_address(owner.pool_id),
        sentences=[
            _("What they decided stays. A pool without owners is decided on by the help desk and administrators.")
        ],
    )

    def do() -> str:
        owners.dismiss(actor=actor_of(request), owner_id=owner_id)
        return _("%s is no longer an owner.") % who

    return ask_first(request, question, do, _address(owner.pool_id))
