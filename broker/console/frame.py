"""What stands around every page of the console: the rooms, what runs, and what is wrong with the broker itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from broker.console.access import Can, staff_only
from broker.selectors import health, operations


@dataclass(frozen=True, slots=True)
class Room:
    """One entry of the navigation."""

    name: str
    """Of its first page, and the first part of its addresses."""
    title: Any
    icon: str
    key: str
    """What "g" and this key go to."""
    group: Any = ""

    @property
    def address(self) -> str:
        return reverse(f"console:{self.name}")


ROOMS = (
    Room("dashboard", _("Dashboard"), "dashboard", "h"),
    Room("desktops", _("Desktops"), "desktops", "d"),
    Room("sessions", _("Sessions"), "screen", "e"),
    Room("pools", _("Pools"), "pool", "p"),
    Room("applications", _("Applications"), "application", "i"),
    Room("schedules", _("Schedules"), "clock", "s"),
    Room("templates", _("Templates"), "template", "t"),
    Room("replication", _("Replication"), "replication", "r"),
    Room("networks", _("Networks"), "network", "n"),
    Room("hypervisors", _("Hypervisors"), "hypervisor", "v"),
    Room("people", _("People"), "people", "u"),
    Room("requests", _("Requests"), "request", "q"),
    Room("client-files", _("Client files"), "download", "c"),
    Room("operations", _("Operations"), "operation", "o", _("What happens")),
    Room("drift", _("Drift"), "drift", "f"),
    Room("audit", _("Audit"), "audit", "a"),
)

BELONGS = {
    "members": "pools", "entitlements": "pools", "owners": "pools", "pushes": "pools",
    "versions": "templates", "copies": "templates", "publications": "templates", "calendars": "schedules",
}  # fmt: skip
"""Parts of the address that are no room of their own."""


def of(request: HttpRequest) -> dict[str, Any]:
    """What `console/frame.html` needs; one statement."""
    address = request.path
    part = address.removeprefix(ROOMS[0].address).partition("/")[0]
    present = BELONGS.get(part, part or ROOMS[0].name)
    can = Can(request.user)
    rooms = [room for room in ROOMS if can.reach(room.address)]
    return {"rooms": rooms, "present_room": present, **pulse_facts()}


def pulse_facts() -> dict[str, Any]:
    broken = [part for part in health.processes() if not part.is_up]
    # While Redis is away nothing is known of the others: one banner says all there is to say.
    redis = [part for part in broken if part.name == "redis"]
    return {"unfinished": operations.unfinished_count(), "broken_parts": redis or broken}


@staff_only
def pulse(request: HttpRequest) -> HttpResponse:
    """The moving parts of the frame alone: how many operations run, and which part of the broker does not."""
    return render(request, "console/_pulse.html", pulse_facts())
