"""Drift: where Deskyard and the hypervisors disagree, and what an administrator makes of it."""

from __future__ import annotations

from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, ask_first, done, page_of, posted, saved, show, typed
from broker.models import Machine, Pool
from broker.selectors import drift as selectors
from broker.selectors.people import user_named
from broker.services import drift as services

KINDS = {
    selectors.LEFT_OVER: gettext_lazy("Left over"),
    selectors.OTHERS: gettext_lazy("Another installation’s"),
    selectors.UNKNOWN: gettext_lazy("Unknown"),
}


@needs(Right.REVIEW)
def list_(request: HttpRequest) -> HttpResponse:
    kind = typed(request, "kind")
    kind = kind if kind in selectors.KINDS else selectors.LEFT_OVER
    page = page_of(request, selectors.drifting_machines(kind))
    context = {
        "page": page,
        "strays": selectors.strays(list(page)),
        "missing": selectors.missing_desktops()[:50],
        "kind": kind,
        "tabs": [(name, words, selectors.drifting_machines(name).count()) for name, words in KINDS.items()],
    }
    return show(request, "console/drift/list.html", context)


class AdoptForm(forms.Form):
    """Into which pool, and whose it is."""

    pool = forms.ModelChoiceField(label="Pool", queryset=Pool.objects.none(), empty_label="Choose a pool")
    user = forms.CharField(
        label="User", required=False,
        help_text="Sign-in name: the machine becomes this user’s desktop as it is. "
        "Empty: its disks are replaced and it joins the pool’s free desktops.",
    )  # fmt: skip

    def __init__(self, machine: Machine, data: object = None) -> None:
        super().__init__(data)  # type: ignore[arg-type]
        field = self.fields["pool"]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101 - for the type checker
        field.queryset = Pool.objects.filter(members__hypervisor=machine.hypervisor_id).distinct()

    def clean_user(self) -> int | None:
        name = self.cleaned_data["user"].strip()
        if not name:
            return None
        user = user_named(name)
        if user is None:
            raise forms.ValidationError(_("There is no user of that name."))
        return user.pk


@needs(Right.OPERATE)
def adopt(request: HttpRequest, machine_id: UUID) -> HttpResponse:
    machine = get_object_or_404(Machine.objects.select_related("hypervisor"), pk=machine_id)
    form = AdoptForm(machine, posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        desktop = saved(
            form,
            lambda data: services.adopt(
                actor=actor, machine_id=machine_id, pool_id=data["pool"].pk, user_id=data["user"]
            ),
        )
        if desktop:
            return done(request, _("Adopted as %s.") % desktop, reverse("console:desktop", args=[desktop.pk]))
    context = {"form": form, "machine": machine}
    return show(request, "console/drift/adopt.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def forget(request: HttpRequest, machine_id: UUID) -> HttpResponse:
    machine = get_object_or_404(Machine.objects.select_related("hypervisor"), pk=machine_id)
    question = Question(
        title=_("Forget %s?") % machine.name,
        verb=_("Forget it"),
        back=reverse("console:drift"),
        sentences=[_("The machine is left alone on %s and not mentioned here again.") % machine.hypervisor],
        is_harmless=True,
    )

    def do() -> str:
        services.forget(actor=actor_of(request), machine_id=machine_id)
        return _("%s is forgotten.") % machine.name

    return ask_first(request, question, do, reverse("console:drift"))


@needs(Right.OPERATE)
def delete(request: HttpRequest, machine_id: UUID) -> HttpResponse:
    machine = get_object_or_404(Machine.objects.select_related("hypervisor"), pk=machine_id)
    question = Question(
        title=_("Delete the machine %s?") % machine.name,
        verb=_("Delete it"),
        back=reverse("console:drift"),
        sentences=[_("It is deleted on %s with its disks. This cannot be undone.") % machine.hypervisor],
        typed_name=machine.name,
    )

    def do() -> str:
        services.delete(actor=actor_of(request), machine_id=machine_id)
        return _("The deletion of %s is ordered.") % machine.name

    return ask_first(request, question, do, reverse("console:drift"))
