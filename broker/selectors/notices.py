"""What a person has been told, and what of theirs waits for somebody's word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Count, Exists, F, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext

from broker.domain import notices
from broker.domain.notices import Wording
from broker.models import Notice, Preferences, Request
from broker.selectors.pools import ownerships_of

FRESH = timedelta(minutes=10)
"""For so long a notice about a desktop is said on the desktop's own page, too."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the portal's head shows to a person, and what they have chosen."""

    unread: int
    to_decide: int
    is_owner: bool
    wants_mail: bool
    opens_single: bool
    opens_natively: bool


def head_of(user: User) -> Head:
    """In one statement."""
    mine = ownerships_of(user)
    waiting = Request.objects.filter(Exists(mine.filter(pool=OuterRef("pool"))), state=Request.State.WAITING)
    unread = Notice.objects.filter(user=user, read_at=None)
    chosen = Preferences.objects.filter(user=OuterRef("pk"))
    row = (
        User.objects.filter(pk=user.pk)
        .annotate(
            unread=_count(unread.filter(user=OuterRef("pk")), "user"),
            to_decide=_count(waiting.exclude(user=user).annotate(all=F("state")), "all"),
            is_owner=Exists(mine),
            wants_mail=Subquery(chosen.values("wants_mail")),
            opens_single=Subquery(chosen.values("opens_single")),
            opens_natively=Subquery(chosen.values("opens_natively")),
        )
        .values_list("unread", "to_decide", "is_owner", "wants_mail", "opens_single", "opens_natively")
        .get()
    )
    return Head(row[0], row[1], bool(row[2]), row[3] is not False, bool(row[4]), bool(row[5]))


def _count(rows: QuerySet[Notice] | QuerySet[Request], of: str) -> Coalesce:
    counted = rows.order_by().values(of).annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)


def notices_of(user: User) -> QuerySet[Notice]:
    """Newest first."""
    return Notice.objects.filter(user=user)


def wants_mail(user: User) -> bool:
    """Whether this person has an address and has not switched mail off. Needs `preferences` selected."""
    chosen: Preferences | None = getattr(user, "preferences", None)
    return user.is_active and bool(user.email) and (chosen is None or chosen.wants_mail)


@dataclass(frozen=True, slots=True)
class Told:
    """A notice with its words, as it is shown."""

    notice: Notice
    wording: Wording
    title: str
    sentences: list[str]
    words: str
    """What somebody wrote to it."""

    @property
    def in_one(self) -> str:
        """For where there is one line only."""
        return f"{self.title}. {self.words or ' '.join(self.sentences)}"


def just_told(user: User, desktop_id: UUID) -> list[Told]:
    """Unread, of the last minutes, and about a desktop that its user has open now; the oldest first."""
    since = timezone.now() - FRESH
    rows = Notice.objects.filter(
        user=user, desktop=desktop_id, kind__in=notices.ON_SCREEN, read_at=None, created_at__gte=since
    )
    return [told(row) for row in rows.order_by("created_at")]


def told(notice: Notice) -> Told:
    title, sentences = notices.title_of(notice.kind), notices.sentences_of(notice.kind, notice.facts)
    return Told(
        notice=notice,
        wording=notices.WORDS[notices.Kind(notice.kind)],
        title=gettext(title) % notice.facts,
        sentences=[gettext(sentence) % notice.facts for sentence in sentences],
        words=str(notice.facts.get("words", "")),
    )
