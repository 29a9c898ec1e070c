"""Where a desktop is built: filters, then weighers, over *targets*, with the reasons kept in words.

A target is the smallest thing the platform lets us name (a host, through a member of the pool) plus the storage that
holds the copy. Capacity is what was promised, not what is seen: used plus reserved, against what the host has times the
hypervisor's ratio. The choice is only a proposal: the reservation itself is a guarded UPDATE, and who loses it asks
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

LINKED_SHARE = 0.1
"""Of the template's disk that must be free for a linked clone: it starts empty and grows."""

FAR = 0.75
"""What a place is worth whose storage is not the template's: clones read across, or are copied over."""

STATUS_WORDS = {
    "new": "has not been reached yet",
    "down": "is down",
    "refused": "refuses the sign-in",
    "doubt": "is in doubt: too many of its machines vanished at once",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be placed. None: as the target's copy has it."""

    vcpus: int | None = None
    memory_mib: int | None = None
    is_linked: bool = True
    maximum_per_host: int | None = None
    """At most so many desktops of the pool on one host."""
    network: str = ""
    """Name of the logical network that it shall be on; empty: as the template has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One place, with all that the choice depends on."""

    member_id: str
    hypervisor_id: str
    hypervisor: str
    host_id: str
    host: str
    vcpus: int
    """What the host has."""
    memory_mib: int
    copy_vcpus: int
    copy_memory_mib: int
    copy_disk_mib: int = 0
    used_vcpus: int = 0
    """Used or promised."""
    used_memory_mib: int = 0
    vcpu_ratio: float = 8.0
    memory_ratio: float = 1.0
    hypervisor_status: str = "up"
    hypervisor_reason: str = ""
    hypervisor_draining: bool = False
    host_up: bool = True
    host_draining: bool = False
    member_enabled: bool = True
    member_hold_until: datetime | None = None
    member_hold_reason: str = ""
    member_maximum: int | None = None
    member_desktops: int = 0
    """Live desktops of this member."""
    host_desktops: int = 0
    """Live desktops of this pool on this host, promised ones included."""
    weight: int = 100
    host_allowed: bool = True
    """Whether the member's choice of hosts has it."""
    lacks_network: bool = False
    """The wished network is nothing here."""
    copy: str = ""
    """What the image is called on the platform."""
    copy_cannot: str = ""
    """Why nothing can be cloned from it, in words."""
    copy_storage: str = ""
    """Where the copy lies, if clones go elsewhere."""
    copy_storage_up: bool = True
    storage_missing: bool = False
    """The storage that was chosen for clones is not (any more) one of the hypervisor's."""
    storage_id: str = ""
    """Empty: unknown to inventory; then its room is not checked."""
    storage: str = ""
    """Where clones go."""
    storage_up: bool = True
    storage_free_mib: int = 0

    @property
    def name(self) -> str:
        return f"{self.host} on {self.hypervisor}" if self.host != self.hypervisor else self.host

    @property
    def vcpu_limit(self) -> int:
        return int(self.vcpus * self.vcpu_ratio)

    @property
    def memory_limit_mib(self) -> int:
        return int(self.memory_mib * self.memory_ratio)

    def needs(self, wish: Wish) -> Needs:
        disk = self.copy_disk_mib
        return Needs(
            vcpus=self.copy_vcpus if wish.vcpus is None else wish.vcpus,
            memory_mib=self.copy_memory_mib if wish.memory_mib is None else wish.memory_mib,
            disk_mib=int(disk * LINKED_SHARE) if wish.is_linked else disk,
        )


@dataclass(frozen=True, slots=True)
class Needs:
    """What one desktop takes at one target: what to reserve there."""

    vcpus: int
    memory_mib: int
    disk_mib: int


@dataclass(frozen=True, slots=True)
class Candidate:
    target: Target
    chosen: bool
    score: float
    """0 for a refused one."""
    reasons: list[str]

    def stored(self) -> dict[str, object]:
        """As the desktop's row keeps it: "Why here?"."""
        return {
            "target": self.target.name,
            "chosen": self.chosen,
            "score": round(self.score, 2),
            "reasons": self.reasons,
        }


@dataclass(frozen=True, slots=True)
class Placement:
    target: Target | None
    needs: Needs | None
    reasons: list[Candidate]
    """Every target, the chosen one first, then the other possible ones by score, then the refused ones."""

    def stored(self) -> list[dict[str, object]]:
        return [candidate.stored() for candidate in self.reasons]


def refusals(wish: Wish, target: Target, now: datetime) -> list[str]:
    """Why nothing of this wish may be built there now; empty if it may."""
    return [*_closed(target, now), *_unfit(wish, target), *_full(target.needs(wish), target)]


def _closed(target: Target, now: datetime) -> Iterable[str]:
    if target.hypervisor_status != "up":
        words = STATUS_WORDS.get(target.hypervisor_status, f"is {target.hypervisor_status}")
        detail = f" ({target.hypervisor_reason})" if target.hypervisor_reason else ""
        yield f"Hypervisor {target.hypervisor} {words}{detail}."
    if target.hypervisor_draining:
        yield f"Hypervisor {target.hypervisor} is being emptied."
    if not target.host_up:
        yield f"Host {target.host} is down."
    if target.host_draining:
        yield f"Host {target.host} is being emptied."
    if not target.member_enabled:
        yield f"The pool's member on {target.hypervisor} is switched off."
    if target.member_hold_until is not None and target.member_hold_until > now:
        detail = f": {target.member_hold_reason}" if target.member_hold_reason else ""
        yield f"Builds on {target.hypervisor} are on hold until {target.member_hold_until:%H:%M:%S} UTC{detail}."
    if target.member_maximum is not None and target.member_desktops >= target.member_maximum:
        yield (
            f"The pool may have {target.member_maximum} desktops on {target.hypervisor} and has "
            f"{target.member_desktops}."
        )


def _unfit(wish: Wish, target: Target) -> Iterable[str]:
    if not target.host_allowed:
        yield f"Host {target.host} is not among those chosen for the pool on {target.hypervisor}."
    if wish.maximum_per_host is not None and target.host_desktops >= wish.maximum_per_host:
        yield (
            f"Host {target.host}: the pool may have {wish.maximum_per_host} desktops on one host and has "
            f"{target.host_desktops} there."
        )
    if wish.network and target.lacks_network:
        yield f"Network {wish.network} has no counterpart on {target.hypervisor}."
    if target.copy_cannot:
        yield f"Template {target.copy} on {target.hypervisor} cannot be cloned: {target.copy_cannot}"
    if not target.copy_storage_up:
        yield f"Storage {target.copy_storage}, where template {target.copy} lies, is not available."
    if target.storage_missing:
        yield f"{target.hypervisor} has no storage {target.storage}: choose another one for the pool's desktops there."


def _full(needs: Needs, target: Target) -> Iterable[str]:
    free = target.memory_limit_mib - target.used_memory_mib
    if needs.memory_mib > free:
        yield (
            f"Host {target.host}: {needs.memory_mib} MiB wanted, {max(free, 0)} MiB free of {target.memory_limit_mib} "
            f"({target.used_memory_mib} in use or promised)."
        )
    free = target.vcpu_limit - target.used_vcpus
    if needs.vcpus > free:
        yield (
            f"Host {target.host}: {needs.vcpus} vCPUs wanted, {max(free, 0)} free of {target.vcpu_limit} "
            f"({target.used_vcpus} in use or promised)."
        )
    if target.storage_id and not target.storage_up:
        yield f"Storage {target.storage} is not available."
    elif target.storage_id and needs.disk_mib > target.storage_free_mib:
        yield (
            f"Storage {target.storage}: {needs.disk_mib} MiB wanted for the disk, "
            f"{max(target.storage_free_mib, 0)} MiB free."
        )


def score(wish: Wish, target: Target) -> float:
    """Higher is better: the member's weight, times what would still be free, over how many of the pool are there; less
    where clones do not lie beside their template."""
    near = 1.0 if not target.copy_storage else FAR
    return target.weight * _free_share(target.needs(wish), target) * near / (1 + target.host_desktops)


def _free_share(needs: Needs, target: Target) -> float:
    """The scarcer of memory and vCPUs, as the share that would be left."""
    memory = (target.memory_limit_mib - target.used_memory_mib - needs.memory_mib) / max(target.memory_limit_mib, 1)
    vcpus = (target.vcpu_limit - target.used_vcpus - needs.vcpus) / max(target.vcpu_limit, 1)
    return max(0.0, min(memory, vcpus))


def place(wish: Wish, targets: Sequence[Target], now: datetime) -> Placement:
    """The best target, or none, and why: candidate by candidate. The same facts give the same choice."""
    possible: list[tuple[float, Target]] = []
    refused: list[Candidate] = []
    for target in targets:
        if faults := refusals(wish, target, now):
            refused.append(Candidate(target, chosen=False, score=0.0, reasons=faults))
        else:
            possible.append((score(wish, target), target))
    # An exactly full host scores 0, and then the emptier pool and the name decide.
    possible.sort(key=lambda pair: (-pair[0], pair[1].host_desktops, pair[1].name, pair[1].host_id))
    accepted = [
        Candidate(target, chosen=rank == 0, score=points, reasons=[_praise(wish, target, points)])
        for rank, (points, target) in enumerate(possible)
    ]
    best = accepted[0].target if accepted else None
    refused.sort(key=lambda candidate: (candidate.target.name, candidate.target.host_id))
    return Placement(best, best.needs(wish) if best else None, [*accepted, *refused])


def _praise(wish: Wish, target: Target, points: float) -> str:
    share = round(100 * _free_share(target.needs(wish), target))
    here = "1 desktop" if target.host_desktops == 1 else f"{target.host_desktops} desktops"
    far = (
        f", clones to {target.storage} while its template lies on {target.copy_storage}" if target.copy_storage else ""
    )
    return (
        f"Host {target.host}: weight {target.weight}, {share} % free after it, {here} of this pool there{far}: "
        f"score {points:.1f}."
    )


def place_many(wish: Wish, count: int, targets: Sequence[Target], now: datetime) -> list[Placement]:
    """Up to `count` placements from one reading, each counting those before it.

    Ends with the first that finds no target (which comes last, with its reasons): the others would find none either.
    """
    left = list(targets)
    placements: list[Placement] = []
    for _ in range(count):
        placement = place(wish, left, now)
        placements.append(placement)
        if placement.target is None or placement.needs is None:
            break
        left = [_after(target, placement.target, placement.needs) for target in left]
    return placements


def _after(target: Target, chosen: Target, needs: Needs) -> Target:
    """A target's facts once a desktop was placed on the chosen one."""
    same_host = target.host_id == chosen.host_id
    same_member = target.member_id == chosen.member_id
    same_storage = bool(target.storage_id) and target.storage_id == chosen.storage_id
    if not (same_host or same_member or same_storage):
        return target
    return replace(
        target,
        used_vcpus=target.used_vcpus + same_host * needs.vcpus,
        used_memory_mib=target.used_memory_mib + same_host * needs.memory_mib,
        host_desktops=target.host_desktops + same_host,
        member_desktops=target.member_desktops + same_member,
        storage_free_mib=target.storage_free_mib - same_storage * needs.disk_mib,
    )


def explain_none(placement: Placement) -> str:
    """One sentence for user, help desk and API: why no desktop can be built now. Empty if one can."""
    if placement.target is not None:
        return ""
    if not placement.reasons:
        return "No desktop is available: the pool has no hypervisor to build on."
    words: list[str] = []
    for candidate in placement.reasons:
        words += [reason.rstrip(".") for reason in candidate.reasons if reason.rstrip(".") not in words]
    return "No desktop is available: " + "; ".join(_lower_first(word) for word in words) + "."


def _lower_first(words: str) -> str:
    return words[:1].lower() + words[1:]
