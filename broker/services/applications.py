"""Published applications: one program of a pool's desktops, entitled and opened like a desktop."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from broker.domain import applications as rules
from broker.models import Application, Pool
from broker.services import audit, nudges, screens
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import alter, locked, refusing_duplicates

NAME_TAKEN = "There is already an application of that name."
PART_LENGTH = 200


def publish(
    *,
    actor: User,
    pool_id: UUID,
    name: str,
    command: str,
    arguments: str = "",
    folder: str = "",
    description: str = "",
    icon: str = Application.Icon.APPLICATION,
    guest: str = Application.Guest.LINUX,
    is_enabled: bool = True,
) -> Application:
    """Offer a program of the pool's desktops by itself; nobody is entitled to it yet.

    Raises `Missing` for an unknown pool, `Forbidden`, `Invalid`; a pool whose desktops are shown by VNC has none.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        pool = locked(Pool.objects.all(), pool_id, "pool")
        application = Application(pool=pool)
        intake = Intake()
        values = _cleaned(
            intake, application, name=name, command=command, arguments=arguments, folder=folder,
            description=description, icon=icon, guest=guest, is_enabled=is_enabled,
        )  # fmt: skip
        if pool.protocol != Pool.Protocol.RDP:
            intake.faults["pool"] = f"{pool} shows the machine's screen (VNC). Choose a pool of the protocol RDP."
        intake.refuse_faults("The application was not published.")
        for field, value in values.items():
            setattr(application, field, value)
        application.save(force_insert=True)
        changes = {field: [None, value] for field, value in values.items()}
        audit.record(actor=actor, action="application.publish", subject=application, changes=changes)
        nudges.announce("applications")
    return application


def change(*, actor: User, application_id: UUID, **wanted: Any) -> Application:
    """All that `publish` takes but the pool, each of it. What is open goes on as it began; where it is not offered any
    more it closes.
    Raises `Missing`, `Forbidden`, `Invalid`."""
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        application = locked(Application.objects.all(), application_id, "application")
        intake = Intake()
        values = _cleaned(intake, application, **wanted)
        intake.refuse_faults("The application was not changed.")
        if changes := alter(application, values):
            audit.record(actor=actor, action="application.change", subject=application, changes=changes)
            screens.recheck()
            nudges.announce("applications")
    return application


def withdraw(*, actor: User, application_id: UUID) -> None:
    """Offer it no more. Its tiles and entitlements go, and what shows it closes; desktops stay with those who have
    them. Raises `Missing`, `Forbidden`."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        application = locked(Application.objects.all(), application_id, "application")
        audit.record(actor=actor, action="application.withdraw", subject=application)
        application.delete()
        screens.recheck()
        nudges.announce("applications")


def _cleaned(
    intake: Intake,
    application: Application,
    *,
    name: str,
    command: str,
    arguments: str,
    folder: str,
    description: str,
    icon: str,
    guest: str,
    is_enabled: bool,
) -> dict[str, Any]:
    others = Application.objects.exclude(pk=application.pk)
    parts = {"command": command, "arguments": arguments, "folder": folder}
    cleaned = {field: intake.line(field, text, length=PART_LENGTH) for field, text in parts.items()}
    if not cleaned["command"]:
        intake.faults["command"] = "Say what is to be started."
    if len(f"{cleaned['command']} {cleaned['arguments']}") > rules.LONGEST:
        intake.faults.setdefault(
            "arguments", f"Command and arguments have {rules.LONGEST} characters together at most."
        )
    return cleaned | {
        "name": intake.free_name("name", intake.name("name", name), others, "application"),
        "description": intake.text("description", description),
        "icon": intake.choice("icon", icon, Application.Icon),
        "guest": intake.choice("guest", guest, Application.Guest),
        "is_enabled": is_enabled,
    }
