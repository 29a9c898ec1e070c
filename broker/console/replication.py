"""Replication policies: what they promise and whether it is kept, which machines, and the runs that keep it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.paginator import Page
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from broker.console.access import Right, actor_of, needs
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
    word,
)
from broker.console.lists import Column, Listing
from broker.console.replication_forms import PolicyForm, WatchForm, policy_initial
from broker.hypervisors import abilities
from broker.models import ReplicationChoice, ReplicationPolicy, ReplicationRun, Storage, Vault
from broker.selectors import audit
from broker.selectors import replication as selectors
from broker.selectors.hypervisors import tags_of
from broker.services import replication, replication_policies, replication_runs, standbys, tags
from broker.services.errors import Invalid, Refusal

RUNS = Listing(
    "runs",
    Column("machine", gettext_lazy("Machine"), lambda row: row.subject, ("subject",)),
    Column("what", gettext_lazy("What"), lambda row: row.kind, ("kind",)),
    Column("state", gettext_lazy("State"), lambda row: row.state, ("state",)),
    Column("error", gettext_lazy("Error"), lambda row: row.error),
    Column("read", gettext_lazy("Read"), lambda row: row.read_bytes, ("read_bytes",), begins_down=True),
    Column("new", gettext_lazy("New in the vault"), lambda row: row.new_bytes, ("new_bytes",), begins_down=True),
    Column("when", gettext_lazy("When"), lambda row: row.created_at, ("created_at",), begins_down=True),
    Column("finished", gettext_lazy("Finished"), lambda row: row.finished_at),
    Column("took", gettext_lazy("Took")),
    Column("id", gettext_lazy("Id"), lambda row: row.pk),
)
RUNNING_SHOWN = 12
RUNS_SHOWN = 10
BREACHES_SHOWN = 20
NAMED = 5
KINDS = ReplicationChoice.Kind
TO_CHOOSE: dict[str, Callable[[UUID, list[str], str], Any]] = {
    KINDS.MACHINE: selectors.machines_to_choose,
    KINDS.DESKTOP: selectors.desktops_to_choose,
    KINDS.POOL: selectors.pools_to_choose,
    KINDS.TEMPLATE: selectors.templates_to_choose,
    KINDS.TAG: lambda policy_id, _readable, text: selectors.tags_to_choose(policy_id, text),
}
MEANT = {
    KINDS.MACHINE: "A machine that is no desktop of a pool: a server, say.",
    KINDS.DESKTOP: "One desktop of a dedicated pool, as long as it lives.",
    KINDS.POOL: "All desktops of a dedicated pool that have a user, as they come and go.",
    KINDS.TEMPLATE: "The image of its newest version. Floating desktops need no copy: they are made of it.",
    KINDS.TAG: "All machines that bear a tag, now and later. Put tags on machines under Machine.",
}


def _address(policy_id: UUID) -> str:
    return reverse("console:policy", args=[policy_id])


# --- policies ---------------------------------------------------------------------------------------------------------


@needs(Right.REVIEW)
def overview(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    page = page_of(request, selectors.policies(now))
    has_vault = Vault.objects.exists()
    context: dict[str, object] = {
        "page": page,
        "standings": [selectors.standing_of(policy, now) for policy in page],
        "alarms": selectors.alarms(now),
        "running": [(run, selectors.pace_of(run, now)) for run in selectors.running()[:RUNNING_SHOWN]],
        "unfinished": selectors.unfinished_count(),
        "has_vault": has_vault,
        "can_watch": not has_vault and bool(_mirroring()),
    }
    if not asks_for_live_part(request):
        context["events"] = selectors.events(now)
    return show(request, "console/replication/overview.html", context)


@needs(Right.REVIEW)
def detail(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    now = timezone.now()
    policy = get_object_or_404(selectors.policies(now), pk=policy_id)
    page = page_of(request, selectors.sources_with_desktops(now).filter(policy=policy_id))
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
        "target": selectors.target_of(policy),
        "driven": [one for one in _mirroring() if abilities.can_drive_mirrors(one)] if policy.vault_id is None else [],
    }
    return show(request, "console/replication/detail.html", context)


def _targets() -> QuerySet[Storage]:
    return selectors.targets([one for one in selectors.kinds_registered() if abilities.can_land(one)])


@needs(Right.OPERATE)
def add(request: HttpRequest) -> HttpResponse:
    """What it promises first, then which machines."""
    form = PolicyForm(posted(request), is_new=True, targets=_targets())
    if request.method == "POST":
        actor = actor_of(request)
        made = saved(form, lambda _data: replication_policies.create_policy(actor=actor, **form.values()))
        if made:
            to = reverse("console:policy-choose", args=[made.pk])
            return done(request, _("%s stands. Now choose its machines.") % made, to)
    context = {"form": form, "has_vault": Vault.objects.exists(), "can_watch": bool(_mirroring())}
    return show(request, "console/replication/form.html", context, status=422 if form.errors else 200)


@needs(Right.OPERATE)
def watch(request: HttpRequest) -> HttpResponse:
    """As `add`, where platforms replicate by themselves."""
    form = WatchForm(posted(request))
    if request.method == "POST":
        actor = actor_of(request)
        made = saved(form, lambda _data: replication_policies.create_policy(actor=actor, **form.values_of_new()))
        if made:
            to = reverse("console:policy-choose", args=[made.pk])
            return done(request, _("%s stands. Now choose its machines.") % made, to)
    return _watch_page(request, form)


def _watch_page(request: HttpRequest, form: WatchForm, policy: ReplicationPolicy | None = None) -> HttpResponse:
    kinds = _mirroring()
    names = [one.name for one in selectors.hypervisors_of(kinds)[:NAMED]]
    context = {"form": form, "policy": policy, "can_watch": bool(kinds), "names": ", ".join(names)}
    return show(request, "console/replication/watch.html", context, status=422 if form.errors else 200)


def _mirroring() -> list[str]:
    """Registered kinds that tell what they replicate by themselves."""
    return [one for one in selectors.kinds_registered() if abilities.can_mirror(one)]


@needs(Right.OPERATE)
def edit(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    policy = get_object_or_404(ReplicationPolicy, pk=policy_id, is_own=False)
    if selectors.is_watched(policy):
        return _edit_watched(request, policy)
    initial = policy_initial(policy, selectors.target_of(policy))
    form = PolicyForm(posted(request), is_new=False, targets=_targets(), initial=initial)
    if request.method == "POST":
        actor = actor_of(request)
        if saved(
            form, lambda _data: replication_policies.change_policy(actor=actor, policy_id=policy_id, **form.values())
        ):
            return done(request, _("Saved."), _address(policy_id))
    context = {"form": form, "policy": policy, "has_vault": True}
    return show(request, "console/replication/form.html", context, status=422 if form.errors else 200)


def _edit_watched(request: HttpRequest, policy: ReplicationPolicy) -> HttpResponse:
    form = WatchForm(posted(request), initial={"name": policy.name, "rpo": policy.rpo_s})
    if request.method == "POST":
        actor = actor_of(request)
        if saved(
            form, lambda _data: replication_policies.change_policy(actor=actor, policy_id=policy.pk, **form.values())
        ):
            return done(request, _("Saved."), _address(policy.pk))
    return _watch_page(request, form, policy)


@needs(Right.OPERATE)
@act
def run(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    made = replication_runs.run_now(actor=actor_of(request), policy_id=policy_id)
    words = ngettext("%d machine is queued.", "%d machines are queued.", len(made)) % len(made)
    return done(request, words, came_from(request, _address(policy_id)))


@needs(Right.OPERATE)
@act
def enable(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    on = request.POST.get("on") == "1"
    policy = replication_policies.change_policy(actor=actor_of(request), policy_id=policy_id, is_enabled=on)
    message = _("%s goes on.") if on else _("%s is paused: nothing runs by itself, and nothing is promised.")
    return done(request, message % policy, came_from(request, _address(policy_id)))


@needs(Right.OPERATE)
def delete(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    policy = get_object_or_404(ReplicationPolicy, pk=policy_id, is_own=False)
    question = Question(
        title=_("Delete the policy %s?") % policy,
        verb=_("Delete it"),
        back=_address(policy_id),
        sentences=_lost_with(policy),
        typed_name=policy.name,
    )

    def do() -> str:
        replication_policies.delete_policy(actor=actor_of(request), policy_id=policy_id)
        return _("%s was deleted.") % policy

    return ask_first(request, question, do, reverse("console:replication"), leaves=True)


def _lost_with(policy: ReplicationPolicy) -> list[str]:
    if selectors.is_watched(policy):
        return [_("The record of its promise is lost. What the platforms replicate, they go on to replicate.")]
    return [
        _("Its machines are not replicated any more, and the record of its promise is lost."),
        _("Its recovery points stay in their vault until you delete them: no policy thins them out any more."),
    ]


# --- which machines ---------------------------------------------------------------------------------------------------


@needs(Right.OPERATE)
def choose(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    """A list that is searched by name, one for each kind of what can be chosen; the chosen rows are added at once."""
    policy = get_object_or_404(ReplicationPolicy.objects.select_related("vault"), pk=policy_id, is_own=False)
    kind = typed(request, "kind")
    kind = kind if kind in TO_CHOOSE else KINDS.MACHINE.value
    problem: Refusal | None = None
    if request.method == "POST":
        try:
            message = _add_chosen(request, policy, kind)
            return done(request, message, request.get_full_path())
        except Refusal as refusal:
            problem = refusal
    registered = selectors.kinds_registered()
    readable = [one for one in registered if replication.can_serve(policy, one)]
    text = typed(request, "q")
    page = page_of(request, TO_CHOOSE[kind](policy_id, readable, text))
    context = {
        "policy": policy,
        "kind": kind,
        "is_watched": selectors.is_watched(policy),
        "kinds": KINDS.choices,
        "meaning": MEANT[KINDS(kind)],
        "page": page,
        "rows": _with_tags(page) if kind == KINDS.MACHINE else [(row, []) for row in page],
        "text": text,
        "problem": problem.message if problem else "",
        "faults": _beside(problem, kind),
        "chosen": set(request.POST.getlist("choice")),
        "tags": selectors.tags_to_choose(policy_id) if kind == KINDS.MACHINE else [],
        "chosen_count": policy.choices.count(),
        "left_out": [one.name for one in selectors.hypervisors_of(set(registered) - set(readable))[:NAMED]],
        "has_readable": bool(readable),
    }
    return show(request, "console/replication/choose.html", context, status=422 if problem else 200)


def _beside(refusal: Refusal | None, kind: str) -> dict[str, list[str]]:
    """What is wrong, by the page's fields; what is about none of these is about what was chosen."""
    typed_ones = {"disks", "tag"} if kind == KINDS.MACHINE else {"disks"}
    found: dict[str, list[str]] = {}
    for name, words in refusal.fields.items() if isinstance(refusal, Invalid) else ():
        found.setdefault(name if name in typed_ones else "choice", []).append(words)
    return found


