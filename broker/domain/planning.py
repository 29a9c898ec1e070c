"""What a pool needs next: `plan(pool, members, desktops, now)` compares what shall be with what is.

Level-triggered and idempotent: it looks only at the present, so a plan that was half carried out before a crash is
simply made again. The reconciler carries actions out; between two plans it lets each action show in the facts (a built
desktop is PLANNED, a retired one RETIRING).

What shall be: `clamp(assigned + waiting + spare, minimum, maximum)` desktops. Minimum and spare are those that hold now
(`domain/scaling`); spare may be a share of those in use. Spare counts desktops that are ready,
whether their guest answers at this moment or not; those in maintenance, missing, or for more than a minute on a
hypervisor that is not up do not count, but everything that is not gone counts against the maximum.

A shared pool counts its spare in seats: its session hosts are as many as those who have a seat, who wait and the spare
need. Where fewer would do, the emptiest take nobody new (`Empty`); whoever is on one stays, and it goes once the last
has left.

A member may have a minimum of its own. What it lacks is built there and nowhere else, whatever the pool wants in all;
no surplus is taken below it, and where the pool is full, free desktops elsewhere make room for it, a batch at a time.

What keeps a broken template or host from building for ever:
- A member with failures in a row is built on one desktop at a time, and not at all while on hold; who records the
  failure puts the hold there, longer each time (`backoff`).
- A failed desktop that has a machine is recycled at most `RECYCLE_TRIES` times, later each time.
- The newest `KEPT_FAILED` failed desktops stay a day for the administrator to look at; older ones are deleted. They
  give way earlier if the pool needs their room. One whose disk may hold a user's files goes after an hour: set it to
  maintenance to keep it.
- A ready desktop that cannot be given out because its guest fell silent gets a fresh disk once it has been silent for
  as long as a new one may take to answer; one batch at a time, since silence of many has its cause elsewhere.
- Planned desktops that are not needed any more go before they are built.
- While a template version is pushed (`domain/pushes`), free desktops that hang from another one get a fresh disk of it
  where they stand, a batch at a time, and one at a time once any failed; one is always left to be given out, unless
  the pool cannot hold another beside it. What failed on the version is not tried again before that is judged.
- Deletions have a budget an hour. When it is spent the plan deletes nothing more and asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.domain.backoff import delay_s
from broker.domain.lifecycle import COMING, LIVE, State
from broker.domain.scaling import spare_of
from broker.domain.seating import hosts_for

KEPT_FAILED = 3
KEPT_FAILED_FOR = timedelta(hours=24)
KEPT_USER_DATA_FOR = timedelta(hours=1)
"""What a user left on a desktop whose recycling failed is not kept for longer than its tries may take."""
RECYCLE_TRIES = 3
RECYCLE_BASE_S = 60.0
GRACE = timedelta(seconds=60)
"""A hypervisor that is away for less is still counted on: a restarted daemon shall not cause a wave of builds."""
GRADUAL = 4
"""One of so many free desktops is replaced at a time (at least one)."""

# --- facts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    minimum: int
    spare: int
    spare_percent: int | None = None
    """So many for a hundred in use, at least `spare`."""
    maximum: int
    waiting: int = 0
    """Requests in the queue that have no desktop yet."""
    is_enabled: bool = True
    """Off: nothing is built or tried again; what is too many still goes."""
    is_cramped: bool = False
    """The last build found no host or storage with room for it."""
    is_pushing: bool = False
    """A template version is being pushed: free desktops that are behind get a fresh disk of it."""
    push_failures: int = 0
    """Desktops in a row that failed on that version."""
    prepare_timeout_s: int = 900
    delete_budget_per_hour: int = 30
    deletes_last_hour: int = 0
    hold_reason: str = ""
    """Not empty: it stopped deleting and waits for an administrator."""
    seats: int | None = None
    """Of each session host; None: a desktop is one person's. Spare and waiting are seats then, the other numbers
    hosts."""
    freshens_when_empty: bool = True
    """A session host gets a fresh disk when the last of its users has left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFacts:
    id: str
    status: str = "up"
    """Of its hypervisor: new, up, down, refused, doubt."""
    status_since: datetime | None = None
    is_draining: bool = False
    """It or its hypervisor."""
    is_enabled: bool = True
    hold_until: datetime | None = None
    failures: int = 0
    """Failed builds in a row."""
    minimum: int = 0
    """Desktops that shall always stand there."""
    is_cramped: bool = False
    """No host or storage there has room for another desktop now."""
    maximum: int | None = None

    @property
    def is_up(self) -> bool:
        return self.status == "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class DesktopFacts:
    id: str
    state: State
    state_since: datetime
    epoch: int = 1
    is_answering: bool = False
    power: str = "unknown"
    member_id: str | None = None
    """None: its member was removed from the pool, so it shall go."""
    copy_current: bool = True
    """Whether it hangs from the copy its member names now, or shall stay on another one."""
    is_suspect: bool = False
    """It failed on the version that is being pushed, and none has become ready on that since."""
    in_maintenance: bool = False
    attempts: int = 0
    """Failed tries since it was last ready."""
    has_machine: bool = True
    has_user_data: bool = False
    """Its disk may hold the files of somebody who had it."""
    is_assigned: bool = False
    """It has an open assignment."""
    seats_taken: int = 0
    """Of a session host."""
    is_emptying: bool = False
    """A session host that takes nobody new."""
    is_draining: bool = False
    """Its host is to be emptied."""
    silent_since: datetime | None = None
    """Since when a ready one could not be given out, because its guest does not answer; None if it could."""
    is_reachable: bool = True
    """Its hypervisor is up; says so for desktops whose member was removed."""


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Build:
    count: int
    member: str = ""
    """Only there; empty: wherever placement finds the best place."""


