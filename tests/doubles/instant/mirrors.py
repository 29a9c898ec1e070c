"""What the instant hypervisor replicates by itself: whatever a test says, in a file of the world's folder.

A machine whose replica another world keeps (`keep`) can go over to it; how far that is stands at both ends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from connectors.base import Stamp
from connectors.errors import Conflict, NotFound, Unsupported
from connectors.replication import Mirror, MirrorListing, MirrorState
from tests.doubles.instant import disks
from tests.doubles.instant.world import World

FILE = "mirrors.json"
ASKED = "mirrors-asked"


def tell(world: World, *mirrors: Mirror, partial: str = "", refusal: str = "") -> None:
    """From now on it answers so; with a refusal it raises `Unsupported`."""
    told = [asdict(one) | {"newest_at": one.newest_at and one.newest_at.isoformat()} for one in mirrors]
    (world.folder / FILE).write_text(json.dumps({"mirrors": told, "partial": partial, "refusal": refusal}))


def times_asked(world: World) -> int:
    file = world.folder / ASKED
    return len(file.read_text()) if file.exists() else 0


def listing(world: World) -> MirrorListing:
    with (world.folder / ASKED).open("a") as asked:
        asked.write(".")
    file = world.folder / FILE
    if not file.exists():
        return MirrorListing(())
    told = json.loads(file.read_text())
    if told["refusal"]:
        raise Unsupported(told["refusal"])
    return MirrorListing(_mirrors(told["mirrors"]), told["partial"])


def _mirrors(told: Sequence[dict[str, object]]) -> tuple[Mirror, ...]:
    return tuple(
        Mirror(**it | {"state": MirrorState(str(it["state"])), "newest_at": _moment(it["newest_at"])})  # type: ignore[arg-type]
        for it in told
    )


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(str(text)) if text else None


# --- going over to a replica ------------------------------------------------------------------------------------------

ORIGINAL, PREPARED, REPLICA, TAKEN_OVER = "original", "prepared", "replica", "taken over"


def keep(here: World, machine: str, there: World) -> None:
    """From now on the other world keeps a replica of the machine: a machine of the same id that bears no stamp."""
    row = here.machine(machine)
    assert row is not None
    with there.change() as db:
        values = [machine, row.name, "off", row.vcpus, row.memory_mib, "host-1", "", "", 0.0, 0.0, ""]
        db.execute(f"INSERT INTO machine VALUES ({', '.join('?' * len(values))})", values)
    _set(here, machine, ORIGINAL, there.folder)
    _set(there, machine, REPLICA, here.folder)


def state(world: World, machine: str) -> str:
    """Empty: it is not replicated."""
    return str(_end(world, machine).get("state", ""))


def require_startable(world: World, machine: str) -> None:
    if state(world, machine) in (PREPARED, REPLICA):
        raise Conflict("A replica cannot be started, nor what is about to become one.")


def hand_over(world: World, machine: str) -> None:
    if world.faults.strikes("fail_hand_over"):
        raise Unsupported("The instant hypervisor sends nothing today.")
    end = _end(world, machine)
    if end.get("state") not in (ORIGINAL, PREPARED):
        raise Unsupported("This machine is not replicated.")
    row = world.machine(machine)
    if row is None or row.power != "off":
        raise Unsupported("It must be off.")
    disks.path_of(World(end["partner"]), machine).write_bytes(disks.path_of(world, machine).read_bytes())
    _set(world, machine, PREPARED)
    world.faults.reach("mirror.handed_over")


def take_over(world: World, machine: str, stamp: Stamp | None) -> None:
    if world.faults.strikes("fail_take_over"):
        raise Unsupported("The instant hypervisor lets nobody take over today.")
    end = _end(world, machine)
    if end.get("state") not in (REPLICA, TAKEN_OVER):
        raise Conflict("This is no replica.")
    assert state(World(end["partner"]), machine) == PREPARED, "a replica took over that had not got everything"
    with world.change() as db:
        given = (stamp.installation, stamp.key) if stamp is not None else ("", "")
        db.execute("UPDATE machine SET installation = ?, key = ? WHERE id = ?", [*given, machine])
    _set(world, machine, TAKEN_OVER)
    world.faults.reach("mirror.taken_over")


def reverse(world: World, machine: str) -> None:
    if world.faults.strikes("fail_reverse"):
        raise Unsupported("The instant hypervisor turns nothing round today.")
    _set(World(_end(world, machine)["partner"]), machine, REPLICA)
    _set(world, machine, ORIGINAL)


def take_back(world: World, machine: str) -> None:
    was = state(world, machine)
    if was == PREPARED:
        assert state(World(_end(world, machine)["partner"]), machine) == REPLICA, "both ends could run"
        _set(world, machine, ORIGINAL)
    elif was == TAKEN_OVER:
        with world.change() as db:
            db.execute("UPDATE machine SET power = 'off', installation = '', key = '' WHERE id = ?", [machine])
        _set(world, machine, REPLICA)


def _end(world: World, machine: str) -> dict[str, Any]:
    file = world.folder / "replicas" / machine
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _set(world: World, machine: str, state: str, partner: Path | None = None) -> None:
    file = world.folder / "replicas" / machine
    file.parent.mkdir(exist_ok=True)
    end = _end(world, machine) | {"state": state} | ({"partner": str(partner)} if partner else {})
    if not end.get("partner"):
        raise NotFound("This machine is not replicated.")
    file.write_text(json.dumps(end))
