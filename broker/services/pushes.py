"""Pushes: a pool's desktops go over to another version of their template.

People write rows; the reconciler calls `advance` and `turn_out` each time it looks at the pool, so whatever died in
between is simply done by the next look:

1. `advance`, under the pool's lock: begin what is due (members build from the version from then on), write down what
   failed, stop after so many in a row, tell users of the deadline, say that it is done.
2. The plan (`domain/planning`) recycles free desktops, a batch at a time. Desktops in use go over when they are
   recycled after their release, as always.
3. `turn_out`: after the deadline, desktops in use are reclaimed, a batch at a time, and only once no free one is left
   that is behind: whoever asks anew shall not get one of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from broker.domain import planning
from broker.domain import pushes as rules
from broker.domain.lifecycle import COMING, State
from broker.domain.notices import Kind
from broker.domain.pushes import Users
from broker.models import (
    Assignment,
    Desktop,
    Hypervisor,
    Pool,
    PoolMember,
    Push,
    PushPlace,
    PushTold,
    Request,
    TemplateCopy,
    TemplateVersion,
)
from broker.selectors import pushes as selectors
from broker.services import audit, brokering, notices, nudges, operations, pools
from broker.services.errors import Clash
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import locked

log = structlog.get_logger()

STATES = Push.State
REFUSED = "Nothing was pushed."
LONGEST = timedelta(days=366)
"""How far ahead a push may begin or end."""
WORDS_LENGTH = 500
FAILURES_KEPT = 100


# --- asked for by people ----------------------------------------------------------------------------------------------


def push(
    *,
    actor: User,
    pool_id: UUID,
    version_id: UUID,
    starts_at: datetime | None = None,
    users: str = Users.LEAVE,
    deadline_at: datetime | None = None,
    notice_min: int = 15,
    stops_after: int = rules.STOPS_AFTER,
    key: UUID | None = None,
) -> Push:
    """Let the pool's desktops go over to a version: now, or at `starts_at`. One that runs is taken the place of.

    `key`: the id it shall have; asked for again with the same, the one there is is returned. Raises `Missing`,
    `Forbidden`, `Invalid`; `Clash` if it does not lie where members build, or nothing would change.
    """
    require(actor, Right.OPERATE)
    now = timezone.now()
    with transaction.atomic():
        pool = locked(Pool.objects.all(), pool_id, "pool")
        if key is not None and (same := Push.objects.filter(pk=key, pool=pool).first()):
            return same
        version = TemplateVersion.objects.select_related("template").filter(pk=version_id).first()
        _check(pool, version, starts_at, users, deadline_at, notice_min, stops_after, now)
        assert version is not None  # noqa: S101 - checked just now
        if starts_at is None:
            _check_open(pool, version)
        elif Push.objects.filter(pool=pool, state=STATES.SCHEDULED).exists():
            raise Clash(f"A push to {pool} is scheduled already. Cancel that first.")
        row = Push(
            id=key or uuid4(), pool=pool, version=version, state=STATES.SCHEDULED, starts_at=starts_at or now,
            users=users, deadline_at=deadline_at, notice_min=notice_min, stops_after=stops_after, requested_by=actor,
            created_at=now,
        )  # fmt: skip
        if starts_at is None:
            _begin(row, now)
        else:
            row.save(force_insert=True)
        changes = {"version": [None, str(version)], "at": [None, row.starts_at.isoformat()], "users": [None, row.users]}
        audit.record(actor=actor, action="pool.push", subject=pool, changes=changes)
        _told(pool)
    return row


def cancel(*, actor: User, push_id: UUID) -> Push:
    """Nothing more goes over, and members build from what they built from before. Desktops that went over stay so.

    Raises `Missing`, `Forbidden`, `Clash` when it is over.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        row = _held(push_id)
        if row.state not in rules.OPEN:
            raise Clash("This push is over.")
        _give_up(row, STATES.CANCELLED, f"Cancelled by {actor.get_username()}.")
        audit.record(actor=actor, action="pool.cancel_push", subject=row.pool, changes={"version": str(row.version)})
    return row


