"""Seats on session hosts: taken under the locks of the hosts, given back one by one.

Whoever takes a seat locks every host of the pool that takes people, in the order of their ids, as everybody locks
desktops. So two who come at once see each other's seats, and fill the hosts evenly; the numbers of the seats are unique
by constraint besides. A host's epoch rises with the first who comes and when the last has left: in between its users
come and go, and what the others have open goes on.
"""

from __future__ import annotations

from datetime import datetime

from django.db.models import F

from broker.domain import seating
from broker.domain.lifecycle import State
from broker.domain.seating import HostFacts, Seat
from broker.models import Assignment, Desktop, Pool
from broker.selectors import seats as selectors
from broker.services import nudges, sessions


def take(pool: Pool, now: datetime) -> tuple[Desktop, Seat] | None:
    """A seat for whoever is next, on a host that is theirs from now on; None if there is none.

    Call inside the transaction that writes the assignment: until its end the hosts are locked.
    """
    free = selectors.hosts_that_take().filter(pool=pool).order_by("pk")
    hosts = {str(host.pk): host for host in free.select_for_update(no_key=True, of=("self",)).select_related("member")}
    seat = seating.choose(_facts(list(hosts.values())), pool.seats)
    if seat is None:
        return None
    host = hosts[seat.host]
    if host.state == State.READY:
        Desktop.objects.filter(pk=host.pk).update(
            state=State.ASSIGNED, state_since=now, epoch=F("epoch") + 1, is_emptying=False
        )
        host.state, host.epoch = State.ASSIGNED, host.epoch + 1
    return host, seat


def _facts(hosts: list[Desktop]) -> list[HostFacts]:
    """Looked up once they are locked: a statement that waited for a lock does not see what was taken meanwhile."""
    taken = selectors.taken_on([host.pk for host in hosts])
    loads = selectors.loads(hosts) if len(hosts) > 1 else {}
    return [
        HostFacts(
            id=str(host.pk),
            taken=taken.get(host.pk, frozenset()),
            load_percent=loads.get(host.pk),
            created_at=host.created_at,
            is_current=host.member is None or host.member.copy_id == host.copy_id,
            is_answering=host.is_answering,
        )
        for host in hosts
        # One that is somebody's alone, from when the pool was of another kind.
        if 0 not in taken.get(host.pk, frozenset())
    ]


def is_last(assignment: Assignment) -> bool:
    """Whether nobody else is on its host. Locks the host, so that nobody comes meanwhile."""
    Desktop.objects.select_for_update(no_key=True).get(pk=assignment.desktop_id)
    return not Assignment.objects.filter(desktop=assignment.desktop_id, until=None).exclude(pk=assignment.pk).exists()


def leave(assignment: Assignment, now: datetime, reason: str) -> None:
    """All of this user's that rests on the seat ends: session, streams, tickets. The others on the host go on.

    In the transaction that ends the assignment, with the host locked.
    """
    sessions.vacate(assignment.desktop_id, assignment.user_id, now, reason)
    nudges.announce("screens", desktop=str(assignment.desktop_id), user=str(assignment.user_id), close="released")
