"""Vaults: where recovery points lie. A key is shown when it is made and never again."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, ask_first, done, page_of, posted, saved, show
from broker.console.replication_forms import VaultForm, vault_initial
from broker.models import Vault
from broker.selectors import replication as selectors
from broker.services import vaults as services


@needs(Right.REVIEW)
def list_(request: HttpRequest) -> HttpResponse:
    return show(request, "console/vaults/list.html", {"page": page_of(request, selectors.vaults())})


@needs(Right.ADMINISTER)
@never_cache
def add(request: HttpRequest) -> HttpResponse:
    """With `make_key` nothing is saved: the form comes back as it was typed, with a new key in it."""
    if "make_key" in request.POST:
        return _with_key(request)
    form = VaultForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        made = saved(
            form,
            lambda data: services.create_vault(
                actor=actor,
                name=data["name"],
                kind=data["kind"],
                location=form.place(),
                secret_key=data["secret_key"],
                key=data["key"],
            ),
        )
        if made:
            return done(request, _("%s can be used.") % made, reverse("console:vaults"))
    # A new key stays in sight until it is used: it was shown nowhere else.
    context = {"form": form, "key": request.POST.get("key", "").strip(), "is_new_key": "new_key" in request.POST}
    return show(request, "console/vaults/form.html", context, status=422 if form.errors else 200)


def _with_key(request: HttpRequest) -> HttpResponse:
    key = services.new_key()
    typed = {name: value for name, value in request.POST.items() if name in VaultForm.base_fields}
    form = VaultForm(initial={**typed, "key": key, "is_kept": False})
    return show(request, "console/vaults/form.html", {"form": form, "key": key, "is_new_key": True})


@needs(Right.ADMINISTER)
def edit(request: HttpRequest, vault_id: UUID) -> HttpResponse:
    vault = get_object_or_404(Vault.objects.defer("secrets"), pk=vault_id)
    form = VaultForm(posted(request), vault=vault, initial=vault_initial(vault))
    if request.method == "POST":
        actor = actor_of(request)
        changed = saved(
            form,
            lambda data: services.change_vault(
                actor=actor,
                vault_id=vault_id,
                name=data["name"],
                location=form.place(),
                secret_key=data["secret_key"],
                key=data["key"],
            ),
        )
        if changed:
            return done(request, _("Saved. The vault was opened and can be used."), reverse("console:vaults"))
    context = {"form": form, "vault": vault}
    return show(request, "console/vaults/form.html", context, status=422 if form.errors else 200)


@needs(Right.ADMINISTER)
def remove(request: HttpRequest, vault_id: UUID) -> HttpResponse:
    vault = get_object_or_404(selectors.vaults(), pk=vault_id)
    question = Question(
        title=_("Remove the vault %s from Deskyard?") % vault,
        verb=_("Remove it"),
        back=reverse("console:vaults"),
        sentences=[
            _("Its recovery points (%d) are forgotten here. What lies in it stays where it is.") % vault.point_count,  # type: ignore[attr-defined]
            _("Keep its key if it is encrypted: whoever registers it again needs it."),
        ],
        typed_name=vault.name,
    )

    def do() -> str:
        services.remove_vault(actor=actor_of(request), vault_id=vault_id)
        return _("%s was removed.") % vault

    return ask_first(request, question, do, reverse("console:vaults"))