def roll_back(*, actor: User, push_id: UUID, key: UUID | None = None) -> Push:
    """Push the version that the pool had before, at once and by the same way for desktops in use.

    Raises `Missing`, `Forbidden`; `Clash` if there was no one version before, or it does not lie there any more.
    """
    require(actor, Right.OPERATE)
    now = timezone.now()
    with transaction.atomic():
        row = _held(push_id)
        if row.before_id is None:
            raise Clash(f"There is no one version that {row.pool} had before. Push the one you want.")
        last = Push.objects.filter(pool=row.pool, started_at__isnull=False).order_by("-started_at").first()
        if last is not None and last.pk != row.pk and last.pk != key:
            raise Clash(f"{last.version} was pushed since. Push the version you want.")
        deadline_at = None
        if row.deadline_at is not None:
            deadline_at = max(row.deadline_at, now + timedelta(minutes=row.notice_min))
        return push(
            actor=actor, pool_id=row.pool_id, version_id=row.before_id, users=row.users, deadline_at=deadline_at,
            notice_min=row.notice_min, stops_after=row.stops_after, key=key,
        )  # fmt: skip


def _held(push_id: UUID) -> Push:
    """The push, with its pool's row locked: whoever changes a push holds that."""
    pool_id = Push.objects.filter(pk=push_id).values_list("pool", flat=True).first()
    if pool_id is not None:
        locked(Pool.objects.all(), pool_id, "pool")
    return locked(Push.objects.select_related("pool", "version__template"), push_id, "push")


def _check(
    pool: Pool,
    version: TemplateVersion | None,
    starts_at: datetime | None,
    users: str,
    deadline_at: datetime | None,
    notice_min: int,
    stops_after: int,
    now: datetime,
) -> None:
    """Raises `Invalid` for what the wizard would not take."""
    intake = Intake()
    members = selectors.concerned(pool, version) if version is not None else []
    if version is None:
        intake.faults["version_id"] = "There is no such version."
    elif not members:
        intake.faults["version_id"] = f"No member of {pool} builds from {version.template}."
    elif lacking := [member.hypervisor.name for member in members if member.is_enabled and not _copy(member, version)]:
        words = f"{version} does not lie on {', '.join(lacking)}, where {pool} builds. Publish it there first."
        intake.faults["version_id"] = words
    if starts_at is not None and not now - timedelta(minutes=1) <= starts_at <= now + LONGEST:
        intake.faults["starts_at"] = "A moment to come, within a year."
    intake.choice("users", users, Push.Users)
    intake.whole("notice_min", notice_min, highest=rules.NOTICE_LIMIT_MIN)
    intake.whole("stops_after", stops_after, lowest=1, highest=100)
    if users == Users.DEADLINE and deadline_at is None:
        intake.faults["deadline_at"] = "Say when."
    elif users == Users.LEAVE and deadline_at is not None:
        intake.faults["deadline_at"] = "There is no deadline where desktops go over when their users have left."
    elif deadline_at is not None and "notice_min" not in intake.faults:
        earliest = (starts_at or now) + timedelta(minutes=notice_min) - timedelta(minutes=1)
        if not earliest <= deadline_at <= now + LONGEST:
            intake.faults["deadline_at"] = f"At least {notice_min} minutes after it begins, and within a year."
    intake.refuse_faults(REFUSED)


def _check_open(pool: Pool, version: TemplateVersion) -> None:
    running = Push.objects.filter(pool=pool, state=STATES.RUNNING).first()
    if running is not None and running.version_id == version.pk:
        raise Clash(f"{pool} is going over to {version} already.")
    members = [member for member in selectors.concerned(pool, version) if member.is_enabled]
    has_it = all(member.copy.version_id == version.pk for member in members)
    if has_it and not selectors.behind(pool.pk, version).exists():
        raise Clash(f"All of {pool} is on {version} already.")


