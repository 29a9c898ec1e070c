"""Pools: create with a review, watch them fill, say where they build and who may have their desktops."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any
from uuid import UUID

from django.contrib.auth.models import Group, User
from django.core.paginator import Page
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from broker.console.access import Right, actor_of, needs, staff_only
from broker.console.answers import Question, act, ask_first, came_from, done, posted, saved, show
from broker.console.lists import Column, Listing
from broker.console.pool_forms import MemberForm, NewPoolForm, Place, PoolForm, initial_of, member_initial
from broker.console.who import ask_who
from broker.domain import naming, placement, resources
from broker.domain.seating import hosts_for
from broker.models import Entitlement, Pool, PoolMember
from broker.selectors import audit, desktops, hypervisors, leases, pushes, room, schedules
from broker.selectors import pools as selectors
from broker.selectors import templates as template_selectors
from broker.services import entitlements
from broker.services import pools as services


def _hypervisors(pool: Pool) -> str:
    return ", ".join(member.hypervisor.name for member in pool.members.all())


LIST = Listing(
    "pools",
    Column("name", gettext_lazy("Pool"), lambda row: row.name, ("name",)),
    Column("kind", gettext_lazy("Kind"), lambda row: row.kind, ("kind", "name")),
    Column("enabled", gettext_lazy("Enabled"), lambda row: row.is_enabled),
    Column("held", gettext_lazy("Held"), lambda row: row.hold_reason),
    Column("minimum", gettext_lazy("Minimum"), lambda row: row.minimum),
    Column("spare", gettext_lazy("Ready / spare"), lambda row: row.spare, ("spare",), begins_down=True),
    Column("maximum", gettext_lazy("All / maximum"), lambda row: row.maximum, ("maximum",), begins_down=True),
    Column("priority", gettext_lazy("Priority"), lambda row: row.priority, ("priority",), begins_down=True),
    Column("hypervisors", gettext_lazy("Hypervisors"), _hypervisors),
    Column("id", gettext_lazy("Id"), lambda row: row.pk),
)
EXAMPLES = 3
PREVIEWED = 50
"""Placements worked out for the review page."""
DESKTOPS_SHOWN = 12
LEASES_SHOWN = 8


def _address(pool_id: UUID) -> str:
    return reverse("console:pool", args=[pool_id])


@staff_only
def list_(request: HttpRequest) -> HttpResponse:
    """How each stands is worked out and not in the database: a narrowed list is made of all pools."""
    is_short, now = request.GET.get("short") == "1", timezone.now()
    rows = selectors.pools_with_members()
    if is_short:
        found = selectors.standings(list(Pool.objects.all()), now)
        rows = rows.filter(pk__in=[one.pool.pk for one in found if one.is_lacking])

    def standings(page: Page[Pool]) -> dict[str, object]:
        return {"shown": selectors.explained(selectors.standings(list(page), now), now)}

    return LIST.answer(request, "console/pools/list.html", rows, {"is_short": is_short}, standings)


@needs(Right.OPERATE)
def add(request: HttpRequest) -> HttpResponse:
    """Three steps on one address: fill in, review, create. Going back keeps what was typed."""
    form = NewPoolForm(list(template_selectors.copies()), list(Group.objects.order_by("name")), posted(request))
    step = request.POST.get("step", "")
    if step == "review" and form.is_valid():
        return show(request, "console/pools/review.html", {"form": form, "typed": _typed(request), **_review(form)})
    if step == "create":
        actor = actor_of(request)
        pool = saved(form, lambda _data: services.create_pool(actor=actor, members=form.wishes(), **form.pool_values()))
        if pool:
            _entitle_all(actor, pool, form)
            return redirect("console:pool", pool.pk)
    status = 422 if step in ("review", "create") and form.errors else 200
    return show(request, "console/pools/add.html", {"form": form, "is_fresh": step == "edit"}, status=status)


def _typed(request: HttpRequest) -> list[tuple[str, str]]:
    """Everything typed so far, for the hidden fields of the review."""
    left_out = ("step", "csrfmiddlewaretoken")
    return [(key, value) for key, values in request.POST.lists() if key not in left_out for value in values]


def _review(form: NewPoolForm) -> dict[str, Any]:
    """Example names, and where the first desktops would be built, by the rules that will build them."""
    pool = Pool(**form.pool_values())
    members = [
        PoolMember(
            hypervisor=copy.hypervisor, copy=copy, weight=wish.weight, minimum=wish.minimum, maximum=wish.maximum
        )
        for copy, wish in zip(form.chosen_copies(), form.wishes(), strict=True)
    ]
    spare = hosts_for(pool.spare, pool.seats) if pool.is_shared else pool.spare
    first = min(max(pool.minimum, spare), pool.maximum)
    placements = room.preview(pool, members, min(first, PREVIEWED), timezone.now())
    places = Counter(placed.target.name for placed in placements if placed.target)
    return {
        "pool": pool,
        "members": members,
        "first": first,
        "examples": [name for _number, name in naming.names(pool.naming.strip(), (), 0, EXAMPLES)],
        "naming_warning": naming.warn(pool.naming.strip()),
        "places": places.most_common(),
        "previewed": sum(places.values()),
        "why_no_more": placement.explain_none(placements[-1]) if placements else "",
        "groups": [label for key, label in form.fields["groups"].choices if key in form.cleaned_data["groups"]],  # type: ignore[attr-defined]
        "users": form.cleaned_data["users"],
    }


def _entitle_all(actor: User, pool: Pool, form: NewPoolForm) -> None:
    for group_id in form.cleaned_data["groups"]:
        entitlements.entitle(actor=actor, pool_id=pool.pk, group_id=int(group_id))
    for user in form.cleaned_data["users"]:
        entitlements.entitle(actor=actor, pool_id=pool.pk, user_id=user.pk)


@staff_only
def detail(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(selectors.pools_with_members(), pk=pool_id)
    mine = desktops.labelled(desktops.desktops_with_owner()).filter(pool=pool)
    members, now = selectors.member_standings(pool), timezone.now()
    context = {
        "pool": pool,
        "standing": selectors.explained(selectors.standings([pool], now), now)[0],
        "members": members,
        "pushes": pushes.of_pool(pool),
        "notes": [note for member in members for note in member.notes],
        "share_words": resources.words(pool.share),
        "entitlements": selectors.entitlements()
        .filter(pool=pool, application=None)
        .order_by("group__name", "user__username"),
        "owners": selectors.owners_of(pool.pk),
        "leases": leases.ending(pool.pk, now)[:LEASES_SHOWN],
        "schedules": schedules.schedules_of(pool.pk),
        "desktops": desktops.DesktopFilter().apply(mine)[:DESKTOPS_SHOWN],
        "events": audit.events_of(pool),
        "changes": audit.audit_of(pool)[:10],
    }
    return show(request, "console/pools/detail.html", context)


@needs(Right.OPERATE)
def edit(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    form = PoolForm(posted(request), initial=initial_of(pool))
    if request.method == "POST":
        actor = actor_of(request)
        if saved(form, lambda data: services.change_pool(actor=actor, pool_id=pool_id, **data)):
            return done(request, _("Saved."), _address(pool_id))
    context = {"form": form, "pool": pool}
    return show(request, "console/pools/edit.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def enable(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    on = not pool.is_enabled
    question = Question(
        title=_("Enable %s?") % pool if on else _("Disable %s?") % pool,
        verb=_("Enable it") if on else _("Disable it"),
        back=_address(pool_id),
        sentences=[] if on else [_("Nothing new is built and nothing is given out. What is in use stays in use.")],
        note="" if on else _("What users are told in the portal: why, and until when"),
        note_length=services.CLOSED_LENGTH,
        is_harmless=True,
    )

    def do() -> str:
        words = request.POST.get("note", "")
        services.enable_pool(actor=actor_of(request), pool_id=pool_id, on=on, words=words)
        return _("%s is enabled.") % pool if on else _("%s is disabled.") % pool

    return ask_first(request, question, do, _address(pool_id))


@needs(Right.OPERATE)
@act
def resume(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = services.resume_pool(actor=actor_of(request), pool_id=pool_id)
    return done(request, _("%s goes on.") % pool, came_from(request, _address(pool_id)))


@needs(Right.OPERATE)
def delete(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    question = Question(
        title=_("Delete the pool %s?") % pool,
        verb=_("Delete it"),
        back=_address(pool_id),
        sentences=[_("Its members, entitlements and history go with it; the audit is kept. It must have no desktops.")],
        typed_name=pool.name,
    )

    def do() -> str:
        services.delete_pool(actor=actor_of(request), pool_id=pool_id)
        return _("%s was deleted.") % pool

    return ask_first(request, question, do, reverse("console:pools"), leaves=True)


@needs(Right.OPERATE)
def add_member(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    used = pool.members.values("hypervisor")
    copies = list(template_selectors.copies().exclude(hypervisor__in=used))
    form = MemberForm(copies, None, posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        member = saved(
            form,
            lambda data: services.add_member(
                actor=actor,
                pool_id=pool_id,
                copy_id=UUID(data["copy_id"]),
                weight=data["weight"],
                minimum=data["minimum"],
                maximum=data["maximum"],
            ),
        )
        if member:
            return done(request, _("%s builds there too.") % pool, _address(pool_id))
    context = {"form": form, "pool": pool, "has_copies": bool(copies)}
    return show(request, "console/pools/member.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def edit_member(request: HttpRequest, member_id: UUID) -> HttpResponse:
    member = get_object_or_404(PoolMember.objects.select_related("pool", "hypervisor", "copy"), pk=member_id)
    copies = list(template_selectors.copies().filter(hypervisor=member.hypervisor))
    place = Place(
        storages=list(hypervisors.storages_of(member.hypervisor_id)),
        hosts=list(hypervisors.hosts_of(member.hypervisor_id)),
        networks=list(hypervisors.networks_of(member.hypervisor_id)),
    )
    form = MemberForm(copies, place, posted(request), initial=member_initial(member))
    if request.method == "POST":
        actor = actor_of(request)
        changed = saved(
            form,
            lambda data: services.change_member(
                actor=actor, member_id=member_id, **{**data, "copy_id": UUID(data["copy_id"])}
            ),
        )
        if changed:
            return done(request, _("Saved."), _address(member.pool_id))
    context = {"form": form, "pool": member.pool, "member": member, "has_copies": True}
    return show(request, "console/pools/member.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def remove_member(request: HttpRequest, member_id: UUID) -> HttpResponse:
    member = get_object_or_404(PoolMember.objects.select_related("pool", "hypervisor"), pk=member_id)
    question = Question(
        title=_("Stop building on %s?") % member.hypervisor,
        verb=_("Remove the member"),
        back=_address(member.pool_id),
        sentences=[
            _("Nothing more is built there. Its free desktops there are deleted; those in use stay until released.")
        ],
    )

    def do() -> str:
        services.remove_member(actor=actor_of(request), member_id=member_id)
        return _("Removed.")

    return ask_first(request, question, do, _address(member.pool_id))


@needs(Right.OPERATE)
def entitle(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    pool = get_object_or_404(Pool, pk=pool_id)
    return ask_who(
        request,
        pool,
        partial(entitlements.entitle, actor=actor_of(request)),
        question=_("Who may have a desktop of %s?") % pool,
        step=_("Let people in"),
        verb=_("Let them in"),
        said=_("%(who)s may have desktops of %(pool)s."),
    )


@needs(Right.OPERATE)
def withdraw(request: HttpRequest, entitlement_id: UUID) -> HttpResponse:
    rows = Entitlement.objects.select_related("pool", "application", "user", "group")
    entitlement = get_object_or_404(rows, pk=entitlement_id)
    who, what = str(entitlement.user or entitlement.group), entitlement.application or entitlement.pool
    back = _address(entitlement.pool_id)
    if entitlement.application:
        back = reverse("console:application", args=[entitlement.application.pk])
    question = Question(
        title=_("Withdraw %(what)s from %(who)s?") % {"what": what, "who": who},
        verb=_("Withdraw it"),
        back=back,
        sentences=[_("Whoever has no other entitlement loses the place in the queue, and open screens close.")],
    )

    def do() -> str:
        entitlements.withdraw(actor=actor_of(request), entitlement_id=entitlement_id)
        return _("Withdrawn from %s.") % who

    return ask_first(request, question, do, back)
