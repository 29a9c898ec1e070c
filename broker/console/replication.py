"""Replication policies: what they promise and whether it is kept, which machines, and the runs that keep it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from broker.console.access import administrator, administrators_only
from broker.console.answers import (
    Question,
    act,
    ask_first,
    asks_for_live_part,
    came_from,
    done,
    page_of,
    posted,
    saved,
    show,
    typed,
    typed_uuid,
    words_of,
)
from broker.console.replication_forms import PolicyForm, policy_initial
from broker.hypervisors import abilities
from broker.models import ReplicationChoice, ReplicationPolicy, ReplicationRun, Vault
from broker.selectors import audit
from broker.selectors import replication as selectors
from broker.services import replication as services
from broker.services.errors import Invalid, Refusal

RUNNING_SHOWN = 12
RUNS_SHOWN = 10
BREACHES_SHOWN = 20
NAMED = 5
KINDS = ReplicationChoice.Kind
TO_CHOOSE: dict[str, Callable[[UUID, list[str], str], QuerySet[Any]]] = {
    KINDS.MACHINE: selectors.machines_to_choose,
    KINDS.DESKTOP: selectors.desktops_to_choose,
    KINDS.POOL: selectors.pools_to_choose,
    KINDS.TEMPLATE: selectors.templates_to_choose,
}
MEANT = {
    KINDS.MACHINE: "A machine that is no desktop of a pool: a server, say.",
    KINDS.DESKTOP: "One desktop of a dedicated pool, as long as it lives.",
    KINDS.POOL: "All desktops of a dedicated pool that have a user, as they come and go.",
    KINDS.TEMPLATE: "The image of its newest version. Floating desktops need no copy: they are made of it.",
}


def _address(policy_id: UUID) -> str:
    return reverse("console:policy", args=[policy_id])


# --- policies ---------------------------------------------------------------------------------------------------------


@administrators_only
def overview(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    page = page_of(request, selectors.policies(now))
    context: dict[str, object] = {
        "page": page,
        "standings": [selectors.standing_of(policy, now) for policy in page],
        "alarms": selectors.alarms(now),
        "running": [(run, selectors.pace_of(run, now)) for run in selectors.running()[:RUNNING_SHOWN]],
        "unfinished": selectors.unfinished_count(),
        "has_vault": Vault.objects.exists(),
    }
    if not asks_for_live_part(request):
        context["events"] = selectors.events(now)
    return show(request, "console/replication/overview.html", context)


@administrators_only
def detail(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    now = timezone.now()
    policy = get_object_or_404(selectors.policies(now), pk=policy_id)
    page = page_of(request, selectors.sources(now).filter(policy=policy_id))
    runs = selectors.RunFilter(policy=policy_id).apply(selectors.runs())[:RUNS_SHOWN]
    context = {
        "policy": policy,
        "standing": selectors.standing_of(policy, now),
        "page": page,
        "sources": [selectors.source_standing(source, now) for source in page],
        "choices": selectors.choices_of(policy_id),
        "runs": [(run, selectors.pace_of(run, now)) for run in runs],
        "breaches": selectors.breaches_of(policy_id)[:BREACHES_SHOWN],
        "changes": audit.audit_of(policy)[:10],
    }
    return show(request, "console/replication/detail.html", context)


@administrators_only
def add(request: HttpRequest) -> HttpResponse:
    """What it promises first, then which machines."""
    form = PolicyForm(posted(request), is_new=True)
    if request.method == "POST":
        actor = administrator(request)
        made = saved(form, lambda _data: services.create_policy(actor=actor, **form.values()))
        if made:
            to = reverse("console:policy-choose", args=[made.pk])
            return done(request, _("%s stands. Now choose its machines.") % made, to)
    context = {"form": form, "has_vault": Vault.objects.exists()}
    return show(request, "console/replication/form.html", context, status=422 if form.errors else 200)


@administrators_only
def edit(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    policy = get_object_or_404(ReplicationPolicy, pk=policy_id)
    form = PolicyForm(posted(request), is_new=False, initial=policy_initial(policy))
    if request.method == "POST":
        actor = administrator(request)
        if saved(form, lambda _data: services.change_policy(actor=actor, policy_id=policy_id, **form.values())):
            return done(request, _("Saved."), _address(policy_id))
    context = {"form": form, "policy": policy, "has_vault": True}
    return show(request, "console/replication/form.html", context, status=422 if form.errors else 200)


@act
def run(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    made = services.run_now(actor=administrator(request), policy_id=policy_id)
    words = ngettext("%d machine is queued.", "%d machines are queued.", len(made)) % len(made)
    return done(request, words, came_from(request, _address(policy_id)))


@act
def enable(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    on = request.POST.get("on") == "1"
    policy = services.change_policy(actor=administrator(request), policy_id=policy_id, is_enabled=on)
    message = _("%s goes on.") if on else _("%s is paused: nothing runs by itself, and nothing is promised.")
    return done(request, message % policy, came_from(request, _address(policy_id)))


@administrators_only
def delete(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    policy = get_object_or_404(ReplicationPolicy, pk=policy_id)
    question = Question(
        title=_("Delete the policy %s?") % policy,
        verb=_("Delete it"),
        back=_address(policy_id),
        sentences=[
            _("Its machines are not replicated any more, and the record of its promise is lost."),
            _("Its recovery points stay in their vault until you delete them: no policy thins them out any more."),
        ],
        typed_name=policy.name,
    )

    def do() -> str:
        services.delete_policy(actor=administrator(request), policy_id=policy_id)
        return _("%s was deleted.") % policy

    return ask_first(request, question, do, reverse("console:replication"), leaves=True)


# --- which machines ---------------------------------------------------------------------------------------------------


@administrators_only
def choose(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    """A list that is searched by name, one for each kind of what can be chosen; the chosen rows are added at once."""
    policy = get_object_or_404(ReplicationPolicy.objects.select_related("vault"), pk=policy_id)
    kind = typed(request, "kind")
    kind = kind if kind in TO_CHOOSE else KINDS.MACHINE.value
    problem = ""
    if request.method == "POST":
        try:
            message = _add_chosen(request, policy, kind)
            return done(request, message, request.get_full_path())
        except Refusal as refusal:
            problem = words_of(refusal)
    registered = selectors.kinds_registered()
    readable = [one for one in registered if abilities.can_replicate(one)]
    text = typed(request, "q")
    context = {
        "policy": policy,
        "kind": kind,
        "kinds": KINDS.choices,
        "meaning": MEANT[KINDS(kind)],
        "page": page_of(request, TO_CHOOSE[kind](policy_id, readable, text)),
        "text": text,
        "problem": problem,
        "chosen_count": policy.choices.count(),
        "left_out": [one.name for one in selectors.hypervisors_of(set(registered) - set(readable))[:NAMED]],
        "has_readable": bool(readable),
    }
    return show(request, "console/replication/choose.html", context, status=422 if problem else 200)


def _add_chosen(request: HttpRequest, policy: ReplicationPolicy, kind: str) -> str:
    ids = []
    for text in request.POST.getlist("choice"):
        try:
            ids.append(UUID(text))
        except ValueError:
            raise Invalid(_("Nothing was chosen."), {"choice": _("There is no such thing.")}) from None
    if not ids:
        raise Invalid(_("Choose at least one first."))
    # Names may hold spaces.
    disks = [name.strip() for name in request.POST.get("disks", "").split(",") if name.strip()]
    wishes = [services.ChoiceWish(kind=kind, disks=disks, **{f"{kind}_id": pk}) for pk in ids]
    services.add_choices(actor=administrator(request), policy_id=policy.pk, wishes=wishes)
    return ngettext("%(n)d was added to %(policy)s.", "%(n)d were added to %(policy)s.", len(ids)) % {
        "n": len(ids), "policy": policy,
    }  # fmt: skip


@administrators_only
def remove_choice(request: HttpRequest, choice_id: UUID) -> HttpResponse:
    choice = get_object_or_404(ReplicationChoice.objects.select_related("policy"), pk=choice_id)
    name = selectors.name_of(selectors.choices_of(choice.policy_id).get(pk=choice_id))
    question = Question(
        title=_("Take %(name)s out of %(policy)s?") % {"name": name, "policy": choice.policy},
        verb=_("Take it out"),
        back=_address(choice.policy_id),
        sentences=[_("It is not replicated by this policy any more. Its recovery points stay until you delete them.")],
    )

    def do() -> str:
        services.remove_choice(actor=administrator(request), choice_id=choice_id)
        return _("%s was taken out.") % name

    return ask_first(request, question, do, _address(choice.policy_id))


# --- runs -------------------------------------------------------------------------------------------------------------


@administrators_only
def runs(request: HttpRequest) -> HttpResponse:
    state, kind = typed(request, "state"), typed(request, "kind")
    wanted = selectors.RunFilter(
        state=state if state in {*ReplicationRun.State.values, "unfinished"} else "",
        kind=kind if kind in ReplicationRun.Kind.values else "",
        policy=typed_uuid(request, "policy"),
        source=typed_uuid(request, "source"),
        text=typed(request, "q"),
    )
    now = timezone.now()
    page = page_of(request, wanted.apply(selectors.runs()))
    context = {
        "page": page,
        "rows": [(run, selectors.pace_of(run, now)) for run in page],
        "wanted": wanted,
        "states": [("unfinished", _("Not finished")), *ReplicationRun.State.choices],
        "kinds": ReplicationRun.Kind.choices,
        "policies": ReplicationPolicy.objects.only("name"),
    }
    return show(request, "console/replication/runs.html", context)


@administrators_only
def run_detail(request: HttpRequest, run_id: UUID) -> HttpResponse:
    run = get_object_or_404(selectors.runs(), pk=run_id)
    pace = selectors.pace_of(run, timezone.now())
    context = {
        "run": run,
        "pace": pace,
        "steps": _steps(run),
        "can_cancel": run.state in selectors.UNFINISHED and not run.is_to_end,
    }
    return show(request, "console/replication/run.html", context)


def _steps(run: ReplicationRun) -> list[tuple[str, str]]:
    """Queued, running, done: which are behind, which is now."""
    states = ReplicationRun.State
    if run.state in (states.FAILED, states.CANCELLED):
        reached = [_("Queued"), *([_("Running")] if run.started_at else [])]
        return [*((words, "done") for words in reached), (run.get_state_display(), "failed")]
    order = [states.QUEUED, states.RUNNING, states.DONE]
    now = order.index(states(run.state))
    is_done = run.state == states.DONE
    return [
        (str(state.label), "done" if index < now or is_done else "now" if index == now else "later")
        for index, state in enumerate(order)
    ]


@act
def cancel_run(request: HttpRequest, run_id: UUID) -> HttpResponse:
    run = services.cancel_run(actor=administrator(request), run_id=run_id)
    words = (
        _("Cancelled.")
        if run.state == ReplicationRun.State.CANCELLED
        else _("It ends as soon as its mover hears of it.")
    )
    return done(request, words, came_from(request, reverse("console:run", args=[run_id])))
