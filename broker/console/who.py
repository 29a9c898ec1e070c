"""The question "which group or which user?", as pages of a pool ask it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from broker.console.answers import done, posted, saved, show
from broker.models import Entitlement, Pool, PoolOwner


class WhoForm(forms.Form):
    """One group or one user; which of them it is the service says, as for the API."""

    group = forms.ModelChoiceField(label="A group", queryset=Group.objects.order_by("name"), required=False)
    user = forms.CharField(label="or a user", required=False, help_text="The sign-in name.")

    def clean_user(self) -> User | None:
        name = self.cleaned_data["user"].replace("\0", "").strip()
        if not name:
            return None
        user = User.objects.filter(username__iexact=name).first()
        if user is None:
            raise forms.ValidationError(_("There is no user of that name."))
        return user


def ask_who(
    request: HttpRequest,
    pool: Pool,
    add: Callable[..., tuple[Entitlement | PoolOwner, bool]],
    *,
    question: str,
    step: str,
    verb: str,
    said: str,
    back: str = "",
) -> HttpResponse:
    """The page with the question, and `add` (given `user_id` and `group_id`) for the answer.

    `said`: what is told when it is done, with `%(who)s` and `%(pool)s`. `back`: where it goes then, else to the pool.
    """

    def do(data: dict[str, Any]) -> Entitlement | PoolOwner:
        named = {f"{name}_id": data[name].pk if data[name] else None for name in ("user", "group")}
        return add(pool_id=pool.pk, **named)[0]

    back = back or reverse("console:pool", args=[pool.pk])
    form = WhoForm(posted(request))
    if request.method == "POST" and (made := saved(form, do)):
        words = said % {"who": made.user or made.group, "pool": pool}
        return done(request, words, back)
    context = {"back": back, "form": form, "pool": pool, "question": question, "step": step, "verb": verb}
    return show(request, "console/pools/who.html", context, status=422 if form.errors else 200)
