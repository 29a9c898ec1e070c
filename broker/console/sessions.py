"""Sessions: who is on which desktop, and the end of that."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from broker.console.access import Right, actor_of, needs, staff_only
from broker.console.answers import Question, ask_first, came_from, typed, typed_uuid
from broker.console.lists import Column, Listing
from broker.domain.labels import session_label
from broker.domain.sessions import State
from broker.models import DesktopSession, Pool
from broker.selectors import sessions as selectors
from broker.services import presence

LIST = Listing(
    "sessions",
    Column("user", gettext_lazy("User"), lambda row: row.user.username, ("user__username",)),
    Column("desktop", gettext_lazy("Desktop"), lambda row: row.desktop.name, ("desktop__name",)),
    Column("pool", gettext_lazy("Pool"), lambda row: row.desktop.pool.name, ("desktop__pool__name", "desktop__name")),
    Column("state", gettext_lazy("State"), lambda row: row.state, ("state",)),
    Column("since", gettext_lazy("Since"), lambda row: row.state_since, ("state_since",), begins_down=True),
    Column("began", gettext_lazy("Began"), lambda row: row.began_at, ("began_at",), begins_down=True),
    Column("address", gettext_lazy("From"), lambda row: row.address, ("address",)),
    Column("client", gettext_lazy("With"), lambda row: row.client, ("client",)),
    Column("device", gettext_lazy("Device"), lambda row: row.device),
    Column("guest", gettext_lazy("Logged on as"), lambda row: row.guest_user),
    Column("last-input", gettext_lazy("Last input"), lambda row: row.input_at, ("input_at",), begins_down=True),
    Column("ended", gettext_lazy("Ended"), lambda row: row.ended_at),
    Column("reason", gettext_lazy("Reason"), lambda row: row.end_reason),
    Column("id", gettext_lazy("Id"), lambda row: row.pk),
)
STATES = [
    (selectors.OPEN, gettext_lazy("Not over")),
    *((state.value, gettext_lazy(session_label(state.value).text)) for state in State),
    ("all", gettext_lazy("All")),
]


@staff_only
def list_(request: HttpRequest) -> HttpResponse:
    state = typed(request, "state") or selectors.OPEN
    pool, text = typed_uuid(request, "pool"), typed(request, "q")
    rows = selectors.named(selectors.in_state(selectors.sessions(), state), text)
    if pool:
        rows = rows.filter(desktop__pool=pool)
    context = {"state": state, "states": STATES, "pools": Pool.objects.only("name"), "pool": pool, "text": text}
    return LIST.answer(request, "console/sessions/list.html", rows, context)


def _session(session_id: UUID) -> DesktopSession:
    return get_object_or_404(DesktopSession.objects.select_related("user", "desktop__pool"), pk=session_id)


def _back(request: HttpRequest) -> str:
    return came_from(request, reverse("console:sessions"))


@needs(Right.SERVE)
def disconnect(request: HttpRequest, session_id: UUID) -> HttpResponse:
    session = _session(session_id)
    question = Question(
        title=_("Disconnect %(user)s from %(desktop)s?") % {"user": session.user, "desktop": session.desktop},
        verb=_("Disconnect"),
        back=reverse("console:sessions"),
        sentences=[_("The screen closes for them. What runs on the desktop goes on, and they may open it again.")],
        is_harmless=True,
    )

    def do() -> str:
        presence.disconnect(actor=actor_of(request), session_id=session_id)
        return _("%s was disconnected.") % session.user

    return ask_first(request, question, do, _back(request))


@needs(Right.SERVE)
def log_off(request: HttpRequest, session_id: UUID) -> HttpResponse:
    session = _session(session_id)
    pool = session.desktop.pool
    floating = _("The desktop is taken back and gets a fresh disk: all that lies on it is lost.")
    dedicated = _("The desktop is restarted: what they have not saved is lost. It stays theirs.")
    shared = _("Their seat is given back, and their screens close. The others on it go on.")
    loses = shared if pool.is_shared else dedicated if pool.is_dedicated else floating
    question = Question(
        title=_("Log %(user)s off %(desktop)s?") % {"user": session.user, "desktop": session.desktop},
        verb=_("Log off"),
        back=reverse("console:sessions"),
        sentences=[loses],
    )

    def do() -> str:
        presence.log_off(actor=actor_of(request), session_id=session_id)
        return _("%s was logged off.") % session.user

    return ask_first(request, question, do, _back(request))


@needs(Right.SERVE)
def send_notice(request: HttpRequest, session_id: UUID) -> HttpResponse:
    session = _session(session_id)
    question = Question(
        title=_("Tell %s something") % session.user,
        verb=_("Send"),
        back=reverse("console:sessions"),
        sentences=[_("They read it in the portal, and on the screen of %s while it is open.") % session.desktop],
        note=_("What you want to tell"),
        is_harmless=True,
    )

    def do() -> str:
        presence.send_notice(actor=actor_of(request), session_id=session_id, words=request.POST.get("note", ""))
        return _("%s was told.") % session.user

    return ask_first(request, question, do, _back(request))
