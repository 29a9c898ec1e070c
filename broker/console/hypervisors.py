"""Hypervisors: register, watch, change, drain, take away. The worker does the connecting, never a web request."""

from __future__ import annotations

from uuid import UUID

from django import forms
from django.core.paginator import Page
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from broker.console.access import Right, actor_of, needs, staff_only
from broker.console.answers import (
    Question,
    act,
    ask_first,
    came_from,
    done,
    page_of,
    posted,
    saved,
    show,
    typed,
)
from broker.console.connector_forms import HypervisorForm, settings_shown
from broker.console.fields import WholeField
from broker.console.lists import Column, Listing
from broker.models import Hypervisor
from broker.selectors import audit, drift, samples
from broker.selectors import hypervisors as selectors
from broker.services import hypervisors as services
from connectors.base import Connector
from connectors.registry import UnknownKind, load

LIST = Listing(
    "hypervisors",
    Column("name", gettext_lazy("Name"), lambda row: row.name, ("name",)),
    Column("state", gettext_lazy("State"), lambda row: row.status, ("status", "name")),
    Column("reason", gettext_lazy("Reason"), lambda row: row.status_reason),
    Column("since", gettext_lazy("Since"), lambda row: row.status_since),
    Column("kind", gettext_lazy("Kind"), lambda row: row.kind),
    Column("product", gettext_lazy("Product"), lambda row: row.product, ("product",)),
    Column("hosts", gettext_lazy("Hosts")),
    Column("desktops", gettext_lazy("Desktops")),
    Column("id", gettext_lazy("Id"), lambda row: row.pk),
)


def _connector(kind: str) -> type[Connector]:
    try:
        return load(kind)
    except (UnknownKind, ImportError) as error:
        raise Http404(_("No connector of this kind is installed.")) from error


def _connector_if_installed(kind: str) -> type[Connector] | None:
    try:
        return load(kind)
    except (UnknownKind, ImportError):
        return None


def _address(hypervisor_id: UUID) -> str:
    return reverse("console:hypervisor", args=[hypervisor_id])


@staff_only
def list_(request: HttpRequest) -> HttpResponse:
    status = typed(request, "status")
    rows = selectors.hypervisors()
    if status in Hypervisor.Status.values:
        rows = rows.filter(status=status)
    elif status == "trouble":
        rows = rows.exclude(status=Hypervisor.Status.UP)
    context = {"status": status, "statuses": Hypervisor.Status.choices}
    return LIST.answer(request, "console/hypervisors/list.html", rows, context, _standings)


def _standings(page: Page[Hypervisor]) -> dict[str, object]:
    ids = [hypervisor.pk for hypervisor in page]
    capacities, desktops = selectors.capacities(ids), selectors.live_desktop_counts(ids)
    return {"shown": [(one, capacities.get(one.pk), desktops.get(one.pk, 0)) for one in page]}


@needs(Right.ADMINISTER)
def choose_kind(request: HttpRequest) -> HttpResponse:
    kinds = services.connector_kinds()
    if len(kinds) == 1:
        return redirect("console:hypervisor-add", kinds[0].kind)
    return show(request, "console/hypervisors/kinds.html", {"kinds": kinds})


