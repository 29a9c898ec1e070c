"""Yes or no to requests that wait for somebody's word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from broker.domain.notices import Kind
from broker.models import Pool, Request
from broker.services import audit, brokering, notices, nudges, owners
from broker.services.errors import Clash, Missing, Refusal
from broker.services.intake import Intake
from broker.services.permissions import Right, has

WORDS_LENGTH = 500


@dataclass
class Decided:
    """Of many requests at once."""

    requests: list[Request] = field(default_factory=list)
    refused: list[tuple[UUID, str]] = field(default_factory=list)
    """Which were left as they are, and why."""


def decide(*, actor: User, request_id: UUID, yes: bool, words: str = "") -> Request:
    """Approve or decline a request that waits. Its user is told, with `words` if there are any.

    For the help desk and up, and for the pool's owners; nobody else may know of it: `Missing`. `Clash` if it does not
    wait any more (somebody else decided, or it was cancelled), and for who asks for themselves, unless they run pools.
    """
    intake = Intake()
    words = intake.text("words", words, length=WORDS_LENGTH)
    intake.refuse_faults("Nothing was decided.")
    request = _decidable(actor, request_id)
    now = timezone.now()
    state = Request.State.APPROVED if yes else Request.State.REFUSED
    with transaction.atomic():
        changed = Request.objects.filter(pk=request.pk, state=Request.State.WAITING).update(
            state=state,
            decided_by=actor,
            decided_at=now,
            decision=words,
            ended_at=None if yes else now,
            reason=brokering.NOBODY_LEFT if yes else f"Declined by {actor.get_username()}. {words}".strip(),
        )
        if not changed:
            raise Clash("This request does not wait for a decision any more. Look at it again.")
        audit.record(
            actor=actor,
            action="request.approve" if yes else "request.decline",
            subject=request,
            changes={"words": [None, words]} if words else {},
        )
        notices.tell(
            [request.user_id],
            Kind.REQUEST_APPROVED if yes else Kind.REQUEST_DECLINED,
            now=now,
            pool_id=request.pool_id,
            request_id=request.pk,
            facts={"pool": request.pool.name, "by": actor.get_username(), "words": words},
        )
        nudges.nudge(nudges.RECONCILE, request.pool_id)
        nudges.announce("requests", user=str(request.user_id))
    if yes:
        brokering.serve_queue(pool_id=request.pool_id)
    request.refresh_from_db()
    return request


def decide_many(*, actor: User, request_ids: Iterable[UUID], yes: bool, words: str = "") -> Decided:
    """Each for itself: what cannot be decided is left as it is and told."""
    decided = Decided()
    for request_id in dict.fromkeys(request_ids):
        try:
            decided.requests.append(decide(actor=actor, request_id=request_id, yes=yes, words=words))
        except (Clash, Missing) as refusal:
            decided.refused.append((request_id, refusal.message))
    return decided


def let_through(*, actor: User, pool: Pool) -> int:
    """The pool asks nobody any more: what waits is approved. Inside the change's transaction."""
    now, waiting = timezone.now(), Request.objects.filter(pool=pool, state=Request.State.WAITING)
    people = list(waiting.values_list("user_id", flat=True))
    facts = {"pool": pool.name, "by": actor.get_username()}
    notices.tell(people, Kind.REQUEST_APPROVED, now=now, pool_id=pool.pk, facts=facts)
    return waiting.update(state=Request.State.APPROVED, decided_by=actor, decided_at=now, reason=brokering.NOBODY_LEFT)


def _decidable(actor: User, request_id: UUID) -> Request:
    request = Request.objects.select_related("pool", "user").filter(pk=request_id).first()
    refusal: Refusal = Missing("There is no such request.")
    if request is None:
        raise refusal
    if has(actor, Right.OPERATE):
        return request
    if not (has(actor, Right.SERVE) or owners.owns(actor, request.pool_id)):
        raise refusal
    if request.user_id == actor.pk:
        raise Clash("Nobody decides on a request of their own. Ask another owner of the pool, or an administrator.")
    return request
