"""The portal's questions: my desktops, my requests, and the pools I may ask. A fixed number of statements each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Count, Exists, F, FilteredRelation, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from broker.domain import leases, native, tiles
from broker.domain.applications import why_not_in_browser
from broker.domain.labels import Label, Tone, Wait, wait
from broker.domain.leases import Lease
from broker.domain.lifecycle import COMING, LIVE, State
from broker.models import (
    Application,
    Desktop,
    Favourite,
    Hypervisor,
    Operation,
    Pool,
    PoolMember,
    Preferences,
    Request,
    ScreenSession,
)
from broker.models.operations import UNFINISHED
from broker.selectors.desktops import labelled
from broker.selectors.pools import entitling, pools_entitled, pools_usable
from broker.selectors.presence import OpenScreen, screens_of
from broker.selectors.seats import with_a_free_seat

NEWS = timedelta(hours=24)
"""How long a refused or failed request is shown."""
LOST = (Hypervisor.Status.DOWN, Hypervisor.Status.REFUSED)
"""Nothing is known of desktops on such a hypervisor, and nothing can be done to them."""
BUILDS_ASKED, BUILDS_COUNTED = 200, 20
"""Desktops of all pools together; of each pool: what the last builds took."""
MOVE = "move"
MOVING = "It is being moved to another host and will be there in a while. You need do nothing."


@dataclass(frozen=True, slots=True)
class Tile:
    """A desktop of mine."""

    desktop: Desktop
    label: Label
    main: str
    """The main button's word; empty if it cannot be opened."""
    steps: list[tuple[str, str]]
    """While it comes up: the words of the wait."""
    choices: tuple[str, ...]
    """Power actions."""
    problem: str
    """What is wrong and what to do; empty if nothing is."""
    reference: str
    """What to tell the help desk about the problem."""
    note: str = ""
    """What goes on with it that is no problem, in words."""
    can_release: bool = True
    lease: Lease | None = None
    """None: it is theirs until they release it."""
    gone_at: datetime | None = None
    """When it is taken back, if that is near."""
    may_renew: bool = False
    is_favourite: bool = False
    elsewhere: tuple[OpenScreen, ...] = ()
    """Where else it is open."""
    file: str = ""
    """The kind of file by which a program of theirs opens it; empty if none does."""
    is_file_first: bool = False
    """Whether they chose that the main button gives that file."""

    @property
    def is_coming(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request of mine that has no desktop yet."""

    request: Request
    label: Label
    place: int
    """In the queue, from 1; 0 if it waits for approval."""
    steps: list[tuple[str, str]]
    left_s: float | None = None
    """How long it may take, by what the pool's last builds took; None if nobody can say."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A pool that I may ask for a desktop."""

    pool: Pool
    words: str
    tone: Tone
    is_favourite: bool = False


@dataclass(frozen=True, slots=True)
class ApplicationTile:
    """An application that I may open."""

    application: Application
    tile: Tile | None
    """My desktop on which it runs; None while I have none of its pool."""
    waiting: Waiting | None
    """My request for one."""
    why_no_browser: str
    """In words; empty if the browser shows it."""
    is_alone: bool
    """Whether I may have its desktop for applications only, so that this tile is the desktop's too."""

    @property
    def may_ask(self) -> bool:
        return self.tile is None and self.waiting is None and self.application.pool.is_enabled


@dataclass(frozen=True, slots=True)
class MyPage:
    tiles: list[Tile]
    applications: list[ApplicationTile]
    waiting: list[Waiting]
    news: list[Request]
    """Requests that were refused or failed lately."""
    offers: list[Offer]

    @property
    def is_empty(self) -> bool:
        return not (self.tiles or self.applications or self.waiting or self.news or self.offers)

    @property
    def single(self) -> Tile | None:
        """The one desktop that there is, if it can be opened and nothing else is on its way."""
        is_single = len(self.tiles) == 1 and not (self.applications or self.waiting or self.news)
        only = self.tiles[0] if is_single else None
        return only if only and only.main and not only.problem else None


def reference(row_id: UUID) -> str:
    """A short number to tell the help desk."""
    return str(row_id)[:8].upper()


def my_page(user: User, here: str = "") -> MyPage:
    """All that the portal's first page shows, in at most eight statements.

    `here`: the hash of the session's key that asks.
    """
    pools = list(_pools(user))
    open_to_me = {pool.pk for pool in pools}
    offered = list(applications_of(user))
    for_applications = {application.pool_id for application in offered}
    mine = _tiles(user, my_desktops(user), open_to_me | for_applications, here)
    shown = sorted(
        (tile for tile in mine if tile.desktop.pool_id in open_to_me or tile.desktop.pool_id not in for_applications),
        key=lambda tile: not tile.is_favourite,
    )
    requests = list(_requests(user))
    waiting = _all_waiting([request for request in requests if request.state in Request.OPEN])
    taken = {tile.desktop.pool_id for tile in shown} | {one.request.pool_id for one in waiting}
    return MyPage(
        tiles=shown,
        applications=_applications(offered, mine, waiting, open_to_me),
        waiting=waiting,
        news=_news(requests, taken),
        offers=_offers([pool for pool in pools if pool.pk not in taken]),
    )


def my_desktop(user: User, desktop_id: UUID, here: str = "") -> Tile | None:
    """One desktop of mine; None for everybody else's."""
    mine = my_desktops(user).filter(pk=desktop_id)
    found = _tiles(user, mine, set(pools_usable(user).values_list("pk", flat=True)), here)
    return found[0] if found else None


def applications_of(user: User) -> QuerySet[Application]:
    """Those that this person may open, directly or through a group, with their pools."""
    entitled = entitling(user).filter(application=OuterRef("pk"))
    return Application.objects.filter(Exists(entitled), is_enabled=True).select_related("pool")


def _applications(
    offered: Sequence[Application], mine: Sequence[Tile], waiting: Sequence[Waiting], open_to_me: set[UUID]
) -> list[ApplicationTile]:
    tiles = {tile.desktop.pool_id: tile for tile in mine}
    requests = {one.request.pool_id: one for one in waiting}
    return [
        ApplicationTile(
            application,
            tiles.get(application.pool_id),
            requests.get(application.pool_id),
            why_not_in_browser(protocol=application.pool.protocol, is_remote_app=application.program.is_remote_app),
            application.pool_id not in open_to_me,
        )
        for application in offered
    ]


# --- desktops --------------------------------------------------------------------------------------------------------


def my_desktops(user: User) -> QuerySet[Desktop]:
    """With pool, hypervisor and lease, what the label needs, and `latest_change`: its newest changing operation."""
    held = FilteredRelation("assignments", condition=Q(assignments__until=None))
    changes = Operation.objects.filter(desktop=OuterRef("pk"), changes=True, epoch=OuterRef("epoch"))
    return (
        labelled(Desktop.objects.annotate(held=held).filter(held__user=user))
        .select_related("pool", "hypervisor")
        .annotate(
            held_since=F("held__since"),
            lease_until=F("held__lease_until"),
            renewals=F("held__renewals"),
            told_at=F("held__told_at"),
            end_told_at=F("held__end_told_at"),
            is_favourite=Exists(Favourite.objects.filter(user=user, pool=OuterRef("pool"))),
            opens_natively=Exists(Preferences.objects.filter(user=user, opens_natively=True)),
        )
        .annotate(
            latest_change=Subquery(changes.order_by("-created_at").values("pk")[:1]),
            # On a session host others look too.
            has_session=Exists(ScreenSession.objects.filter(desktop=OuterRef("pk"), user=user, ended_at=None)),
        )
        .order_by("pool__name", "name")
    )


def _tiles(user: User, desktops: QuerySet[Desktop], open_to_me: set[UUID], here: str) -> list[Tile]:
    found = list(desktops)
    looked_at = any(one.has_session for one in found)  # type: ignore[attr-defined]
    opened = [screen for screen in screens_of(user, here) if not screen.is_here] if looked_at else []
    latest = Operation.objects.in_bulk([one.latest_change for one in found if one.latest_change])  # type: ignore[attr-defined]
    return [
        _tile(
            one,
            latest.get(one.latest_change),  # type: ignore[attr-defined]
            one.pool_id in open_to_me,
            tuple(screen for screen in opened if screen.session.desktop_id == one.pk),
        )
        for one in found
    ]


def _tile(
    desktop: Desktop, latest: Operation | None, is_entitled: bool, elsewhere: tuple[OpenScreen, ...] = ()
) -> Tile:
    doing = ""
    if latest and latest.state in UNFINISHED:
        doing = latest.parameters.get("action", "") or latest.kind
    waits_for_guest = desktop.pool.preparation != Pool.Preparation.NONE
    if desktop.is_moving:
        doing = MOVE
    is_host_lost = desktop.hypervisor.status in LOST
    label = tiles.tile_label(
        state=desktop.state,
        power=desktop.power,
        is_answering=desktop.is_answering,
        waits_for_guest=waits_for_guest,
        has_session=desktop.has_session,  # type: ignore[attr-defined]
        doing=doing,
        is_host_lost=is_host_lost,
    )
    problem, about = _problem(desktop, latest, is_entitled)
    is_there = desktop.state == State.ASSIGNED and not is_host_lost and not desktop.is_moving
    lease, terms = _lease(desktop), desktop.pool.terms
    main = (
        tiles.main_button(power=desktop.power, doing=doing, has_session=bool(elsewhere))
        if is_there and is_entitled
        else ""
    )
    return Tile(
        desktop=desktop,
        label=label,
        main=main,
        steps=_steps(desktop, doing, waits_for_guest) if is_there else [],
        choices=_choices(desktop, doing) if is_there else (),
        problem=problem,
        reference=about,
        note=MOVING if desktop.is_moving else "",
        can_release=not desktop.is_moving,
        lease=lease,
        gone_at=leases.reclaim_at(lease, terms) if lease and terms.reclaims else None,
        may_renew=is_entitled and lease is not None and leases.renewed(lease, terms, timezone.now()) is not None,
        is_favourite=desktop.is_favourite,  # type: ignore[attr-defined]
        elsewhere=elsewhere,
        file=(file := _file(desktop.pool) if main else ""),
        is_file_first=bool(file and desktop.opens_natively),  # type: ignore[attr-defined]
    )


def _choices(desktop: Desktop, doing: str) -> tuple[str, ...]:
    """Whoever is on a session host switches nothing: it is started when somebody opens it."""
    return () if desktop.pool.is_shared else tiles.power_choices(power=desktop.power, doing=doing)


def _file(pool: Pool) -> str:
    return native.file_kind(
        is_allowed=pool.native_clients,
        protocol=pool.protocol,
        guest_account=pool.guest_account,
        has_rdp_door=bool(settings.RDP_ADDRESS),
        has_vnc_door=bool(settings.VNC_ADDRESS),
    )


def _lease(desktop: Any) -> Lease | None:
    """Of a row of `my_desktops`."""
    if desktop.lease_until is None:
        return None
    return Lease(desktop.held_since, desktop.lease_until, desktop.renewals, desktop.told_at, desktop.end_told_at)


def _steps(desktop: Desktop, doing: str, waits_for_guest: bool) -> list[tuple[str, str]]:
    """The words of the wait, if the desktop is on its way up."""
    if doing in tiles.WAKING:
        return tiles.wait_steps(Wait.STARTING)
    if doing or desktop.power in ("off", "suspended"):
        return []
    now = wait(has_desktop=True, power="on", is_answering=desktop.is_answering, waits_for_guest=waits_for_guest)
    return [] if now == Wait.CONNECTING else tiles.wait_steps(now)


def _problem(desktop: Desktop, latest: Operation | None, is_entitled: bool) -> tuple[str, str]:
    """(words, reference)"""
    if desktop.state != State.ASSIGNED:
        words = desktop.failure or "Its host no longer shows it. We keep looking; it returns by itself if it is found."
        return words, reference(desktop.pk)
    if desktop.is_moving:
        return "", ""
    if not is_entitled:
        return "You no longer have access to this pool. Ask your administrator; your files are still there.", ""
    if desktop.hypervisor.status in LOST:
        return "Its host cannot be reached at the moment. We keep trying.", reference(desktop.pk)
    if desktop.is_in_maintenance:
        return "Your administrator is at work on it. Save what you have open; it may be restarted.", ""
    if latest and latest.state == Operation.State.FAILED:
        return latest.error or "The last action failed.", reference(latest.pk)
    return "", ""


# --- requests --------------------------------------------------------------------------------------------------------


def _requests(user: User) -> QuerySet[Request]:
    """Mine that wait, and those that failed lately; newest first, with `ahead`: how many come before in the queue."""
    in_queue = Request.objects.filter(
        pool=OuterRef("pool"), state__in=Request.IN_QUEUE, created_at__lt=OuterRef("created_at")
    )
    ahead = in_queue.order_by().values("pool").annotate(number=Count("pk")).values("number")
    bad_news = Q(state__in=[Request.State.REFUSED, Request.State.FAILED], ended_at__gt=timezone.now() - NEWS)
    waits = Q(state__in=[Request.State.WAITING, *Request.IN_QUEUE])
    return (
        Request.objects.filter(waits | bad_news, user=user)
        .select_related("pool")
        .annotate(ahead=Coalesce(Subquery(ahead, output_field=IntegerField()), 0))
    )


def _all_waiting(requests: Sequence[Request]) -> list[Waiting]:
    """With how long each may take: one statement if any is in the queue."""
    queued = {request.pool_id for request in requests if request.state in Request.IN_QUEUE}
    if not queued:
        return [_waiting(request, None) for request in requests]
    now = timezone.now()
    builds: dict[UUID, list[float]] = {}
    coming: dict[UUID, list[datetime]] = {}
    # One that was never given back holds the moment at which it first became ready.
    wanted = Q(state__in=COMING) | Q(epoch__lte=2, ready_at__isnull=False)
    newest = Desktop.objects.filter(wanted, pool__in=queued).order_by("-state_since")[:BUILDS_ASKED]
    for one in newest.only("pool", "state", "created_at", "state_since", "ready_at"):
        if one.state in COMING:
            begun_at = one.state_since if one.state == State.RECYCLING else one.created_at
            coming.setdefault(one.pool_id, []).append(begun_at)
        elif one.ready_at:
            builds.setdefault(one.pool_id, []).append((one.ready_at - one.created_at).total_seconds())
    return [
        _waiting(
            request,
            tiles.time_left(
                builds.get(request.pool_id, [])[:BUILDS_COUNTED],
                coming.get(request.pool_id, []),
                request.ahead + 1,  # type: ignore[attr-defined]
                now,
            ),
        )
        for request in requests
    ]


def _waiting(request: Request, left_s: float | None) -> Waiting:
    is_queued = request.state in Request.IN_QUEUE
    return Waiting(
        request=request,
        label=Label("Waiting for approval", Tone.BUSY, "clock")
        if not is_queued
        else Label("Finding a desktop", Tone.BUSY, "spinner"),
        place=request.ahead + 1 if is_queued else 0,  # type: ignore[attr-defined]
        steps=tiles.wait_steps(Wait.FINDING) if is_queued else tiles.APPROVAL_STEPS,
        left_s=left_s if is_queued else None,
    )


def _news(requests: Sequence[Request], taken: set[UUID]) -> list[Request]:
    """The newest bad news of each pool of which nothing better is known since."""
    seen = set(taken)
    news = []
    for request in requests:
        if request.pool_id not in seen:
            seen.add(request.pool_id)
            news.append(request)
    return news


# --- pools -----------------------------------------------------------------------------------------------------------


def _pools(user: User) -> QuerySet[Pool]:
    """Those I may ask, with `has_ready`, `has_coming` and `has_host`."""
    here = Desktop.objects.filter(pool=OuterRef("pk"))
    ready = here.filter(state=State.READY, is_in_maintenance=False, hypervisor__status=Hypervisor.Status.UP)
    members = PoolMember.objects.filter(
        pool=OuterRef("pk"), is_enabled=True, hypervisor__status=Hypervisor.Status.UP, hypervisor__is_draining=False
    )
    queue = Request.objects.filter(pool=OuterRef("pk"), state__in=Request.IN_QUEUE)
    takes_off = Q(power="off") & (Q(pool__starts_powered_off=True) | Q(is_resting=True))
    claimable = ready.filter(Q(is_answering=True) | Q(pool__preparation=Pool.Preparation.NONE) | takes_off)
    return pools_entitled(user).annotate(
        has_ready=(Exists(claimable) | Exists(with_a_free_seat().filter(pool=OuterRef("pk")))) & ~Exists(queue),
        has_coming=Exists(here.filter(state__in=COMING)) | Exists(ready),
        has_host=Exists(members),
        is_favourite=Exists(Favourite.objects.filter(user=user, pool=OuterRef("pk"))),
    )


def _offers(pools: list[Pool]) -> list[Offer]:
    short = [pool.pk for pool in pools if pool.is_enabled and not (pool.has_ready or pool.has_coming)]  # type: ignore[attr-defined]
    counts: Mapping[UUID, int] = {}
    if short:
        live = Desktop.objects.filter(pool__in=short, state__in=LIVE).order_by()
        counts = dict(live.values_list("pool").annotate(number=Count("pk")))
    ordered = sorted(pools, key=lambda pool: (not pool.is_favourite, pool.name.casefold()))  # type: ignore[attr-defined]
    return [_offer(pool, counts.get(pool.pk, 0)) for pool in ordered]


def _offer(pool: Pool, desktops: int) -> Offer:
    words, tone = tiles.offer_words(
        is_enabled=pool.is_enabled,
        why_closed=pool.closed_words,
        has_ready=pool.has_ready,  # type: ignore[attr-defined]
        has_coming=pool.has_coming,  # type: ignore[attr-defined]
        has_host=pool.has_host,  # type: ignore[attr-defined]
        desktops=desktops,
        maximum=pool.maximum,
    )
    return Offer(pool, words, tone, pool.is_favourite)  # type: ignore[attr-defined]
