"""What is asked before something is done to a desktop, and what is said afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


@dataclass(frozen=True, slots=True)
class Question:
    title: _StrPromise
    verb: _StrPromise
    done: _StrPromise
    sentences: tuple[_StrPromise, ...] = ()
    is_harmless: bool = False
    menu: _StrPromise | str = ""
    """The word in the tile's menu."""
    icon: str = "power"


POWER: dict[str, Question] = {
    "on": Question(
        _("Switch %(name)s on?"), _("Switch on"), _("%(name)s is being started."),
        is_harmless=True, menu=_("Switch on"), icon="play",
    ),
    "resume": Question(
        _("Wake %(name)s up?"), _("Wake up"), _("%(name)s is waking up."),
        is_harmless=True, menu=_("Wake up"), icon="play",
    ),
    "reboot": Question(
        _("Restart %(name)s?"), _("Restart"), _("%(name)s is restarting."),
        (_("Programs on it are closed. What you have not saved may be lost."),
         _("Everything you saved stays, and the desktop stays yours.")),
        menu=_("Restart"), icon="refresh",
    ),
    "shutdown": Question(
        _("Shut %(name)s down?"), _("Shut down"), _("%(name)s is shutting down."),
        (_("Programs on it are closed. What you have not saved may be lost."),
         _("The desktop stays yours; open it again to start it.")),
        menu=_("Shut down"), icon="power",
    ),
    "reset": Question(
        _("Reset %(name)s?"), _("Reset"), _("%(name)s was reset and is starting again."),
        (_("This is the reset button: everything you have not saved is lost, and files may be damaged."),
         _("Use it only if the desktop no longer reacts; otherwise restart it.")),
        menu=_("Reset"), icon="warning",
    ),
    "off": Question(
        _("Cut the power of %(name)s?"), _("Power off"), _("%(name)s is being switched off."),
        (_("This pulls the plug: everything you have not saved is lost, and files may be damaged."),
         _("Use it only if shutting down does not help. The desktop stays yours.")),
        menu=_("Power off"), icon="power",
    ),
}  # fmt: skip

RELEASE = Question(
    _("Release %(name)s?"), _("Release and delete my files"), _("%(name)s was released."),
    (_("You give the desktop back. Everything on it is deleted for good: also the files that you saved there."),
     _("Copy what you need elsewhere first. You can ask for a fresh desktop at any time.")),
    menu=_("Release"), icon="trash",
)  # fmt: skip

LEAVE = Question(
    _("Leave %(name)s?"), _("Give my seat back"), _("Your seat on %(name)s was given back."),
    (_("What you have open there is closed or lost. Others are on it too; nothing of theirs changes."),
     _("Save what you need elsewhere first. You can ask for a seat again at any time.")),
    menu=_("Leave"), icon="sign-out",
)  # fmt: skip
"""Instead of `RELEASE` on a session host."""
