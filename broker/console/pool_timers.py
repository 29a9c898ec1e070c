"""When sessions on a pool's desktops end by themselves."""

from __future__ import annotations

from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from broker.console.access import Right, actor_of, needs
from broker.console.answers import done, posted, saved, show
from broker.console.fields import MinutesField
from broker.models import Pool
from broker.services import pools as services


class TimersForm(forms.Form):
    hides_optional = True

    idle_min = MinutesField(
        label="Disconnect when nothing was typed or moved for", required=False,
        help_text="Such as 30 min or 2 h. What runs on the desktop goes on. Empty: never.",
    )  # fmt: skip
    disconnected_min = MinutesField(
        label="Log off when nobody was connected for", required=False,
        help_text="A floating desktop is taken back and gets a fresh disk; a dedicated one is restarted. Empty: never.",
    )  # fmt: skip
    longest_min = MinutesField(
        label="Longest session", required=False,
        help_text="It is logged off then, whatever is done in it. Empty: as long as they like.",
    )  # fmt: skip


@needs(Right.OPERATE)
def edit(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    form = TimersForm(posted(request), initial={name: getattr(pool, name) for name in TimersForm.base_fields})
    back = reverse("console:pool", args=[pool_id])
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda data: services.change_pool(actor=actor, pool_id=pool_id, **data)):
            return done(request, _("Saved."), back)
    context = {"form": form, "pool": pool}
    return show(request, "console/pools/timers.html", context, status=422 if form.errors else 200)
