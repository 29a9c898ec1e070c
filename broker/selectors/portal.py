"""The portal's questions: my desktops, my requests, and the pools I may ask. A fixed number of statements each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Count, Exists, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from broker.domain import tiles
from broker.domain.labels import Label, Tone, Wait, wait
from broker.domain.lifecycle import COMING, LIVE, State
from broker.models import Assignment, Desktop, Hypervisor, Operation, Pool, PoolMember, Request
from broker.models.operations import UNFINISHED
from broker.selectors.desktops import labelled
from broker.selectors.pools import pools_entitled

NEWS = timedelta(hours=24)
"""How long a refused or failed request is shown."""
LOST = (Hypervisor.Status.DOWN, Hypervisor.Status.REFUSED)
"""Nothing is known of desktops on such a hypervisor, and nothing can be done to them."""
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


@dataclass(frozen=True, slots=True)
class Offer:
    """A pool that I may ask for a desktop."""

    pool: Pool
    words: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class MyPage:
    tiles: list[Tile]
    waiting: list[Waiting]
    news: list[Request]
    """Requests that were refused or failed lately."""
    offers: list[Offer]

    @property
    def is_empty(self) -> bool:
        return not (self.tiles or self.waiting or self.news or self.offers)


def reference(row_id: UUID) -> str:
    """A short number to tell the help desk."""
    return str(row_id)[:8].upper()


def my_page(user: User) -> MyPage:
    """All that the portal's first page shows, in at most six statements."""
    pools = list(_pools(user))
    open_to_me = {pool.pk for pool in pools}
    shown = _tiles(my_desktops(user), open_to_me)
    requests = list(_requests(user))
    waiting = [_waiting(request) for request in requests if request.state in Request.OPEN]
    taken = {tile.desktop.pool_id for tile in shown} | {one.request.pool_id for one in waiting}
    return MyPage(
        tiles=shown,
        waiting=waiting,
        news=_news(requests, taken),
        offers=_offers([pool for pool in pools if pool.pk not in taken]),
    )


def my_desktop(user: User, desktop_id: UUID) -> Tile | None:
    """One desktop of mine; None for everybody else's."""
    mine = my_desktops(user).filter(pk=desktop_id)
    found = _tiles(mine, set(pools_entitled(user).values_list("pk", flat=True)))
    return found[0] if found else None


# --- desktops --------------------------------------------------------------------------------------------------------


def my_desktops(user: User) -> QuerySet[Desktop]:
    """With pool and hypervisor, what the label needs, and `latest_change`: its newest changing operation's id."""
    mine = Assignment.objects.filter(desktop=OuterRef("pk"), user=user, until=None)
    changes = Operation.objects.filter(desktop=OuterRef("pk"), changes=True, epoch=OuterRef("epoch"))
    return (
        labelled(Desktop.objects.filter(Exists(mine)))
        .select_related("pool", "hypervisor")
        .annotate(latest_change=Subquery(changes.order_by("-created_at").values("pk")[:1]))
        .order_by("pool__name", "name")
    )


def _tiles(desktops: QuerySet[Desktop], open_to_me: set[UUID]) -> list[Tile]:
    found = list(desktops)
    latest = Operation.objects.in_bulk([one.latest_change for one in found if one.latest_change])  # type: ignore[attr-defined]
    return [_tile(one, latest.get(one.latest_change), one.pool_id in open_to_me) for one in found]  # type: ignore[attr-defined]


def _tile(desktop: Desktop, latest: Operation | None, is_entitled: bool) -> Tile:
    doing = ""
    if latest and latest.state in UNFINISHED:
        doing = latest.parameters.get("action", "") or latest.kind
    waits_for_guest = desktop.pool.preparation == Pool.Preparation.AGENT
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
    return Tile(
        desktop=desktop,
        label=label,
        main=tiles.main_button(power=desktop.power, doing=doing) if is_there and is_entitled else "",
        steps=_steps(desktop, doing, waits_for_guest) if is_there else [],
        choices=tiles.power_choices(power=desktop.power, doing=doing) if is_there else (),
        problem=problem,
        reference=about,
        note=MOVING if desktop.is_moving else "",
        can_release=not desktop.is_moving,
    )


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


def _waiting(request: Request) -> Waiting:
    is_queued = request.state in Request.IN_QUEUE
    return Waiting(
        request=request,
        label=Label("Waiting for approval", Tone.BUSY, "clock")
        if not is_queued
        else Label("Finding a desktop", Tone.BUSY, "spinner"),
        place=request.ahead + 1 if is_queued else 0,  # type: ignore[attr-defined]
        steps=tiles.wait_steps(Wait.FINDING),
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
        has_ready=Exists(claimable) & ~Exists(queue),
        has_coming=Exists(here.filter(state__in=COMING)) | Exists(ready),
        has_host=Exists(members),
    )


def _offers(pools: list[Pool]) -> list[Offer]:
    short = [pool.pk for pool in pools if pool.is_enabled and not (pool.has_ready or pool.has_coming)]  # type: ignore[attr-defined]
    counts: Mapping[UUID, int] = {}
    if short:
        live = Desktop.objects.filter(pool__in=short, state__in=LIVE).order_by()
        counts = dict(live.values_list("pool").annotate(number=Count("pk")))
    return [_offer(pool, counts.get(pool.pk, 0)) for pool in sorted(pools, key=lambda pool: pool.name.casefold())]


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
    return Offer(pool, words, tone)