def _with_tags(page: Any) -> list[tuple[Any, list[str]]]:
    tagged = tags_of((row.hypervisor_id, row.platform_id) for row in page)
    return [(row, tagged.get((row.hypervisor_id, row.platform_id), [])) for row in page]


def _add_chosen(request: HttpRequest, policy: ReplicationPolicy, kind: str) -> str:
    chosen = request.POST.getlist("choice")
    if not chosen:
        raise Invalid(_("Choose at least one first."))
    if "put_tag" in request.POST or ("enter" in request.POST and word(request.POST, "tag")):
        return _put_tag(request, _ids(chosen))
    if kind == KINDS.MACHINE:
        # Rows that were chosen already can be marked too, to be tagged.
        chosen = [str(pk) for pk in selectors.not_taken(policy.pk, _ids(chosen))] or chosen
    # Names may hold spaces.
    disks = [name.strip() for name in request.POST.get("disks", "").split(",") if name.strip()]
    if kind == KINDS.TAG:
        wishes = [replication_policies.ChoiceWish(kind=kind, disks=disks, tag=tag) for tag in chosen]
    else:
        named: list[dict[str, Any]] = [{f"{kind}_id": pk} for pk in _ids(chosen)]
        wishes = [replication_policies.ChoiceWish(kind=kind, disks=disks, **one) for one in named]
    replication_policies.add_choices(actor=actor_of(request), policy_id=policy.pk, wishes=wishes)
    return ngettext("%(n)d was added to %(policy)s.", "%(n)d were added to %(policy)s.", len(wishes)) % {
        "n": len(wishes), "policy": policy,
    }  # fmt: skip


