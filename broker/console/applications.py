"""Published applications: what is started, on which pool's desktops, and who may open it."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from broker.console.access import Right, actor_of, needs, staff_only
from broker.console.answers import Question, ask_first, done, posted, saved, show, typed, typed_uuid
from broker.console.lists import Column, Listing
from broker.console.who import ask_who
from broker.domain.labels import application_label
from broker.models import Application, Pool
from broker.selectors import applications as selectors
from broker.selectors.pools import entitlements as entitlement_rows
from broker.services import applications as services
from broker.services import entitlements

LIST = Listing(
    "applications",
    Column("name", gettext_lazy("Application"), lambda row: row.name, ("name",)),
    Column("state", gettext_lazy("State"), lambda row: application_label(row).text),
    Column("pool", gettext_lazy("Pool"), lambda row: row.pool.name, ("pool__name",)),
    Column("starts", gettext_lazy("What is started"), lambda row: row.program.line, ("command", "arguments")),
    Column("people", gettext_lazy("Users and groups"), lambda row: row.people, ("people",), begins_down=True),
    Column("created", gettext_lazy("Published"), lambda row: row.created_at),
)
FIELDS = ("name", "description", "icon", "guest", "command", "arguments", "folder", "is_enabled")


class ApplicationForm(forms.Form):
    """All but the pool."""

    name = forms.CharField(label="Name", max_length=100, help_text="What stands on its tile.")
    description = forms.CharField(label="Description", required=False, widget=forms.Textarea(attrs={"rows": 2}))
    icon = forms.ChoiceField(label="Picture", choices=Application.Icon)
    guest = forms.ChoiceField(
        label="Its desktops run", choices=Application.Guest,
        help_text="On Linux the session is this program, in the browser too. Windows shows it as a RemoteApp, to "
        "Remote Desktop programs only.",
    )  # fmt: skip
    command = forms.CharField(
        label="Command", max_length=200,
        help_text="What is started, such as /usr/bin/libreoffice; on Windows a path or ||alias of the published one.",
    )  # fmt: skip
    arguments = forms.CharField(label="Arguments", required=False, max_length=200)
    folder = forms.CharField(
        label="Folder", required=False, max_length=200,
        help_text="Where it is started. Empty: where a session starts.",
    )  # fmt: skip
    is_enabled = forms.BooleanField(
        label="Offered", required=False, initial=True,
        help_text="Off: its tile goes, and what shows it closes. Who may have it is kept.",
    )  # fmt: skip


class NewApplicationForm(ApplicationForm):
    pool = forms.ModelChoiceField(
        label="Pool", queryset=Pool.objects.filter(protocol=Pool.Protocol.RDP), empty_label=None,
        help_text="On whose desktops it runs. Only pools that show the guest's remote desktop (RDP) can.",
    )  # fmt: skip

    field_order = ("name", "pool")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["is_enabled"].initial = True


def _address(application_id: UUID) -> str:
    return reverse("console:application", args=[application_id])


@staff_only
def list_(request: HttpRequest) -> HttpResponse:
    pool, text = typed_uuid(request, "pool"), typed(request, "q")
    rows = selectors.applications()
    if pool:
        rows = rows.filter(pool=pool)
    if text:
        rows = rows.filter(Q(name__icontains=text) | Q(command__icontains=text))
    pools = Pool.objects.filter(applications__isnull=False).distinct().only("name")
    context = {"pools": pools, "pool": pool, "text": text}
    return LIST.answer(request, "console/applications/list.html", rows, context)


@needs(Right.OPERATE)
def add(request: HttpRequest) -> HttpResponse:
    form = NewApplicationForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)

        def do(data: dict[str, Any]) -> Application:
            return services.publish(actor=actor, pool_id=data.pop("pool").pk, **data)

        if made := saved(form, do):
            return done(request, _("%s was published. Let people in next.") % made, _address(made.pk))
    context = {"form": form, "has_pools": Pool.objects.filter(protocol=Pool.Protocol.RDP).exists()}
    return show(request, "console/applications/add.html", context, status=422 if form.errors else 200)


@needs(Right.SEE, sending=Right.OPERATE)
def detail(request: HttpRequest, application_id: UUID) -> HttpResponse:
    """What it is, to be changed, and who may open it."""
    application = get_object_or_404(selectors.applications(), pk=application_id)
    form = ApplicationForm(posted(request), initial={field: getattr(application, field) for field in FIELDS})
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda data: services.change(actor=actor, application_id=application_id, **data)):
            return done(request, _("Saved."), _address(application_id))
    people = entitlement_rows().filter(application=application).order_by("group__name", "user__username")
    context = {"application": application, "form": form, "entitlements": people}
    return show(request, "console/applications/detail.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def entitle(request: HttpRequest, application_id: UUID) -> HttpResponse:
    application = get_object_or_404(Application.objects.select_related("pool"), pk=application_id)
    return ask_who(
        request,
        application.pool,
        partial(entitlements.entitle, actor=actor_of(request), application_id=application.pk),
        question=_("Who may open %s?") % application,
        step=_("Let people in"),
        verb=_("Let them in"),
        said=_("%(who)s may open {}.").format(application.name.replace("%", "%%")),
        back=_address(application.pk),
    )


@needs(Right.OPERATE)
def withdraw(request: HttpRequest, application_id: UUID) -> HttpResponse:
    application = get_object_or_404(Application, pk=application_id)
    question = Question(
        title=_("Withdraw the application %s?") % application,
        verb=_("Withdraw it"),
        back=_address(application_id),
        sentences=[
            _("Its tile goes, with all that says who may open it, and what shows it closes."),
            _("Desktops stay with those who have them."),
        ],
    )

    def do() -> str:
        services.withdraw(actor=actor_of(request), application_id=application_id)
        return _("%s was withdrawn.") % application

    return ask_first(request, question, do, reverse("console:applications"))
