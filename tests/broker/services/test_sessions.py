"""Sessions on their rows: begun with a stream, idle, left, told of by the guest, ended by timers, never wrongly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain.lifecycle import State as Desk
from broker.models import (
    Assignment,
    AuditEntry,
    Desktop,
    DesktopSession,
    Event,
    Notice,
    Operation,
    Pool,
    ScreenSession,
)
from broker.services import brokering, clock, nudges, pools, presence, screens, session_timers, sessions
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from connectors.presence import GuestUsers
from tests.broker.plant import Plant
from tests.broker.portal.cast import Estate
from tests.doubles.instant import presence as guests

MINUTE = timedelta(minutes=1)


def admission(user: User, desktop: Desktop) -> screens.Admission:
    return screens.Admission(UUID(int=0), desktop.pk, desktop.epoch, user.pk, "vnc")


def open_stream(user: User, desktop: Desktop) -> UUID:
    desktop.refresh_from_db()
    return screens.start_session(admission=admission(user, desktop), address="192.0.2.7")


def close_stream(stream: UUID) -> None:
    screens.end_session(heartbeat=screens.Heartbeat(stream, 0, 0), reason="The browser left.")


def session_on(desktop: Desktop) -> DesktopSession:
    return DesktopSession.objects.select_related("desktop__pool", "user").get(desktop=desktop, ended_at=None)


def pass_by(desktop: Desktop, span: timedelta) -> None:
    """Let time pass: every moment of the rows moves back. Relays keep their streams alive meanwhile."""
    for model, names in (
        (DesktopSession, ("began_at", "state_since", "input_at", "closed_at", "guest_at", "asked_at", "warned_for",
                          "warned_at", "next_at")),
        (ScreenSession, ("started_at", "input_at")),
    ):  # fmt: skip
        for row in model.objects.filter(desktop=desktop, ended_at=None):
            moved = {name: at - span for name in names if isinstance(at := getattr(row, name), datetime)}
            model.objects.filter(pk=row.pk).update(**moved)


def turn() -> None:
    """The clock looks, and a worker does what is due."""
    if session_timers.due():
        session_timers.look()


def told(user: User) -> list[str]:
    return list(Notice.objects.filter(user=user).order_by("created_at").values_list("kind", flat=True))


def say(desktop: Desktop, names: tuple[str, ...] | None, began_at: datetime | None = None) -> None:
    """The guest is asked, and answers."""
    machine = desktop.machine_id
    DesktopSession.objects.filter(desktop=desktop).update(asked_at=None)
    asked = sessions.to_ask(desktop.hypervisor_id, timezone.now())
    sessions.told(asked, [GuestUsers(machine, began_at or timezone.now(), names)], timezone.now())


@pytest.fixture
def timed(house: Estate) -> Estate:
    """Idle for 30 minutes: disconnected; disconnected for 60: logged off."""
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, idle_min=30, disconnected_min=60)
    house.pool.refresh_from_db()
    return house


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_begins_a_session_and_a_second_one_belongs_to_it(house: Estate) -> None:
    first = open_stream(house.alice, house.desktop)
    session = session_on(house.desktop)
    assert (session.user, session.state, session.address, session.client) == (
        house.alice, "connected", "192.0.2.7", "browser",
    )  # fmt: skip
    second = open_stream(house.alice, house.desktop)
    close_stream(first)
    assert session_on(house.desktop) == session
    assert session_on(house.desktop).state == "connected"
    close_stream(second)
    left = session_on(house.desktop)
    assert (left.pk, left.state) == (session.pk, "disconnected")
    assert left.closed_at is not None


def test_who_comes_back_goes_on_with_the_session_they_left(house: Estate) -> None:
    close_stream(open_stream(house.alice, house.desktop))
    left = session_on(house.desktop)
    open_stream(house.alice, house.desktop)
    back = session_on(house.desktop)
    assert (back.pk, back.state, back.closed_at) == (left.pk, "connected", None)


def test_without_keys_and_mouse_a_session_is_idle_and_with_one_it_is_not(house: Estate) -> None:
    stream = open_stream(house.alice, house.desktop)
    pass_by(house.desktop, 6 * MINUTE)
    turn()
    assert session_on(house.desktop).state == "idle"
    screens.beat([screens.Heartbeat(stream, 0, 0, idle_s=3)])
    pass_by(house.desktop, timedelta(seconds=11))
    turn()
    assert session_on(house.desktop).state == "connected"


def test_a_session_in_use_is_not_looked_at_before_it_may_be_idle(house: Estate) -> None:
    open_stream(house.alice, house.desktop)
    pass_by(house.desktop, 4 * MINUTE)
    assert not session_timers.due()
    pass_by(house.desktop, MINUTE)
    assert session_timers.due()


def test_a_relay_that_is_gone_leaves_a_session_without_a_stream(house: Estate) -> None:
    open_stream(house.alice, house.desktop)
    ScreenSession.objects.update(seen_at=timezone.now() - timedelta(seconds=screens.LOST_S + 1))
    screens.end_lost()
    turn()
    assert session_on(house.desktop).state == "disconnected"


def test_releasing_the_desktop_ends_its_session_with_it(house: Estate) -> None:
    open_stream(house.alice, house.desktop)
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    session = DesktopSession.objects.get()
    assert (session.state, session.end_reason, session.next_at) == ("logged_off", "Released.", None)


def test_a_stream_of_an_epoch_that_is_over_begins_no_session(house: Estate) -> None:
    late = admission(house.alice, house.desktop)
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    screens.start_session(admission=late, address=None)
    assert not DesktopSession.objects.exists()


# --- what guests say -------------------------------------------------------------------------------------------------


def test_only_guests_with_a_session_are_asked_and_not_more_often_than_needed(house: Estate) -> None:
    house.make()
    assert sessions.to_ask(house.hypervisor.pk, timezone.now()) == {}
    open_stream(house.alice, house.desktop)
    session = session_on(house.desktop)
    assert sessions.to_ask(house.hypervisor.pk, timezone.now()) == {house.desktop.machine_id: [session.pk]}
    sessions.told({house.desktop.machine_id: [session.pk]}, [], timezone.now())
    assert sessions.to_ask(house.hypervisor.pk, timezone.now()) == {}
    assert sessions.to_ask(house.hypervisor.pk, timezone.now() + sessions.ASK_EVERY) != {}


def test_a_floating_desktop_whose_user_logged_off_is_released_and_recycled(house: Estate) -> None:
    stream = open_stream(house.alice, house.desktop)
    say(house.desktop, ("alice",))
    assert session_on(house.desktop).guest_user == "alice"
    close_stream(stream)
    say(house.desktop, ())
    turn()
    assert session_on(house.desktop).state == "disconnected"
    say(house.desktop, ())
    turn()
    session = DesktopSession.objects.get()
    assert (session.state, session.end_reason) == ("logged_off", "Its user logged off.")
    house.desktop.refresh_from_db()
    assert house.desktop.state == Desk.RECYCLING
    assert house.desktop.clean_epoch != house.desktop.epoch
    assert Operation.objects.get(desktop=house.desktop).kind == "recycle"
    assert not Assignment.objects.filter(user=house.alice, until=None).exists()


@pytest.mark.parametrize("names", [None, ()])
def test_a_guest_that_could_not_tell_or_never_showed_anybody_releases_nothing(
    house: Estate, names: tuple[str, ...] | None
) -> None:
    stream = open_stream(house.alice, house.desktop)
    if names is None:
        say(house.desktop, ("alice",))
    close_stream(stream)
    for _ in range(5):
        say(house.desktop, names)
        turn()
    assert session_on(house.desktop).state == "disconnected"
    assert Assignment.objects.filter(user=house.alice, until=None).exists()


def test_who_opens_it_again_after_logging_off_keeps_it(house: Estate) -> None:
    """The guest said twice that nobody is there, and before the broker acts a stream opens."""
    stream = open_stream(house.alice, house.desktop)
    say(house.desktop, ("alice",))
    close_stream(stream)
    say(house.desktop, ())
    say(house.desktop, ())
    session = session_on(house.desktop)
    assert session.state == "logged_off"
    open_stream(house.alice, house.desktop)
    assert session_timers.run(session.pk) is None
    turn()
    assert session_on(house.desktop).state == "connected"
    assert Assignment.objects.filter(user=house.alice, until=None).exists()


def test_a_dedicated_desktop_whose_user_logged_off_stays_theirs(house: Estate) -> None:
    Pool.objects.update(kind=Pool.Kind.DEDICATED)
    stream = open_stream(house.alice, house.desktop)
    say(house.desktop, ("alice",))
    close_stream(stream)
    say(house.desktop, ())
    say(house.desktop, ())
    turn()
    assert DesktopSession.objects.get().end_reason == "The user logged off."
    assert Assignment.objects.filter(user=house.alice, until=None).exists()
    assert not Operation.objects.exists()


# --- timers ----------------------------------------------------------------------------------------------------------


def test_without_timers_nothing_ends_however_long_it_lasts(house: Estate) -> None:
    close_stream(open_stream(house.alice, house.desktop))
    pass_by(house.desktop, timedelta(days=80))
    turn()
    assert session_on(house.desktop).state == "disconnected"
    assert told(house.alice) == []


def test_an_idle_session_is_told_disconnected_then_told_and_logged_off(timed: Estate) -> None:
    stream = open_stream(timed.alice, timed.desktop)
    pass_by(timed.desktop, 25 * MINUTE)
    turn()
    assert told(timed.alice) == ["session_idle"]
    turn()
    pass_by(timed.desktop, 5 * MINUTE)
    turn()
    row = ScreenSession.objects.get(pk=stream)
    assert (row.end_reason, session_on(timed.desktop).state) == (screens.LEFT_ALONE, "disconnected")
    pass_by(timed.desktop, 55 * MINUTE)
    turn()
    turn()
    assert told(timed.alice) == ["session_idle", "session_disconnected"]
    pass_by(timed.desktop, 5 * MINUTE)
    turn()
    session = DesktopSession.objects.get()
    assert (session.state, session.end_reason) == ("logged_off", "Nobody came back to it in time.")
    timed.desktop.refresh_from_db()
    assert timed.desktop.state == Desk.RECYCLING
    entry = AuditEntry.objects.get(action="desktop.reclaim")
    assert (entry.actor, entry.actor_name) == (None, "deskyard")
    assert Event.objects.filter(kind="session.disconnected").count() == 1


def test_nobody_is_ended_who_was_not_told_for_as_long_as_the_warning_lasts(timed: Estate) -> None:
    """No clock ran for hours."""
    close_stream(open_stream(timed.alice, timed.desktop))
    pass_by(timed.desktop, 600 * MINUTE)
    turn()
    turn()
    assert told(timed.alice) == ["session_disconnected"]
    assert session_on(timed.desktop).state == "disconnected"
    pass_by(timed.desktop, 5 * MINUTE)
    turn()
    assert DesktopSession.objects.get().ended_at is not None


def test_who_moves_the_mouse_after_the_warning_stays_and_is_told_anew_the_next_time(timed: Estate) -> None:
    stream = open_stream(timed.alice, timed.desktop)
    pass_by(timed.desktop, 25 * MINUTE)
    turn()
    screens.beat([screens.Heartbeat(stream, 0, 0, idle_s=1)])
    pass_by(timed.desktop, 6 * MINUTE)
    turn()
    assert ScreenSession.objects.get(pk=stream).ended_at is None
    assert told(timed.alice) == ["session_idle"]
    pass_by(timed.desktop, 20 * MINUTE)
    turn()
    assert told(timed.alice) == ["session_idle", "session_idle"]
    assert ScreenSession.objects.get(pk=stream).ended_at is None


def test_who_comes_back_before_the_end_keeps_the_desktop(timed: Estate) -> None:
    """Due, found due, and then its user is faster than the worker."""
    close_stream(open_stream(timed.alice, timed.desktop))
    pass_by(timed.desktop, 55 * MINUTE)
    turn()
    pass_by(timed.desktop, 5 * MINUTE)
    session = session_on(timed.desktop)
    open_stream(timed.alice, timed.desktop)
    assert session_timers.run(session.pk) is None
    turn()
    assert session_on(timed.desktop).state == "connected"
    assert Assignment.objects.filter(user=timed.alice, until=None).exists()


def test_the_longest_session_ends_whatever_is_done_in_it(house: Estate) -> None:
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, longest_min=120)
    stream = open_stream(house.alice, house.desktop)
    pass_by(house.desktop, 116 * MINUTE)
    screens.beat([screens.Heartbeat(stream, 0, 0, idle_s=1)])
    turn()
    assert told(house.alice) == ["session_longest"]
    pass_by(house.desktop, 5 * MINUTE)
    screens.beat([screens.Heartbeat(stream, 0, 0, idle_s=1)])
    turn()
    assert DesktopSession.objects.get().end_reason.startswith("It lasted as long")
    house.desktop.refresh_from_db()
    assert house.desktop.state == Desk.RECYCLING


def test_a_dedicated_desktop_is_restarted_by_the_timer_and_stays_its_users(timed: Estate) -> None:
    Pool.objects.update(kind=Pool.Kind.DEDICATED)
    close_stream(open_stream(timed.alice, timed.desktop))
    pass_by(timed.desktop, 56 * MINUTE)
    turn()
    assert told(timed.alice) == ["session_disconnected_kept"]
    pass_by(timed.desktop, 5 * MINUTE)
    turn()
    order = Operation.objects.get(desktop=timed.desktop)
    assert (order.kind, order.parameters["action"], order.requested_by) == ("power", "reboot", None)
    assert DesktopSession.objects.get().state == "logged_off"
    assert Assignment.objects.filter(user=timed.alice, until=None).exists()
    turn()
    assert Operation.objects.count() == 1


def test_what_cannot_be_ended_now_is_ended_later(timed: Estate) -> None:
    close_stream(open_stream(timed.alice, timed.desktop))
    Desktop.objects.update(is_moving=True)
    pass_by(timed.desktop, 56 * MINUTE)
    turn()
    pass_by(timed.desktop, 5 * MINUTE)
    turn()
    assert session_on(timed.desktop).state == "disconnected"
    assert not session_timers.due()
    Desktop.objects.update(is_moving=False)
    pass_by(timed.desktop, 2 * MINUTE)
    turn()
    assert DesktopSession.objects.get().ended_at is not None


def test_new_timers_hold_for_sessions_that_go_on(house: Estate) -> None:
    close_stream(open_stream(house.alice, house.desktop))
    pass_by(house.desktop, 50 * MINUTE)
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, disconnected_min=30)
    turn()
    assert told(house.alice) == ["session_disconnected"]


@pytest.mark.parametrize("name", ["idle_min", "disconnected_min", "longest_min"])
def test_a_timer_of_no_time_is_refused(house: Estate, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, **{name: 0})  # type: ignore[arg-type]
    assert name in refused.value.fields


def test_the_clock_hints_at_sessions_only_if_one_is_due(house: Estate, hints: Callable[..., Any]) -> None:
    open_stream(house.alice, house.desktop)
    with hints() as tasks:
        clock.tick()
    assert (nudges.SESSIONS, "due") not in tasks
    pass_by(house.desktop, 6 * MINUTE)
    with hints() as tasks:
        clock.tick()
    assert (nudges.SESSIONS, "due") in tasks


def test_a_look_at_fifty_sessions_takes_as_many_statements_as_at_one(
    house: Estate,
) -> None:
    desktops = [house.desktop]
    open_stream(house.alice, house.desktop)
    for number in range(49):
        user = User.objects.create_user(f"u{number}")
        desktops.append(house.give(user))
        open_stream(user, desktops[-1])
    for desktop in desktops:
        pass_by(desktop, 6 * MINUTE)
    with CaptureQueriesContext(connection) as found:
        assert session_timers.look() == 50
    assert len([one for one in found if "SAVEPOINT" not in one["sql"]]) == 3
    assert set(DesktopSession.objects.values_list("state", flat=True)) == {"idle"}


# --- people ----------------------------------------------------------------------------------------------------------


def test_an_administrator_disconnects_logs_off_and_tells(house: Estate) -> None:
    stream = open_stream(house.alice, house.desktop)
    session = session_on(house.desktop)
    presence.send_notice(actor=house.dana, session_id=session.pk, words="We restart at noon.")
    notice = Notice.objects.get(user=house.alice)
    assert (notice.kind, notice.facts["words"]) == ("session_message", "We restart at noon.")
    presence.disconnect(actor=house.dana, session_id=session.pk)
    assert ScreenSession.objects.get(pk=stream).end_reason == presence.ENDED_BY_STAFF
    assert session_on(house.desktop).state == "disconnected"
    with pytest.raises(Clash, match="Nobody is connected"):
        presence.disconnect(actor=house.dana, session_id=session.pk)
    order = presence.log_off(actor=house.dana, session_id=session.pk)
    assert order is not None
    assert order.kind == "recycle"
    with pytest.raises(Clash, match="over"):
        presence.log_off(actor=house.dana, session_id=session.pk)
    actions = {"session.notice", "session.disconnect", "session.log_off"}
    assert actions <= set(AuditEntry.objects.filter(actor=house.dana).values_list("action", flat=True))


def test_a_stranger_learns_nothing_of_a_session_and_its_user_may_end_it(house: Estate) -> None:
    open_stream(house.alice, house.desktop)
    session = session_on(house.desktop)
    for end in (presence.disconnect, presence.log_off):
        with pytest.raises(Missing):
            end(actor=house.bob, session_id=session.pk)
    with pytest.raises(Forbidden):
        presence.send_notice(actor=house.alice, session_id=session.pk, words="Hello")
    presence.disconnect(actor=house.alice, session_id=session.pk)
    assert session_on(house.desktop).state == "disconnected"


def test_an_empty_notice_is_not_sent(house: Estate) -> None:
    open_stream(house.alice, house.desktop)
    with pytest.raises(Invalid):
        presence.send_notice(actor=house.dana, session_id=session_on(house.desktop).pk, words="  ")
    assert not Notice.objects.exists()


# --- the inventory asks guests ---------------------------------------------------------------------------------------


def at_work(office: Plant) -> tuple[Desktop, UUID]:
    """Alice has a desktop of the office's, with a screen open."""
    office.ask(office.alice)
    desktop = Desktop.objects.get(assignments__user=office.alice, assignments__until=None)
    return desktop, open_stream(office.alice, desktop)


