"""A person's open screens, and on which device each of them is."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db.models import OuterRef, Subquery
from django.utils.translation import gettext as _

from broker.models import Client, Device, ScreenSession


@dataclass(frozen=True, slots=True)
class OpenScreen:
    session: ScreenSession
    device: str
    is_here: bool
    """In the browser that asks."""


def screens_of(user: User, here: str = "") -> list[OpenScreen]:
    """Open screens, the newest first; one statement. `here`: the hash of the session's key that asks."""
    device = Device.objects.filter(session_key=OuterRef("session_key"))
    rows = (
        ScreenSession.objects.filter(user=user, ended_at=None)
        .select_related("desktop__pool")
        .annotate(device=Subquery(device.values("words")))
    )
    return [
        OpenScreen(
            session=row,
            device=_device(row, row.device),
            is_here=bool(here) and row.session_key == here and row.client != Client.NATIVE,
        )
        for row in rows
    ]


def _device(row: ScreenSession, browser: str | None) -> str:
    if row.client == Client.NATIVE:
        return _("Remote Viewer") if row.protocol == "vnc" else _("the Remote Desktop app")
    return _("a program with a token") if row.token_id else browser or _("another browser")
