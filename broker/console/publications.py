"""Template versions that are published: brought to hypervisors of pools' members, as templates there."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from broker.console.access import Right, actor_of, needs
from broker.console.answers import Question, ask_first, done, posted, saved, show
from broker.console.publish_forms import Place, PublishForm
from broker.domain.publication import image_name
from broker.hypervisors import abilities
from broker.models import Hypervisor, Pool, PoolMember, TemplateVersion
from broker.selectors import hypervisors, replication
from broker.selectors import publications as selectors
from broker.services import publications as services


def _template_address(version: TemplateVersion) -> str:
    return reverse("console:template", args=[version.template_id])


@needs(Right.OPERATE)
def publish(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """Every hypervisor on which templates can be made is offered; those at which members lack it are chosen."""
    version = get_object_or_404(TemplateVersion.objects.select_related("template"), pk=version_id)
    kinds = replication.kinds_registered()
    sources = selectors.sources(version, [kind for kind in kinds if abilities.can_replicate(kind)])
    places = _places(version, [kind for kind in kinds if abilities.can_land(kind)])
    on = _("%(pool)s on %(there)s")
    behind = [on % {"pool": one.member.pool, "there": one.member.hypervisor} for one in selectors.behind(version)]
    name = image_name(version.template.name, version.number)
    form = PublishForm(places, sources, selectors.vaults_for(version), behind, name, posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        made = saved(
            form,
            lambda data: services.publish(
                actor=actor,
                version_id=version_id,
                vault_id=UUID(data["vault"]),
                targets=form.targets(),
                source_id=UUID(data["source"]),
                name=data["name"],
                gives_present=bool(data.get("gives_present")),
            ),
        )
        if made is not None:
            words = ngettext(
                "%(version)s goes to %(n)d place.", "%(version)s goes to %(n)d places.", len(made)
            ) % {"version": version, "n": len(made)}  # fmt: skip
            return done(request, words, _template_address(version))
    context = {"version": version, "template": version.template, "form": form, "sources": sources}
    return show(request, "console/templates/publish.html", context, status=422 if form.errors else 200)


def _places(version: TemplateVersion, kinds: Sequence[str]) -> list[Place]:
    """Those that members need first, each with its storages; five statements."""
    offered = {one.pk: one for one in replication.hypervisors_of(kinds)}
    storages = hypervisors.storages_by_hypervisor(offered)
    lacks = [lack for lack in selectors.lacks(version) if lack.hypervisor.pk in offered]
    found = [
        Place(
            f"{lack.hypervisor.pk}-{number}", lack.hypervisor, storages.get(lack.hypervisor.pk, ()), lack.storage,
            lack.pools,
        )
        for number, lack in enumerate(lacks)
    ]  # fmt: skip
    taken = {lack.hypervisor.pk for lack in lacks} | set(version.copies.values_list("hypervisor", flat=True))
    members = Prefetch("members", PoolMember.objects.select_related("copy__version"))
    pools = list(Pool.objects.prefetch_related(members))
    for one in offered.values():
        if one.pk not in taken:
            joinable = [pool for pool in pools if _may_join(pool, one, version)]
            found.append(Place(str(one.pk), one, storages.get(one.pk, ()), pools=joinable))
    return found


def _may_join(pool: Pool, hypervisor: Hypervisor, version: TemplateVersion) -> bool:
    """It builds from this template, or from nothing yet, and not there."""
    members = list(pool.members.all())
    is_kin = not members or any(member.copy.version.template_id == version.template_id for member in members)
    return is_kin and all(member.hypervisor_id != hypervisor.pk for member in members)


@needs(Right.REVIEW)
def detail(request: HttpRequest, publication_id: UUID) -> HttpResponse:
    row = get_object_or_404(selectors.publications(), pk=publication_id)
    context = {"publication": row, "progress": selectors.progress_of(row, timezone.now())}
    return show(request, "console/templates/publication.html", context)


@needs(Right.OPERATE)
def cancel(request: HttpRequest, publication_id: UUID) -> HttpResponse:
    row = get_object_or_404(selectors.publications(), pk=publication_id)
    address = reverse("console:publication", args=[publication_id])
    question = Question(
        title=_("Cancel publishing %(version)s to %(there)s?") % {"version": row.version, "there": row.hypervisor},
        verb=_("Cancel it"),
        back=address,
        sentences=[
            _("Nothing of it stays on %s, unless it stands there by the time that the mover hears of it.")
            % row.hypervisor
        ],
    )

    def do() -> str:
        services.cancel(actor=actor_of(request), publication_id=publication_id)
        return _("It is being cancelled.")

    return ask_first(request, question, do, address)