def _copy(member: PoolMember, version: TemplateVersion) -> TemplateCopy | None:
    if member.copy.version_id == version.pk:
        return member.copy
    copies = TemplateCopy.objects.filter(version=version, hypervisor=member.hypervisor_id)
    return selectors.copy_for(member, copies.order_by("created_at", "pk"))


# --- what it does to the pool, under its lock -------------------------------------------------------------------------


def _begin(row: Push, now: datetime) -> None:
    """Members build from the version from here on. One that runs has lost its place."""
    members = [(member, _copy(member, row.version)) for member in selectors.concerned(row.pool, row.version)]
    lacking = [member.hypervisor.name for member, copy in members if member.is_enabled and copy is None]
    if lacking or not members:
        _end(row, STATES.STOPPED, f"{row.version} does not lie on {', '.join(lacking) or 'any member'} by now.", now)
        return
    for running in Push.objects.filter(pool=row.pool, state=STATES.RUNNING).select_related("pool", "version__template"):
        _end(running, STATES.CANCELLED, f"{row.version} took its place.", now)
    had = {member.copy.version_id for member, copy in members if copy is not None}
    row.state, row.started_at = STATES.RUNNING, now
    row.before_id = had.pop() if len(had) == 1 else None
    if row.before_id == row.version_id:
        row.before_id = _was_behind(row)
    row.save()
    for member, copy in members:
        if copy is not None:
            PushPlace.objects.create(push=row, member=member, before=member.copy)
            pools.take_copy(member, copy)
    _say(row, "pool.push_began", f"Its desktops go over to {row.version}.")


def _was_behind(row: Push) -> UUID | None:
    """The one version that desktops hang from where members build from the pushed one already."""
    versions = set(selectors.behind(row.pool_id, row.version).values_list("copy__version", flat=True))
    return versions.pop() if len(versions) == 1 else None


def _end(row: Push, state: Push.State, reason: str, now: datetime) -> None:
    row.state, row.reason, row.finished_at = state, reason, now
    row.save()
    level = "error" if state == STATES.STOPPED else "info"
    _say(row, f"pool.push_{state.value}", reason or f"Its desktops are on {row.version}.", level)
    _told(row.pool)


def _give_up(row: Push, state: Push.State, reason: str) -> None:
    """End it, and give members back what they built from, unless somebody has given them something else since."""
    places = row.places.select_related("before", "member__pool", "member__hypervisor", "member__copy__version")
    for place in places.order_by("pk"):
        if place.before is not None and place.member.copy.version_id == row.version_id:
            pools.take_copy(place.member, place.before)
    _end(row, state, reason, timezone.now())


def _say(row: Push, kind: str, words: str, level: str = "info") -> None:
    operations.event(kind, words, level=level, pool_id=row.pool_id).save(force_insert=True)


def _told(pool: Pool) -> None:
    nudges.nudge(nudges.RECONCILE, pool.pk)
    nudges.announce("pools")


# --- carried out by the reconciler ------------------------------------------------------------------------------------


def has_open(pool_id: UUID, now: datetime) -> bool:
    """Whether anything is to be looked at: one statement."""
    return Push.objects.filter(pool=pool_id, state__in=rules.OPEN, starts_at__lte=now).exists()


def advance(pool: Pool, now: datetime) -> None:
    """Whatever is due of the pool's pushes. The caller holds the pool's row."""
    rows = Push.objects.select_related("pool", "version__template", "requested_by")
    due = rows.filter(pool=pool, state=STATES.SCHEDULED, starts_at__lte=now).first()
    if due is not None:
        _begin(due, now)
    running = rows.filter(pool=pool, state=STATES.RUNNING).first()
    if running is not None:
        _look(running, now)