def test_the_inventory_asks_the_guests_that_somebody_is_on_and_no_others(office: Plant) -> None:
    office.look()
    assert guests.asked(office.world()) == []
    desktop, _ = at_work(office)
    guests.tell(office.world(), desktop.machine_id, "alice", "root")
    office.look()
    assert guests.asked(office.world()) == [desktop.machine_id]
    assert session_on(desktop).guest_user == "alice, root"
    office.look()
    assert len(guests.asked(office.world())) == 1, "asked a moment ago"


def test_who_logs_off_in_the_guest_gives_the_desktop_back_and_the_next_gets_a_fresh_disk(office: Plant) -> None:
    desktop, stream = at_work(office)
    disks = desktop.disks
    guests.tell(office.world(), desktop.machine_id, "alice")
    office.look()
    close_stream(stream)
    guests.tell(office.world(), desktop.machine_id)
    for _ in range(2):
        DesktopSession.objects.update(asked_at=None)
        office.look()
    turn()
    office.until(lambda: Desktop.objects.get(pk=desktop.pk).state == Desk.READY, "it is ready again")
    desktop.refresh_from_db()
    assert desktop.clean_epoch == desktop.epoch
    assert desktop.disks != disks


def test_a_hypervisor_that_has_no_time_to_ask_loses_nobody_and_is_not_lost(office: Plant) -> None:
    desktop, stream = at_work(office)
    guests.tell(office.world(), desktop.machine_id, "alice")
    office.look()
    close_stream(stream)
    guests.refuse(office.world())
    for _ in range(3):
        DesktopSession.objects.update(asked_at=None)
        office.look()
        turn()
    assert office.hypervisor().status == "up"
    assert session_on(desktop).state == "disconnected"