@dataclass(frozen=True, slots=True)
class Retire:
    desktop: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recycle:
    desktop: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    desktop: str
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing more is deleted until an administrator has looked."""

    reason: str


@dataclass(frozen=True, slots=True)
class Empty:
    """A session host takes nobody new; those who are on it stay."""

    desktop: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fill:
    """A session host that was to be emptied is needed again."""

    desktop: str
    reason: str


Action = Build | Retire | Recycle | Fail | Hold | Empty | Fill

# --- the plan --------------------------------------------------------------------------------------------------------


def plan(
    pool: PoolFacts, members: Sequence[MemberFacts], desktops: Sequence[DesktopFacts], now: datetime
) -> list[Action]:
    """What to do now: failures first, then recycles, builds, and deletions with the least wanted desktop first."""
    view = _View.of(pool, members, desktops, now)
    failing = [Fail(d.id, _overdue(pool, d)) for d in view.live if view.is_overdue(d)]
    recycling = view.recycles()
    builds = view.builds(len(recycling))
    build = sum(action.count for action in builds)
    retiring, hold = _within_budget(pool, [*view.worn_out(build, recycling), *view.surplus()])
    is_busy = bool(recycling or retiring or hold)
    pushing = [] if is_busy or (build and pool.push_failures) else view.pushes()
    reviving = [] if is_busy or pushing else view.revivals()
    hosts = [*view.emptied(), *view.turns()]
    return [*failing, *recycling, *pushing, *reviving, *hosts, *builds, *view.needless(), *retiring, *hold]


def wanted(pool: PoolFacts, assigned: int) -> int:
    """How many desktops shall stand."""
    in_use = assigned + pool.waiting
    spare = spare_of(pool.spare, pool.spare_percent, in_use)
    return max(pool.minimum, min(in_use + spare, pool.maximum))


def _overdue(pool: PoolFacts, desktop: DesktopFacts) -> str:
    state = ", and it is switched off" if desktop.power == "off" else ""
    return (
        f"The guest has not answered within {pool.prepare_timeout_s} s of the machine standing{state}. "
        "Look at its screen; see whether the template starts its agent."
    )


def _within_budget(pool: PoolFacts, wishes: list[Retire]) -> tuple[list[Retire], list[Hold]]:
    if not wishes or pool.hold_reason:
        return [], []
    left = max(0, pool.delete_budget_per_hour - pool.deletes_last_hour)
    if len(wishes) <= left:
        return wishes, []
    reason = (
        f"{len(wishes)} desktops should be deleted now, {pool.deletes_last_hour} were in the last hour, and the pool's "
        f"budget is {pool.delete_budget_per_hour} an hour. Check why, then resume the pool."
    )
    return wishes[:left], [Hold(reason)]


@dataclass(frozen=True, slots=True)
class _View:
    """The facts, sorted into what the rules ask for."""

    pool: PoolFacts
    members: dict[str, MemberFacts]
    live: list[DesktopFacts]
    now: datetime
    coming: list[DesktopFacts] = field(default_factory=list)
    ready: list[DesktopFacts] = field(default_factory=list)
    """Free ones that may be given out."""
    assigned: int = 0

    @classmethod
    def of(
        cls, pool: PoolFacts, members: Sequence[MemberFacts], desktops: Sequence[DesktopFacts], now: datetime
    ) -> _View:
        live = [d for d in desktops if d.state in LIVE]
        view = cls(
            pool=pool,
            members={m.id: m for m in members},
            live=live,
            now=now,
            assigned=sum(d.state == State.ASSIGNED or d.is_assigned for d in live),
        )
        counted = [d for d in live if not d.is_assigned and not d.in_maintenance and view.is_counted_on(d)]
        view.coming.extend(d for d in counted if d.state in COMING and not view.is_overdue(d))
        view.ready.extend(d for d in counted if d.state == State.READY)
        return view

    # Questions about one desktop or member.

    def is_reachable(self, desktop: DesktopFacts) -> bool:
        member = self.members.get(desktop.member_id or "")
        return desktop.is_reachable and (member is None or member.is_up)

    def is_counted_on(self, desktop: DesktopFacts) -> bool:
        member = self.members.get(desktop.member_id or "")
        if member is None or member.is_up or member.status_since is None:
            return self.is_reachable(desktop)
        return self.now - member.status_since < GRACE

    def is_leaving(self, desktop: DesktopFacts) -> bool:
        """Whether another shall take its place."""
        member = self.members.get(desktop.member_id or "")
        return member is None or member.is_draining or desktop.is_draining or not desktop.copy_current

    def is_deletable(self, desktop: DesktopFacts) -> bool:
        return (
            desktop.state in {State.READY, State.FAILED}
            and not desktop.is_assigned
            and not desktop.in_maintenance
            and self.is_reachable(desktop)
        )

    def is_overdue(self, desktop: DesktopFacts) -> bool:
        if desktop.state != State.PREPARING or desktop.in_maintenance or not self.is_reachable(desktop):
            return False
        member = self.members.get(desktop.member_id or "")
        # Nobody could hear its guest while the hypervisor was away: that time is not held against it.
        since = max(desktop.state_since, (member and member.status_since) or desktop.state_since)
        return self.now - since >= timedelta(seconds=self.pool.prepare_timeout_s)

    def is_open(self, member: MemberFacts) -> bool:
        """Whether anything may be built there at all."""
        on_hold = member.hold_until is not None and member.hold_until > self.now
        return member.is_up and member.is_enabled and not member.is_draining and not on_hold

    def slots(self, member: MemberFacts, *, without: frozenset[str] = frozenset()) -> int:
        """How many more may be built there now, or could be `without` those desktops."""
        if not self.is_open(member):
            return 0
        own = [d for d in self.live if d.member_id == member.id and d.id not in without]
        left = self.pool.maximum if member.maximum is None else member.maximum - len(own)
        if member.failures or self.pool.push_failures:
            left = min(left, 1 - sum(d.state in COMING for d in own))
        return max(0, left)

    def all_slots(self, *, without: frozenset[str] = frozenset()) -> int:
        if not self.pool.is_enabled:
            return 0
        return sum(self.slots(member, without=without) for member in self.members.values())

    # Counts.

    @property
    def wanted(self) -> int:
        if self.pool.seats is None:
            return wanted(self.pool, self.assigned)
        return max(self.pool.minimum, min(self.assigned + self.more_hosts(self.pool.seats), self.pool.maximum))

    @property
    def wanted_free(self) -> int:
        """What the pool wants in all, or its members together, whichever is more."""
        return max(0, self.wanted - self.assigned, sum(self.free_floor(member) for member in self.members.values()))

    @property
    def room(self) -> int:
        return max(0, self.pool.maximum - len(self.live))

    @property
    def shortage(self) -> int:
        return max(0, self.wanted_free - len(self.coming) - len(self.ready))

    @property
    def batch(self) -> int:
        """How many leaving desktops are replaced at a time."""
        return max(1, self.wanted_free // GRADUAL)

    # Session hosts.

    @property
    def people(self) -> int:
        """Those who have a seat, and those who wait for one."""
        return sum(d.seats_taken for d in self.live) + self.pool.waiting

    @property
    def spare_seats(self) -> int:
        return spare_of(self.pool.spare, self.pool.spare_percent, self.people)

    def hosts(self) -> list[DesktopFacts]:
        """Session hosts that somebody is on, or was, and that may take more."""
        return [
            d
            for d in self.live
            if d.state == State.ASSIGNED
            and not d.in_maintenance
            and d.silent_since is None
            and self.is_counted_on(d)
            and not self.is_leaving(d)
        ]

    def emptying(self) -> set[str]:
        """Those of `hosts` that shall take nobody new: the others have seats for all. The emptiest, the newest of
        them."""
        if self.pool.seats is None:
            return set()
        hosts = sorted(self.hosts(), key=lambda d: (d.state_since, d.id), reverse=True)
        hosts.sort(key=lambda d: (d.seats_taken, not d.is_emptying))
        kept = max(self.pool.minimum, hosts_for(self.people + self.spare_seats, self.pool.seats))
        return {d.id for d in hosts[: max(0, len(hosts) - kept)]}

    def more_hosts(self, seats: int) -> int:
        """How many free session hosts those who wait and the spare need, beside the free seats where others are."""
        emptying = self.emptying()
        free = sum(max(0, seats - d.seats_taken) for d in self.hosts() if d.id not in emptying)
        return hosts_for(max(0, self.pool.waiting + self.spare_seats - free), seats)

    def turns(self) -> list[Empty | Fill]:
        """Session hosts that take nobody new from now on, and those that do again. What is empty already goes by
        itself (`emptied`)."""
        emptying = self.emptying()
        begin = [d for d in self.hosts() if d.id in emptying and d.is_assigned and not d.is_emptying]
        again = [d for d in self.hosts() if d.id not in emptying and d.is_emptying]
        return [
            *(Fill(d.id, "It is needed again.") for d in again),
            *(Empty(d.id, "Fewer session hosts are needed: it takes nobody new.") for d in begin),
        ]

    def emptied(self) -> list[Recycle]:
        """Session hosts whose last user has left, and that shall not take others as they are."""
        if self.pool.seats is None:
            return []
        emptying, found = self.emptying(), []
        for d in self.live:
            if d.state != State.ASSIGNED or d.is_assigned or d.in_maintenance or not self.is_reachable(d):
                continue
            if self.pool.freshens_when_empty:
                found.append(Recycle(d.id, "The last of its users has left."))
            elif self.is_leaving(d):
                found.append(Recycle(d.id, self.why_leaving(d)))
            elif d.id in emptying:
                found.append(Recycle(d.id, "Fewer session hosts are needed, and nobody is on it."))
        return found

    # Members' minimums.

    def held(self, member: MemberFacts) -> int:
        """Desktops there that are in use, ready or on their way, as far as they are counted on."""
        return self.used(member) + sum(d.member_id == member.id for d in (*self.ready, *self.coming))

    def used(self, member: MemberFacts) -> int:
        return sum(d.member_id == member.id and d.state == State.ASSIGNED for d in self.live)

    def lacks(self, member: MemberFacts) -> int:
        """How many more shall be built there for its minimum, and may be."""
        if not member.minimum or not self.pool.is_enabled or member.is_cramped:
            return 0
        return max(0, min(member.minimum - self.held(member), self.slots(member)))

    def free_floor(self, member: MemberFacts) -> int:
        """How many free desktops there its minimum asks for, as far as they stand or can be built."""
        if not member.minimum or member.is_draining:
            return 0
        return max(0, min(member.minimum, self.held(member) + self.lacks(member)) - self.used(member))

    def spared(self, free: Iterable[DesktopFacts], going: Iterable[DesktopFacts] = ()) -> list[DesktopFacts]:
        """Those of `free`, in order, that may go (after those `going`) without taking a member below its minimum."""
        left = {member.id: self.held(member) - member.minimum for member in self.members.values()}
        for desktop in going:
            if desktop.member_id in left:
                left[desktop.member_id] -= 1
        found = []
        for desktop in free:
            if desktop.member_id in left:
                if left[desktop.member_id] <= 0:
                    continue
                left[desktop.member_id] -= 1
            found.append(desktop)
        return found

    def leaving(self) -> list[DesktopFacts]:
        return [d for d in _oldest_first(self.ready) if self.is_leaving(d) and self.is_deletable(d)]

    # A version that is pushed.

    def goes_over(self, desktop: DesktopFacts) -> bool:
        """Whether it gets a fresh disk of the pushed version where it stands: it stays, and is only behind."""
        member = self.members.get(desktop.member_id or "")
        if not self.pool.is_pushing or member is None or member.is_draining or desktop.is_draining:
            return False
        return not desktop.copy_current and desktop.has_machine

    def replaced(self) -> list[DesktopFacts]:
        """Free desktops that others are built for. Of those that go over, one if the pool wants only one free: it is
        not rebuilt before another stands beside it."""
        leaving = self.leaving()
        over = [d for d in leaving if self.goes_over(d)]
        return [*(d for d in leaving if not self.goes_over(d)), *(over[:1] if self.wanted_free <= 1 else [])]

    def pushes(self) -> list[Recycle]:
        """Free desktops that go over now, those first that nobody could have anyway."""
        behind = [d for d in self.leaving() if self.goes_over(d) and self.is_open(self.members[d.member_id or ""])]
        if not behind or not self.pool.is_enabled:
            return []
        behind.sort(key=lambda d: d.silent_since is None)
        batch = max(0, (1 if self.pool.push_failures else self.batch) - len(self.coming))
        silent = sum(d.silent_since is not None for d in behind)
        usable = sum(d.silent_since is None for d in self.ready)
        count = min(batch, silent + max(0, usable - 1))
        if not count and self.is_last():
            count = 1
        return [Recycle(d.id, "The pool has a newer template version.") for d in behind[:count]]

    def is_last(self) -> bool:
        """Whether the only free desktop is rebuilt: no other can stand beside it, nobody waits, and nothing fails."""
        is_full = not self.room or self.pool.is_cramped
        fails = self.pool.push_failures or any(m.failures for m in self.members.values())
        return is_full and not (fails or self.coming or self.pool.waiting)

    # Rules.

    def recycles(self) -> list[Recycle]:
        """Failed desktops whose machine stands get another try where the pool is short of desktops."""
        slots = {member.id: 1 if member.failures else self.pool.maximum for member in self.members.values()}
        for desktop in self.coming:
            if desktop.member_id in slots:
                slots[desktop.member_id] -= 1
        found: list[Recycle] = []
        for desktop in _newest_first(d for d in self.live if d.state == State.FAILED):
            member = self.members.get(desktop.member_id or "")
            if len(found) >= self.shortage or not self.pool.is_enabled:
                break
            if member is None or not self.is_open(member) or slots[member.id] < 1 or not self.may_recycle(desktop):
                continue
            slots[member.id] -= 1
            found.append(Recycle(desktop.id, f"Try {desktop.attempts + 1} of {RECYCLE_TRIES} after a failure."))
        return found

    def revivals(self) -> list[Recycle]:
        """Ready desktops that fell silent, a batch at a time, where nothing else is on its way."""
        words = f"Its guest has not answered for {self.pool.prepare_timeout_s} s, so nobody could have it."
        silent = [d for d in _oldest_first(self.ready) if self.has_fallen_silent(d)]
        return [Recycle(d.id, words) for d in silent[: max(0, self.batch - len(self.coming))]]

    def has_fallen_silent(self, desktop: DesktopFacts) -> bool:
        member = self.members.get(desktop.member_id or "")
        if desktop.silent_since is None or member is None or not self.pool.is_enabled or not self.is_open(member):
            return False
        since = max(desktop.silent_since, member.status_since or desktop.silent_since)
        return self.now - since >= timedelta(seconds=self.pool.prepare_timeout_s) and not self.is_leaving(desktop)

    def may_recycle(self, desktop: DesktopFacts) -> bool:
        after = timedelta(seconds=delay_s(desktop.attempts, desktop.id, base_s=RECYCLE_BASE_S))
        return (
            self.is_deletable(desktop)
            and desktop.has_machine
            and not self.is_leaving(desktop)
            and not desktop.is_suspect
            and desktop.attempts < RECYCLE_TRIES
            and self.now - desktop.state_since >= after
        )

    def builds(self, recycled: int) -> list[Build]:
        """What members lack, what else is short, and replacements for a batch of those that shall leave, within room
        and slots."""
        found, room = [], self.room
        for member in sorted(self.members.values(), key=lambda m: m.id):
            if count := min(self.lacks(member), room):
                found.append(Build(count, member.id))
                room -= count
        for_members = self.room - room
        short = self.wanted_free + min(self.batch, len(self.replaced())) - len(self.coming) - len(self.ready) - recycled
        count = max(0, min(short - for_members, room, self.all_slots() - for_members))
        return [*found, Build(count)] if count else found

    def worn_out(self, build: int, recycling: list[Recycle]) -> list[Retire]:
        """Failed desktops beyond those kept, those kept long enough, and those whose room is needed."""
        again = {action.desktop for action in recycling}
        failed = [d for d in self.live if d.state == State.FAILED and d.id not in again and self.is_deletable(d)]
        failed = [d for d in failed if not d.is_suspect]
        failed = _newest_first(failed)
        kept = max(0, min(KEPT_FAILED, len(failed) - self.cramped(failed, build, len(recycling))))
        reason = "It failed; newer failures are kept to be looked at, or the pool needs its room."
        beyond = [Retire(d.id, reason) for d in failed[kept:]]
        old = [d for d in failed[:kept] if self.now - d.state_since >= KEPT_FAILED_FOR]
        used = [d for d in failed[:kept] if d not in old and self.is_kept_too_long(d)]
        words = "It could not be recycled, and what its last user left on it is not kept."
        return [*beyond, *(Retire(d.id, "It failed a day ago.") for d in old), *(Retire(d.id, words) for d in used)]

    def is_kept_too_long(self, failed: DesktopFacts) -> bool:
        return failed.has_user_data and self.now - failed.state_since >= KEPT_USER_DATA_FOR

    def cramped(self, failed: list[DesktopFacts], build: int, recycled: int) -> int:
        """How many desktops could be built now if failed ones did not take up the room."""
        if build and not self.pool.is_cramped:
            return 0
        slots = self.all_slots(without=frozenset(d.id for d in failed))
        has_room = self.room > 0 and self.all_slots() > 0 and not self.pool.is_cramped
        going = sum(d.state == State.RETIRING for d in self.live)
        return 0 if has_room else max(0, min(self.shortage - recycled, slots) - going)

    def surplus(self) -> list[Retire]:
        """Ready desktops beyond what shall be free: leaving ones first, then the newest.

        Where nothing can be built beside them (the pool's or a member's maximum), a batch of leaving ones goes first.
        """
        leaving = self.leaving()
        ids = {d.id for d in leaving}
        count = max(0, len(self.ready) - self.wanted_free)
        staying = [d for d in _newest_first(self.ready) if d.id not in ids and self.is_deletable(d)]
        elsewhere = [d for d in leaving if not self.goes_over(d)]
        first = leaving[:count] or elsewhere[: self.swaps(elsewhere)]
        spared = self.spared(staying, first)
        then = spared[: max(0, count - len(first))]
        makes_room = spared[len(then) : len(then) + self.shifts(len(first) + len(then))]
        return [
            *(Retire(d.id, self.why_leaving(d)) for d in first),
            *(Retire(d.id, "More desktops are ready than the pool wants.") for d in then),
            *(Retire(d.id, "It makes room for the minimum of another hypervisor.") for d in makes_room),
        ]

    def needless(self) -> list[Retire]:
        """Planned desktops, the newest first, that nobody needs any more: users gave theirs back, and those come again.

        Nothing of them stands yet, so no budget counts them; once built they would be deleted as surplus.
        """
        count = len(self.ready) + len(self.coming) - self.wanted_free - min(self.batch, len(self.replaced()))
        planned = [d for d in _newest_first(self.coming) if d.state == State.PLANNED and not d.has_machine]
        planned = [d for d in planned if self.is_reachable(d)]
        return [Retire(d.id, "It is not needed any more.") for d in self.spared(planned)[: max(0, count)]]

    def shifts(self, going: int) -> int:
        """How many free desktops go so that members below their minimum can be built on in a pool that is full."""
        lacking = sum(self.lacks(member) for member in self.members.values())
        in_motion = sum(d.state == State.RETIRING for d in self.live) + going
        return max(0, min(self.batch, lacking - self.room) - in_motion)

    def swaps(self, leaving: list[DesktopFacts]) -> int:
        """How many leaving desktops go before their replacements are built, because there is no other way.

        None while building fails anywhere: what works is not given up for what may not.
        """
        if not leaving or (self.room and self.all_slots()) or any(m.failures for m in self.members.values()):
            return 0
        in_motion = len(self.coming) + sum(d.state == State.RETIRING for d in self.live) + self.shortage
        return max(0, min(self.batch - in_motion, self.all_slots(without=frozenset(d.id for d in leaving))))

    def why_leaving(self, desktop: DesktopFacts) -> str:
        if desktop.member_id not in self.members:
            return "Its hypervisor no longer belongs to the pool."
        if not desktop.copy_current:
            return "The pool has a newer template version."
        return "Its host or hypervisor is to be emptied."


def _newest_first(desktops: Iterable[DesktopFacts]) -> list[DesktopFacts]:
    return sorted(desktops, key=lambda d: (d.state_since, d.id), reverse=True)


def _oldest_first(desktops: Sequence[DesktopFacts]) -> list[DesktopFacts]:
    return sorted(desktops, key=lambda d: (d.state_since, d.id))
