"""Who is logged on to the instant hypervisor's guests: whatever a test says, in a file of the world's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from connectors.errors import Busy
from connectors.presence import GuestUsers
from tests.doubles.instant.world import World

FILE = "users.json"
ASKED = "users-asked"


def tell(world: World, machine: str, *names: str) -> None:
    """From now on this machine's guest says that these are there; without names, that nobody is."""
    file = world.folder / FILE
    told = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(told | {machine: names}))


def refuse(world: World) -> None:
    """From now on no guest can be asked."""
    (world.folder / FILE).write_text("busy")


def asked(world: World) -> list[str]:
    """Every machine whose guest was asked, in order."""
    file = world.folder / ASKED
    return file.read_text().split() if file.exists() else []


def answers(world: World, machines: Sequence[str]) -> Iterator[GuestUsers]:
    with (world.folder / ASKED).open("a") as file:
        file.writelines(f"{machine}\n" for machine in machines)
    told_in = world.folder / FILE
    text = told_in.read_text() if told_in.exists() else "{}"
    if text == "busy":
        raise Busy("The hypervisor has no time to ask its guests.")
    told = json.loads(text)
    for machine in machines:
        names = told.get(machine)
        yield GuestUsers(machine, datetime.now(UTC), None if names is None else tuple(names))