def _look(row: Push, now: datetime) -> None:
    other = _other(row)
    if other is not None:
        _end(row, STATES.CANCELLED, f"{other.hypervisor} builds from {other.copy.version} by now.", now)
        return
    _note_outcomes(row)
    in_a_row = failures_in_a_row(row)
    if in_a_row >= row.stops_after:
        last = row.failures[-1]
        words = f"{in_a_row} desktops in a row failed on {row.version}, the last one {last['name']}: {last['words']}"
        _give_up(row, STATES.STOPPED, words)
        told = {"pool": row.pool.name, "version": str(row.version)}
        notices.tell(
            [row.requested_by_id] if row.requested_by_id else [], Kind.PUSH_STOPPED, now=now, pool_id=row.pool_id,
            facts=told,
        )  # fmt: skip
    elif selectors.tally(row.pool_id, row.version).is_over:
        _end(row, STATES.DONE, "", now)
    else:
        _tell_users(row, now)


def _other(row: Push) -> PoolMember | None:
    """A member that somebody has given another version since."""
    places = row.places.filter(member__is_enabled=True).exclude(member__copy__version=row.version_id)
    place = places.select_related("member__hypervisor", "member__copy__version__template").first()
    return place.member if place is not None else None


def _note_outcomes(row: Push) -> None:
    """Each failure on the version once, and when one last became ready: what is counted must outlast the desktops."""
    since = row.started_at or row.created_at
    mine = Desktop.objects.filter(pool=row.pool_id, copy__version=row.version_id)
    known = {(one["desktop"], one["at"]) for one in row.failures}
    failed = mine.filter(state=State.FAILED, state_since__gte=since).order_by("state_since", "pk")
    found = [(str(one.pk), one.state_since.isoformat(), one) for one in failed]
    new = [
        {"desktop": pk, "name": one.name, "at": at, "words": one.failure[:WORDS_LENGTH]}
        for pk, at, one in found
        if (pk, at) not in known
    ]
    good = mine.filter(state__in=[State.READY, State.ASSIGNED], ready_at__gte=since)
    good_at = max(filter(None, [row.good_at, good.aggregate(last=Max("ready_at"))["last"]]), default=None)
    if new or good_at != row.good_at:
        row.failures = [*row.failures, *new][-FAILURES_KEPT:]
        row.good_at = good_at
        row.save(update_fields=["failures", "good_at"])
        nudges.announce("pools")


def failures_in_a_row(row: Push) -> int:
    return rules.failed_in_a_row([one.at for one in selectors.failures_of(row)], row.good_at)


def _tell_users(row: Push, now: datetime) -> None:
    """Tell those on desktops that are behind when they are turned out, each once. In the caller's transaction."""
    if row.deadline_at is None or now < rules.tells_at(row.deadline_at, row.notice_min):
        return
    for assignment in _users_behind(row).exclude(pk__in=row.told.values("assignment")):
        PushTold.objects.create(push=row, assignment=assignment, at=now)
        at = rules.turns_out_at(row.deadline_at, row.notice_min, now)
        facts = {"pool": row.pool.name, "desktop": assignment.desktop.name, "at": notices.moment(at)}
        notices.tell(
            [assignment.user_id], Kind.SESSION_PUSH, now=now, pool_id=row.pool_id, desktop_id=assignment.desktop_id,
            facts=facts,
        )  # fmt: skip


def _users_behind(row: Push) -> QuerySet[Assignment]:
    there = selectors.behind(row.pool_id, row.version).filter(state=State.ASSIGNED, is_in_maintenance=False)
    open_ones = Assignment.objects.filter(until=None, desktop__in=there)
    return open_ones.select_related("desktop", "user").order_by("desktop")