def _ids(chosen: list[str]) -> list[UUID]:
    try:
        return [UUID(text) for text in chosen]
    except ValueError:
        raise Invalid(_("Nothing was chosen."), {"choice": _("There is no such thing.")}) from None


def _put_tag(request: HttpRequest, machines: list[UUID]) -> str:
    """On the machines, or off them."""
    actor, tag = actor_of(request), request.POST.get("tag", "")
    if request.POST.get("put_tag") == "off":
        tags.take(actor=actor, machine_ids=machines, tag=tag)
        return _("The tag %s was taken off.") % tag
    added = tags.put(actor=actor, machine_ids=machines, tag=tag)
    return ngettext("%(n)d machine was tagged %(tag)s.", "%(n)d machines were tagged %(tag)s.", added) % {
        "n": added, "tag": tag,
    }  # fmt: skip


@needs(Right.OPERATE)
def remove_choice(request: HttpRequest, choice_id: UUID) -> HttpResponse:
    choice = get_object_or_404(ReplicationChoice.objects.select_related("policy"), pk=choice_id)
    name = selectors.name_of(selectors.choices_of(choice.policy_id).get(pk=choice_id))
    question = Question(
        title=_("Take %(name)s out of %(policy)s?") % {"name": name, "policy": choice.policy},
        verb=_("Take it out"),
        back=_address(choice.policy_id),
        sentences=[
            _("This policy does not watch it any more. What its platform replicates stays as it is.")
            if selectors.is_watched(choice.policy)
            else _("It is not replicated by this policy any more. Its recovery points stay until you delete them.")
        ],
    )

    def do() -> str:
        replication_policies.remove_choice(actor=actor_of(request), choice_id=choice_id)
        return _("%s was taken out.") % name

    return ask_first(request, question, do, _address(choice.policy_id))