@needs(Right.ADMINISTER)
def add(request: HttpRequest, kind: str) -> HttpResponse:
    connector = _connector(kind)
    form = HypervisorForm(connector, posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        hypervisor = saved(
            form,
            lambda data: services.register_hypervisor(actor=actor, name=data["name"], kind=kind, values=form.values()),
        )
        if hypervisor:
            return redirect("console:hypervisor", hypervisor.pk)
    status = 422 if form.errors else 200
    return show(request, "console/hypervisors/form.html", {"form": form, "kind_label": connector.label}, status=status)


@staff_only
def detail(request: HttpRequest, hypervisor_id: UUID) -> HttpResponse:
    hypervisor = get_object_or_404(selectors.hypervisors(), pk=hypervisor_id)
    connector = _connector_if_installed(hypervisor.kind)
    machines = selectors.machines_of(hypervisor.pk)
    doubted = list(machines.filter(platform_id__in=hypervisor.doubt[:20])) if hypervisor.doubt else []
    context = {
        "hypervisor": hypervisor,
        "kind_label": connector.label if connector else hypervisor.kind,
        "settings": settings_shown(connector.settings, hypervisor.settings) if connector else [],
        "hosts": [
            (host, int(host.vcpus * hypervisor.vcpu_ratio), int(host.memory_mib * hypervisor.memory_ratio))
            for host in selectors.hosts_of(hypervisor.pk)
        ],
        "storages": [
            (storage, storage.capacity_mib - storage.free_mib) for storage in selectors.storages_of(hypervisor.pk)
        ],
        "networks": selectors.networks_of(hypervisor.pk),
        "machine_count": machines.filter(absences=0).count(),
        "desktop_count": selectors.live_desktop_counts([hypervisor.pk]).get(hypervisor.pk, 0),
        "stray_count": drift.drifting_machines().filter(hypervisor=hypervisor).count(),
        "doubted": doubted,
        "budgets": selectors.budgets_now(hypervisor, timezone.now()),
        "events": audit.events_of(hypervisor),
        "spans": samples.WORDS,
    }
    return show(request, "console/hypervisors/detail.html", context)


WHOSE_WORDS = {
    selectors.OURS: gettext_lazy("Ours"),
    selectors.OTHERS: gettext_lazy("Another installation’s"),
    selectors.TEMPLATE: gettext_lazy("Template"),
    selectors.UNSTAMPED: gettext_lazy("Not Deskyard’s"),
}


@staff_only
def machines(request: HttpRequest, hypervisor_id: UUID) -> HttpResponse:
    """Everything the platform lists there, with what it is to us."""
    hypervisor = get_object_or_404(selectors.hypervisors(), pk=hypervisor_id)
    text = typed(request, "q")
    rows = selectors.machines_of(hypervisor.pk)
    page = page_of(request, rows.filter(name__icontains=text) if text else rows)
    installation, copies = selectors.installation(), selectors.linked_copies(hypervisor.pk)
    desktops = selectors.desktops_by_machine(hypervisor.pk, [machine.platform_id for machine in page])
    shown = [
        {
            "machine": machine,
            "whose": WHOSE_WORDS[selectors.whose(machine, installation, frozenset(copies))],
            "desktop": desktops.get(machine.platform_id),
            "copy": copies.get(machine.platform_id),
        }
        for machine in page
    ]
    context = {"hypervisor": hypervisor, "page": page, "shown": shown, "text": text}
    return show(request, "console/hypervisors/machines.html", context)


@needs(Right.ADMINISTER)
def edit(request: HttpRequest, hypervisor_id: UUID) -> HttpResponse:
    hypervisor = get_object_or_404(selectors.hypervisors(), pk=hypervisor_id)
    connector = _connector(hypervisor.kind)
    initial = {"name": hypervisor.name}
    form = HypervisorForm(connector, posted(request), initial=initial, kept=hypervisor.settings)
    if request.method == "POST":
        actor = actor_of(request)
        changed = saved(
            form,
            lambda data: services.change_hypervisor(
                actor=actor, hypervisor_id=hypervisor_id, name=data["name"], values=form.values()
            ),
        )
        if changed:
            return done(request, _("Saved. Deskyard signs in anew."), _address(hypervisor_id))
    context = {"form": form, "kind_label": connector.label, "hypervisor": hypervisor}
    return show(request, "console/hypervisors/form.html", context, status=422 if form.errors else 200)


class LimitsForm(forms.Form):
    """How much Deskyard asks of a hypervisor."""

    build_budget = WholeField(
        label="Builds at once", min_value=1, max_value=1000, help_text="Builds, recycles and deletions in flight."
    )
    power_budget = WholeField(
        label="Other orders at once", min_value=1, max_value=1000, help_text="Power actions, snapshots and the like."
    )
    memory_ratio = forms.FloatField(
        label="Memory promised",
        min_value=0.1,
        max_value=100,
        help_text="How much may be promised for each MiB a host has. 1: nothing beyond what is there.",
    )
    vcpu_ratio = forms.FloatField(
        label="vCPUs promised", min_value=0.1, max_value=100, help_text="How many may be promised for each core."
    )


@needs(Right.OPERATE)
def limits(request: HttpRequest, hypervisor_id: UUID) -> HttpResponse:
    hypervisor = get_object_or_404(selectors.hypervisors(), pk=hypervisor_id)
    initial = {field: getattr(hypervisor, field) for field in LimitsForm.base_fields}
    form = LimitsForm(posted(request), initial=initial)
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda data: services.set_budgets(actor=actor, hypervisor_id=hypervisor_id, **data)):
            return done(request, _("Saved."), _address(hypervisor_id))
    context = {"form": form, "hypervisor": hypervisor}
    return show(request, "console/hypervisors/limits.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
@act
def recheck(request: HttpRequest, hypervisor_id: UUID) -> HttpResponse:
    hypervisor = services.recheck_hypervisor(actor=actor_of(request), hypervisor_id=hypervisor_id)
    return done(request, _("%s is being asked anew.") % hypervisor, came_from(request, _address(hypervisor_id)))


@needs(Right.OPERATE)
def drain(request: HttpRequest, hypervisor_id: UUID) -> HttpResponse:
    """Asks before draining; taking it back needs no question."""
    hypervisor = get_object_or_404(selectors.hypervisors(), pk=hypervisor_id)
    on = not hypervisor.is_draining
    question = Question(
        title=_("Drain %s?") % hypervisor if on else _("Let %s take new desktops again?") % hypervisor,
        verb=_("Drain it") if on else _("End the drain"),
        back=_address(hypervisor_id),
        sentences=[_("No new desktops are built there; those it has stay in use until they are released.")]
        if on
        else [],
        is_harmless=True,
    )

    def do() -> str:
        services.drain_hypervisor(actor=actor_of(request), hypervisor_id=hypervisor_id, on=on)
        return _("%s is being drained.") % hypervisor if on else _("%s takes new desktops again.") % hypervisor

    return ask_first(request, question, do, _address(hypervisor_id))


@needs(Right.OPERATE)
def drain_host(request: HttpRequest, host_id: UUID) -> HttpResponse:
    """As with a whole hypervisor, for one of its hosts."""
    host = get_object_or_404(selectors.hosts(), pk=host_id)
    on = not host.is_draining
    emptied = _("No new desktops are built there, and free ones are built anew elsewhere. Those in use stay.")
    question = Question(
        title=_("Drain host %s?") % host if on else _("Let host %s take new desktops again?") % host,
        verb=_("Drain it") if on else _("End the drain"),
        back=_address(host.hypervisor_id),
        sentences=[emptied] if on else [],
        is_harmless=True,
    )

    def do() -> str:
        services.drain_host(actor=actor_of(request), host_id=host_id, on=on)
        return _("%s is being drained.") % host if on else _("%s takes new desktops again.") % host

    return ask_first(request, question, do, _address(host.hypervisor_id))


@needs(Right.OPERATE)
def confirm_absence(request: HttpRequest, hypervisor_id: UUID) -> HttpResponse:
    hypervisor = get_object_or_404(selectors.hypervisors(), pk=hypervisor_id)
    question = Question(
        title=_("Are these machines really gone from %s?") % hypervisor,
        verb=_("Yes, %d machines are gone") % len(hypervisor.doubt),
        back=_address(hypervisor_id),
        sentences=[
            _("Desktops whose machines are gone are then counted as missing, and pools build others in their place."),
            _("If a storage or a cluster is only away for a while, keep it as it is: they are found again."),
        ],
    )

    def do() -> str:
        services.confirm_absence(actor=actor_of(request), hypervisor_id=hypervisor_id)
        return _("Confirmed. The next look acts on it.")

    return ask_first(request, question, do, _address(hypervisor_id))


@needs(Right.ADMINISTER)
def remove(request: HttpRequest, hypervisor_id: UUID) -> HttpResponse:
    hypervisor = get_object_or_404(selectors.hypervisors(), pk=hypervisor_id)
    question = Question(
        title=_("Remove %s from Deskyard?") % hypervisor,
        verb=_("Remove it"),
        back=_address(hypervisor_id),
        sentences=[_("Its machines are not touched. Its inventory and linked template copies are forgotten.")],
        typed_name=hypervisor.name,
    )

    def do() -> str:
        services.remove_hypervisor(actor=actor_of(request), hypervisor_id=hypervisor_id)
        return _("%s was removed.") % hypervisor

    return ask_first(request, question, do, reverse("console:hypervisors"), leaves=True)
