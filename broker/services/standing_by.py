"""What a mover does to bring a standby to its source's newest point.

1. The point is chosen once, and stays the run's: an attempt after a death makes the same machine.
2. A standby that nobody else has written on is brought to it by what differs from the point that it holds.
3. Where that cannot be, a new one is made under the run's key, takes the other one's place in the transaction that ends
   the run, and the other one goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import structlog
from django.utils import timezone

from broker.hypervisors import gate
from broker.models import RecoveryPoint, ReplicationRun, ReplicationSource, Standby
from broker.services import standbys
from broker.services.movers import STATES, Hold
from connectors.base import Connector, MachineRef, Stamp
from connectors.errors import Conflict, Unsupported
from connectors.errors import NotFound as NoMachine
from connectors.replication import Bookmark, Refreshes, Refreshing, RefreshWish
from disks.errors import Damaged, NotFound
from disks.vault.points import RecoveryPoint as Stored
from disks.vault.vault import Vault as Opened

log = structlog.get_logger()

LONGEST_NAME = 63
ANEW = "It is left alone. Have a new one made on its policy's page."


def chosen_point(hold: Hold) -> RecoveryPoint:
    """The newest usable one when the run began. Nobody deletes it while the run lasts. Raises `NotFound`."""
    run = hold.run
    if run.point is not None:
        return run.point
    with hold.writing():
        usable = RecoveryPoint.objects.filter(source=run.source_id, state=RecoveryPoint.State.USABLE)
        point = usable.select_for_update(of=("self",)).order_by("-taken_at").first()
        if point is None:
            raise NotFound(f"There is no usable recovery point of {run.subject} any more.")
        ReplicationRun.objects.filter(pk=run.pk).update(point=point, wish=run.wish or _wish(run, point))
    run.refresh_from_db()
    return point


def _wish(run: ReplicationRun, point: RecoveryPoint) -> dict[str, object]:
    """How a new one is made, if one must be."""
    source = ReplicationSource.objects.select_related("policy").get(runs=run)
    ending = f"-standby-{run.pk.hex[:6]}"
    networks = standbys.networks_for(point, run.hypervisor_id) if run.hypervisor_id else []
    return {
        "name": point.machine_name[: LONGEST_NAME - len(ending)] + ending,
        "storage": source.policy.target_storage,
        "networks": networks,
    }


def warm(hold: Hold, vault: Opened, connector: Connector, stored: Stored) -> tuple[Standby, Stored] | None:
    """The standby that may be brought to the point by what differs, and the point that it holds; None if a new one has
    to be made. Raises `Unsupported` if somebody uses it."""
    standby = standbys.current(hold.run.source_id) if hold.run.source_id else None
    if standby is None:
        return None
    if standby.is_used:
        raise Unsupported(f"The standby {standby} was started or written on by somebody. {ANEW}")
    if standby.hypervisor_id != hold.run.hypervisor_id or standby.point_id is None or not standby.mark:
        return None
    if not isinstance(connector, Refreshes):
        return None
    with suppress(NotFound, Damaged):
        since = vault.point(str(standby.point_id))
        if [disk.name for disk in since.disks] == [disk.name for disk in stored.disks]:
            return standby, since
    return None


def refreshing(
    hold: Hold, standby: Standby, stored: Stored, connector: Refreshes, deadline: float
) -> Refreshing | None:
    """None if a new one has to be made. Raises `Unsupported` if somebody has started it or written on it."""
    wish = RefreshWish(
        machine=ref_of(standby), key=hold.key(hold.attempt), configuration=stored.configuration,
        mark=Bookmark(standby.mark),
    )  # fmt: skip
    try:
        return connector.refresh(wish, deadline)
    except (NoMachine, Unsupported) as error:
        log.info("standby.made_anew", standby=str(standby), reason=error.message)
        return None
    except Conflict as error:
        if standby.is_changing:
            return None  # it was us, in an attempt that died
        with hold.writing():
            standbys.leave_alone(standby, "was started or written on")
        raise Unsupported(f"{error.message} {ANEW}") from error


def ref_of(standby: Standby) -> MachineRef:
    return MachineRef(id=standby.machine_id, stamp=Stamp(gate.installation_id(), standby.machine_key))


def begin_change(hold: Hold, standby: Standby) -> None:
    """From now on nobody takes it. Raises `Unsupported` if somebody just did."""
    with hold.writing():
        mine = Standby.objects.filter(pk=standby.pk, is_used=False, is_leaving=False)
        if not mine.update(is_changing=True):
            raise Unsupported(f"A failover has taken the standby {standby} meanwhile.")


def mark_of(connector: Connector, machine: MachineRef, deadline: float) -> dict[str, object]:
    """Empty where a connector knows none: then it is made anew the next time."""
    return dict(connector.mark(machine, deadline).data) if isinstance(connector, Refreshes) else {}


def changed(hold: Hold, standby: Standby, mark: dict[str, object]) -> None:
    """It holds the run's point now: the end of the run."""
    with hold.writing():
        Standby.objects.filter(pk=standby.pk).update(
            point=hold.run.point, mark=mark, is_changing=False, refreshed_at=timezone.now()
        )
        hold.finish(STATES.DONE, platform_id=standby.machine_id, error="")


def made_anew(hold: Hold, machine: MachineRef, mark: dict[str, object], warnings: Sequence[str]) -> None:
    """A new one takes the other one's place: the end of the run."""
    run = hold.run
    if run.hypervisor is None:
        raise Unsupported("The hypervisor of this run is not registered any more.")
    with hold.writing():
        others = Standby.objects.filter(source=run.source_id, is_leaving=False)
        others.filter(is_used=True).delete()
        others.update(is_leaving=True)
        Standby.objects.create(
            source_id=run.source_id, hypervisor=run.hypervisor, name=run.wish["name"], machine_id=machine.id,
            machine_key=str(run.pk), networks=run.wish["networks"], point=run.point, mark=mark,
            refreshed_at=timezone.now(), warnings=list(warnings),
        )  # fmt: skip
        hold.finish(STATES.DONE, platform_id=machine.id, findings=list(warnings), error="")