@needs(Right.OPERATE)
@act
def standby_anew(request: HttpRequest, standby_id: UUID) -> HttpResponse:
    standbys.make_anew(actor=actor_of(request), standby_id=standby_id)
    return done(request, _("A new one is made."), came_from(request, reverse("console:replication")))


# --- runs -------------------------------------------------------------------------------------------------------------


@needs(Right.REVIEW)
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
    context = {
        "wanted": wanted,
        "states": [("unfinished", _("Not finished")), *ReplicationRun.State.choices],
        "kinds": ReplicationRun.Kind.choices,
        "policies": ReplicationPolicy.objects.filter(is_own=False).only("name"),
    }

    def paces(page: Page[ReplicationRun]) -> dict[str, object]:
        return {"rows": [(run, selectors.pace_of(run, now)) for run in page]}

    return RUNS.answer(request, "console/replication/runs.html", wanted.apply(selectors.runs()), context, paces)


@needs(Right.REVIEW)
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


@needs(Right.OPERATE)
@act
def cancel_run(request: HttpRequest, run_id: UUID) -> HttpResponse:
    run = replication_runs.cancel_run(actor=actor_of(request), run_id=run_id)
    words = (
        _("Cancelled.")
        if run.state == ReplicationRun.State.CANCELLED
        else _("It ends as soon as its mover hears of it.")
    )
    return done(request, words, came_from(request, reverse("console:run", args=[run_id])))