def turn_out(pool_id: UUID, now: datetime) -> None:
    """After the deadline: reclaim desktops in use that are behind, a batch at a time, each in a transaction of its
    own. The caller holds nothing."""
    rows = Push.objects.select_related("version__template")
    row = rows.filter(pool=pool_id, state=STATES.RUNNING, deadline_at__lte=now).first()
    if row is None or _has_free_behind(row):
        return
    told = row.told.filter(at__lte=now - timedelta(minutes=row.notice_min)).values("assignment")
    live = Desktop.objects.filter(pool=pool_id).exclude(state__in=[State.GONE, State.RETIRING])
    batch = 1 if failures_in_a_row(row) else max(1, live.count() // planning.GRADUAL)
    room = batch - live.filter(state__in=list(COMING)).count()
    waiting = _users_behind(row).filter(pk__in=told, desktop__is_moving=False)
    # All who are on a session host go together.
    there = list(dict.fromkeys(waiting.values_list("desktop", flat=True)))[: max(0, room)]
    for assignment_id in list(waiting.filter(desktop__in=there).values_list("pk", flat=True)):
        try:
            _turn_out(row.pk, assignment_id, now)
        except Clash as clash:
            # Released this moment, or being moved: the next look sees what has become of it.
            log.info("push.not_turned_out", assignment=str(assignment_id), reason=clash.message)


def _has_free_behind(row: Push) -> bool:
    free = selectors.behind(row.pool_id, row.version).filter(state=State.READY, is_in_maintenance=False)
    return free.filter(hypervisor__status=Hypervisor.Status.UP, member__is_enabled=True).exists()


def _turn_out(push_id: UUID, assignment_id: UUID, now: datetime) -> None:
    with transaction.atomic():
        found = Assignment.objects.filter(pk=assignment_id, until=None).values_list("desktop", flat=True).first()
        if found is None:
            return
        # Without the push's own lock, which others take before they need their pool: one that is cancelled in this very
        # moment is as good as cancelled a moment later.
        desktop = Desktop.objects.select_for_update(no_key=True).get(pk=found)
        row = Push.objects.filter(pk=push_id, state=STATES.RUNNING).first()
        rows = Assignment.objects.select_related("desktop__pool", "pool", "user")
        assignment = rows.filter(pk=assignment_id, until=None).first()
        if row is None or assignment is None or desktop.state != State.ASSIGNED:
            return
        if assignment.seat:
            # Nobody sits down again before it is empty.
            Desktop.objects.filter(pk=desktop.pk).update(is_emptying=True)
        brokering.reclaim_left(assignment, "It gets a newer template version.")
        is_kept = assignment.pool.is_dedicated and brokering.is_entitled(assignment.user, row.pool_id)
        if is_kept:
            _queue_again(assignment, now)
        facts = {"pool": assignment.pool.name, "desktop": assignment.desktop.name}
        kind = Kind.DESKTOP_REPLACED if is_kept else Kind.DESKTOP_PUSHED
        notices.tell(
            [assignment.user_id], kind, now=now, pool_id=row.pool_id, desktop_id=assignment.desktop_id, facts=facts
        )


def _queue_again(assignment: Assignment, now: datetime) -> None:
    """Whoever had a dedicated desktop has one again without asking."""
    Request.objects.create(
        pool=assignment.pool, user=assignment.user, state=Request.State.APPROVED, reason=brokering.NOBODY_LEFT,
        created_at=now,
    )  # fmt: skip


# --- what the plan needs to know --------------------------------------------------------------------------------------


def kept_versions(pool_id: UUID) -> dict[UUID, UUID]:
    """Member -> the version that desktops there may stay on, because a push to it was given up. At most two
    statements."""
    last = Push.objects.filter(pool=pool_id, started_at__isnull=False).order_by("-started_at").first()
    if last is None or last.state not in rules.GIVEN_UP:
        return {}
    places = last.places.select_related("member")
    return {place.member_id: last.version_id for place in places if place.member.copy_id == place.before_id}


def running(pool_id: UUID) -> Push | None:
    return Push.objects.filter(pool=pool_id, state=STATES.RUNNING).first()


def suspects(row: Push | None) -> Sequence[UUID]:
    """Desktops that failed on the version since one last became ready on it."""
    if row is None:
        return ()
    failed = selectors.failures_of(row)
    return [one.desktop for one in failed if row.good_at is None or one.at > row.good_at]
