"""What people are told, and in which words. The words are made when they are read: of a kind and its facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from broker.domain.labels import Tone


class Kind(StrEnum):
    REQUEST_ASKED = "request_asked"
    """To the owners of a pool: somebody waits for their word."""
    REQUEST_APPROVED = "request_approved"
    REQUEST_DECLINED = "request_declined"
    DESKTOP_READY = "desktop_ready"
    """To somebody who waited."""
    LEASE_SOON = "lease_soon"
    LEASE_ENDED = "lease_ended"
    DESKTOP_RECLAIMED = "desktop_reclaimed"
    LEASE_OVERDUE = "lease_overdue"
    """To the owners: the lease is over, and the pool takes nothing back by itself."""
    SESSION_IDLE = "session_idle"
    SESSION_DISCONNECTED = "session_disconnected"
    SESSION_DISCONNECTED_KEPT = "session_disconnected_kept"
    """Of a desktop that stays its user's; likewise below."""
    SESSION_LONGEST = "session_longest"
    SESSION_LONGEST_KEPT = "session_longest_kept"
    SESSION_PUSH = "session_push"
    """A newer template version is put on it."""
    DESKTOP_PUSHED = "desktop_pushed"
    DESKTOP_REPLACED = "desktop_replaced"
    """Of a dedicated pool: its user gets another one without asking."""
    PUSH_STOPPED = "push_stopped"
    """To whoever asked for it."""
    SESSION_MESSAGE = "session_message"
    """An administrator's own words."""


@dataclass(frozen=True, slots=True)
class Wording:
    title: str
    sentence: str
    tone: Tone
    icon: str
    act: str = ""
    """The word of the link to where something can be done."""


WORDS: dict[Kind, Wording] = {
    Kind.REQUEST_ASKED: Wording(
        "%(user)s asks for a desktop of %(pool)s",
        "You decide on the requests of this pool.",
        Tone.ATTENTION, "request", "Decide",
    ),
    Kind.REQUEST_APPROVED: Wording(
        "Your request for %(pool)s was approved",
        "You are told when the desktop is ready.",
        Tone.GOOD, "check", "My desktops",
    ),
    Kind.REQUEST_DECLINED: Wording(
        "Your request for %(pool)s was declined",
        "You may ask again at any time.",
        Tone.BAD, "cross", "My desktops",
    ),
    Kind.DESKTOP_READY: Wording(
        "Your desktop of %(pool)s is ready",
        "%(desktop)s waits for you in the portal.",
        Tone.GOOD, "screen", "My desktops",
    ),
    Kind.LEASE_SOON: Wording(
        "%(desktop)s is yours until %(until)s",
        "When it is taken back, all that lies on it is deleted for good. Save what you need elsewhere before %(gone)s.",
        Tone.ATTENTION, "clock", "My desktops",
    ),
    Kind.LEASE_ENDED: Wording(
        "The lease of %(desktop)s is over",
        "It is kept until %(gone)s; then all that lies on it is deleted for good. Save what you need elsewhere now.",
        Tone.ATTENTION, "warning", "My desktops",
    ),
    Kind.DESKTOP_RECLAIMED: Wording(
        "%(desktop)s was taken back",
        "Its lease was over. What lay on it is deleted. You may ask for a fresh desktop at any time.",
        Tone.OFF, "info", "My desktops",
    ),
    Kind.LEASE_OVERDUE: Wording(
        "The lease of %(desktop)s is over, and %(user)s still has it",
        "%(pool)s takes nothing back by itself. Ask %(user)s to release it, or an administrator to reclaim it.",
        Tone.ATTENTION, "warning", "Requests of your pools",
    ),
    Kind.SESSION_IDLE: Wording(
        "%(desktop)s is closed at %(at)s",
        "Nothing was typed or moved in it for a while. Move the mouse in it to keep it open. What runs in it goes on.",
        Tone.ATTENTION, "clock", "My desktops",
    ),
    Kind.SESSION_DISCONNECTED: Wording(
        "%(desktop)s is taken back at %(at)s",
        "You left it a while ago. Open it before then to keep it; otherwise all that lies on it is deleted for good.",
        Tone.ATTENTION, "clock", "My desktops",
    ),
    Kind.SESSION_DISCONNECTED_KEPT: Wording(
        "You are logged off %(desktop)s at %(at)s",
        "You left it a while ago. Open it before then to go on; else it is restarted, and what is not saved is lost.",
        Tone.ATTENTION, "clock", "My desktops",
    ),
    Kind.SESSION_LONGEST: Wording(
        "%(desktop)s is taken back at %(at)s",
        "Sessions there last so long and no longer. Save what you need elsewhere: all that lies on it is deleted.",
        Tone.ATTENTION, "warning", "My desktops",
    ),
    Kind.SESSION_LONGEST_KEPT: Wording(
        "You are logged off %(desktop)s at %(at)s",
        "Sessions there last so long and no longer. It is restarted then: save what you have open.",
        Tone.ATTENTION, "warning", "My desktops",
    ),
    Kind.SESSION_PUSH: Wording(
        "%(desktop)s is taken back at %(at)s",
        "It gets a newer version. Save what you need elsewhere before then: all that lies on it is deleted for good.",
        Tone.ATTENTION, "warning", "My desktops",
    ),
    Kind.DESKTOP_PUSHED: Wording(
        "%(desktop)s was taken back",
        "It gets a newer version. What lay on it is deleted. You may ask for a fresh desktop at any time.",
        Tone.OFF, "info", "My desktops",
    ),
    Kind.DESKTOP_REPLACED: Wording(
        "%(desktop)s is replaced",
        "You get a fresh desktop with a newer version as soon as it is ready. What lay on the old one is deleted.",
        Tone.OFF, "info", "My desktops",
    ),
    Kind.PUSH_STOPPED: Wording(
        "The push of %(version)s to %(pool)s stopped",
        "Desktops failed on it, one after the other. The pool builds from the version before; its page says why.",
        Tone.BAD, "warning", "Its pool",
    ),
    Kind.SESSION_MESSAGE: Wording(
        "A message about %(desktop)s",
        "It comes from those who look after your desktops.",
        Tone.ATTENTION, "bell", "My desktops",
    ),
}  # fmt: skip

ON_SCREEN = frozenset(kind for kind in Kind if kind.startswith("session_"))
"""What is shown on the desktop's own page too, while it is open."""

KEPT = {
    Kind.LEASE_SOON: "After that it stays as it is until its owners decide.",
    Kind.LEASE_ENDED: "It stays as it is until its owners decide. Release it if you need it no longer.",
}
"""Instead of the sentence where a pool takes nothing back by itself: `gone` is no fact then."""
RENEW = "You can renew it in the portal."
"""Said beside it where that is so: `may_renew` is a fact then."""


def title_of(kind: str) -> str:
    """With `%(name)s` for each fact, so that it can be translated."""
    return WORDS[Kind(kind)].title


def sentences_of(kind: str, facts: Mapping[str, object]) -> list[str]:
    """With `%(name)s` for each fact, so that they can be translated. What somebody wrote is not among them."""
    known = Kind(kind)
    kept = KEPT.get(known) if "gone" not in facts else None
    return [kept or WORDS[known].sentence, *([RENEW] if facts.get("may_renew") else [])]
