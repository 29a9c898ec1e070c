"""Logical networks: what they are called, whether they shall be kept apart, and what they are on each hypervisor."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, ask_first, done, page_of, posted, saved, show
from broker.models import LogicalNetwork
from broker.selectors import networks as selectors
from broker.services import networks as services


class NetworkForm(forms.Form):
    """One select for each hypervisor that listed networks."""

    name = forms.CharField(label="Name", max_length=100)
    description = forms.CharField(
        label="Description", required=False, widget=forms.Textarea(attrs={"rows": 2}), help_text="What it is for."
    )
    wants_isolation = forms.BooleanField(
        label="It shall be kept apart", required=False,
        help_text="Nothing on it shall reach anything beyond. Deskyard says where a platform does not see to that.",
    )  # fmt: skip

    def __init__(self, offers: list[selectors.Offer], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offers = offers
        for offer in offers:
            choices = [("", _("None")), *((str(network.pk), _words(network)) for network in offer.networks)]
            self.fields[_name(offer)] = forms.ChoiceField(label=offer.hypervisor.name, required=False, choices=choices)

    def counterpart_fields(self) -> list[forms.BoundField]:
        return [self[_name(offer)] for offer in self.offers]

    def values(self) -> dict[str, Any]:
        """As the services take them."""
        data = self.cleaned_data
        chosen = {offer.hypervisor.pk: data[_name(offer)] for offer in self.offers}
        return {
            "name": data["name"],
            "description": data["description"],
            "wants_isolation": data["wants_isolation"],
            "counterparts": {pk: UUID(network) if network else None for pk, network in chosen.items()},
        }


def _name(offer: selectors.Offer) -> str:
    return f"on_{offer.hypervisor.pk}"


def _words(network: Any) -> str:
    facts = [network.kind, _("kept apart") if network.is_isolated and network.kind != "isolated" else ""]
    said = ", ".join(fact for fact in facts if fact)
    return f"{network.name} ({said})" if said else network.name


def _initial(network: LogicalNetwork) -> dict[str, Any]:
    return {
        "name": network.name,
        "description": network.description,
        "wants_isolation": network.wants_isolation,
        **{f"on_{mapping.hypervisor_id}": str(mapping.network_id) for mapping in network.mappings.all()},
    }


@needs(Right.REVIEW)
def list_(request: HttpRequest) -> HttpResponse:
    page = page_of(request, selectors.networks_with_pools())
    return show(request, "console/networks/list.html", {"page": page})


@needs(Right.OPERATE)
def add(request: HttpRequest) -> HttpResponse:
    form = NetworkForm(selectors.offers(), posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        network = saved(form, lambda _data: services.create_network(actor=actor, **form.values()))
        if network:
            return done(request, _("%s was created.") % network, reverse("console:networks"))
    return show(request, "console/networks/form.html", {"form": form}, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def edit(request: HttpRequest, network_id: UUID) -> HttpResponse:
    network = get_object_or_404(selectors.networks(), pk=network_id)
    form = NetworkForm(selectors.offers(), posted(request), initial=_initial(network))
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda _data: services.change_network(actor=actor, network_id=network_id, **form.values())):
            return done(request, _("Saved."), reverse("console:networks"))
    context = {"form": form, "network": network}
    return show(request, "console/networks/form.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def delete(request: HttpRequest, network_id: UUID) -> HttpResponse:
    network = get_object_or_404(LogicalNetwork, pk=network_id)
    question = Question(
        title=_("Delete the network %s?") % network,
        verb=_("Delete it"),
        back=reverse("console:networks"),
        sentences=[_("Its counterparts on the hypervisors stay as they are. No pool may be on it.")],
    )

    def do() -> str:
        services.delete_network(actor=actor_of(request), network_id=network_id)
        return _("%s was deleted.") % network

    return ask_first(request, question, do, reverse("console:networks"))
