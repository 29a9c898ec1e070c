"""Seats on session hosts: who sits where, who waits, and what ends with whom. The crowds are in `test_races.py`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain.lifecycle import LIVE, State
from broker.models import (
    Assignment,
    AuditEntry,
    Desktop,
    DesktopSession,
    Entitlement,
    Event,
    Host,
    Hypervisor,
    Machine,
    Notice,
    Operation,
    Pool,
    Push,
    Request,
    ScreenSession,
    TemplateCopy,
    TemplateVersion,
    Ticket,
)
from broker.services import (
    brokering,
    desktops,
    drift,
    entitlements,
    failovers,
    leases,
    people,
    pools,
    power,
    presence,
    pushes,
    reconcile,
    screens,
    session_timers,
    sessions,
)
from broker.services.errors import Clash, Invalid, Missing
from connectors.presence import GuestUsers
from tests.broker.plant import Plant
from tests.broker.portal.cast import Estate

MINUTE = timedelta(minutes=1)


@pytest.fixture
def hall(house: Estate) -> Pool:
    """A shared pool of three seats a host; Alice and Bob are entitled."""
    pool = house.open_pool("Hall", kind=Pool.Kind.SHARED, protocol=Pool.Protocol.RDP, seats=3, spare=0)
    for user in (house.alice, house.bob):
        Entitlement.objects.create(pool=pool, user=user)
    return pool


def guests(pool: Pool, number: int) -> list[User]:
    """So many more people who are entitled."""
    made = [User.objects.create_user(f"guest-{n}") for n in range(number)]
    Entitlement.objects.bulk_create(Entitlement(pool=pool, user=user) for user in made)
    return made


def ask(user: User, pool: Pool) -> Request:
    return brokering.request_desktop(user=user, pool_id=pool.pk)[0]


def seats_of(pool: Pool) -> dict[str, tuple[str, int]]:
    """user -> (host, seat)"""
    rows = Assignment.objects.filter(pool=pool, until=None)
    return {user: (host, seat) for user, host, seat in rows.values_list("user__username", "desktop__name", "seat")}


def opened(user: User, host: Desktop) -> UUID:
    host.refresh_from_db()
    admission = screens.Admission(UUID(int=0), host.pk, host.epoch, user.pk, "rdp")
    return screens.start_session(admission=admission, address=None)


def admission_of(user: User, host: Desktop) -> screens.Admission:
    """As of a browser that is signed in."""
    browser = Client()
    browser.force_login(user)
    host.refresh_from_db()
    key, auth_hash = browser.session.session_key or "", user.get_session_auth_hash()
    return screens.Admission(UUID(int=0), host.pk, host.epoch, user.pk, "rdp", key, auth_hash)


# --- taking a seat ---------------------------------------------------------------------------------------------------


def test_two_users_have_a_seat_each_on_one_host_and_its_epoch_rises_once(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    first, second = ask(house.alice, hall), ask(house.bob, hall)
    host.refresh_from_db()
    assert first.desktop_id == second.desktop_id == host.pk
    assert seats_of(hall) == {"alice": (host.name, 1), "bob": (host.name, 2)}
    assert (host.state, host.epoch) == (State.ASSIGNED, 2)


def test_seats_are_taken_evenly_and_why_there_is_written_down(house: Estate, hall: Pool) -> None:
    hosts = {house.make(hall, name=f"hall-00{n}").name for n in (1, 2)}
    ask(house.alice, hall)
    ask(house.bob, hall)
    assert {host for host, _ in seats_of(hall).values()} == hosts
    words = Event.objects.filter(kind="desktop.claimed").order_by("-id").values_list("message", flat=True)[0]
    assert words == (
        "Seat 1 assigned to bob. 0 of 3 seats were taken, fewer than on any other session host with a free one."
    )


def test_of_equal_hosts_the_one_on_the_idler_hardware_is_taken(house: Estate, hall: Pool) -> None:
    for name, used in (("busy", 900), ("idle", 100)):
        below = Host.objects.create(
            hypervisor=house.hypervisor, platform_id=name, name=name, vcpus=8, memory_mib=1000, used_memory_mib=used,
            seen_at=timezone.now(),
        )  # fmt: skip
        desktop = house.make(hall, name=f"hall-{name}")
        Machine.objects.create(
            hypervisor=house.hypervisor, platform_id=desktop.machine_id, name=name, power="on", host=below,
            seen_at=timezone.now(),
        )  # fmt: skip
    ask(house.alice, hall)
    assert seats_of(hall)["alice"][0] == "hall-idle"


def test_asking_again_gives_the_same_seat(house: Estate, hall: Pool) -> None:
    house.make(hall)
    house.make(hall)
    first, again = ask(house.alice, hall), ask(house.alice, hall)
    assert first.pk == again.pk
    assert len(seats_of(hall)) == 1


def test_the_database_holds_one_user_to_a_seat_and_one_seat_to_a_user(house: Estate, hall: Pool) -> None:
    host, other = house.make(hall), house.make(hall)
    ask(house.alice, hall)
    taken = Assignment.objects.get(user=house.alice, pool=hall)
    now = timezone.now()
    with pytest.raises(IntegrityError, match=r"assignment_one_a_seat|UNIQUE"), transaction.atomic():
        Assignment.objects.create(pool=hall, user=house.bob, desktop=taken.desktop, seat=taken.seat, since=now)
    free = other if taken.desktop == host else host
    with pytest.raises(IntegrityError, match=r"assignment_one_a_slot|UNIQUE"), transaction.atomic():
        Assignment.objects.create(pool=hall, user=house.alice, desktop=free, seat=1, since=now)


@pytest.mark.parametrize(
    "fields",
    [
        {"is_answering": False},
        {"is_in_maintenance": True},
        {"is_moving": True},
        {"state": State.PREPARING},
        {"state": State.RECYCLING},
    ],
)
def test_a_host_that_is_not_fit_takes_nobody(house: Estate, hall: Pool, fields: dict[str, Any]) -> None:
    house.make(hall, **fields)
    assert ask(house.alice, hall).desktop_id is None


@pytest.mark.parametrize("fields", [{"is_in_maintenance": True}, {"is_emptying": True}, {"is_answering": False}])
def test_a_host_that_others_are_on_takes_nobody_new_once_it_is_to_empty(
    house: Estate, hall: Pool, fields: dict[str, Any]
) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    Desktop.objects.filter(pk=host.pk).update(**fields)
    assert ask(house.bob, hall).desktop_id is None
    assert set(seats_of(hall)) == {"alice"}


def test_one_that_was_to_empty_takes_people_again_once_it_is_fresh(house: Estate, hall: Pool) -> None:
    host = house.make(hall, is_emptying=True)
    ask(house.alice, hall)
    host.refresh_from_db()
    assert not host.is_emptying
    assert ask(house.bob, hall).desktop_id == host.pk


def test_a_draining_hypervisor_or_host_takes_nobody_new(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    Hypervisor.objects.update(is_draining=True)
    assert ask(house.alice, hall).desktop_id is None
    Hypervisor.objects.update(is_draining=False)
    below = Host.objects.create(
        hypervisor=house.hypervisor, platform_id="h", name="h", vcpus=8, memory_mib=1000, is_draining=True,
        seen_at=timezone.now(),
    )  # fmt: skip
    machine = Machine.objects.create(
        hypervisor=house.hypervisor, platform_id=host.machine_id, name="m", power="on", host=below,
        seen_at=timezone.now(),
    )  # fmt: skip
    assert brokering.serve_queue(pool_id=hall.pk) == 0
    machine.host = None
    machine.save()
    assert brokering.serve_queue(pool_id=hall.pk) == 1


def test_one_that_is_off_is_started_once_for_all_who_come(house: Estate, hall: Pool) -> None:
    host = house.make(hall, power="off", is_answering=False)
    assert ask(house.alice, hall).desktop_id == ask(house.bob, hall).desktop_id == host.pk
    (start,) = Operation.objects.filter(desktop=host)
    assert start.parameters["action"] == "on"


def test_a_stranger_and_one_whom_a_pool_has_to_approve_get_no_seat(house: Estate, hall: Pool) -> None:
    house.make(hall)
    with pytest.raises(Missing):
        ask(house.charlie, hall)
    Pool.objects.filter(pk=hall.pk).update(approval=Pool.Approval.OWNERS)
    assert ask(house.alice, hall).state == Request.State.WAITING
    assert seats_of(hall) == {}


def test_who_dies_while_taking_a_seat_leaves_nothing_half(
    house: Estate, hall: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = house.make(hall)
    monkeypatch.setattr(brokering, "insert_together", _die)
    with pytest.raises(KeyboardInterrupt), transaction.atomic():
        ask(house.alice, hall)
    host.refresh_from_db()
    assert (host.state, host.epoch) == (State.READY, 1)
    assert not Assignment.objects.filter(pool=hall).exists()
    assert not Request.objects.filter(pool=hall).exists()


def _die(rows: object) -> None:
    assert Desktop.objects.filter(pool__name="Hall", state=State.ASSIGNED).exists(), "it was well under way"
    raise KeyboardInterrupt


@pytest.mark.parametrize("others", [2, 20])
def test_a_seat_costs_the_same_however_many_are_taken(house: Estate, hall: Pool, others: int) -> None:
    Pool.objects.filter(pk=hall.pk).update(seats=40)
    house.make(hall)
    house.make(hall)
    for user in guests(hall, others):
        ask(user, hall)
    with CaptureQueriesContext(connection) as asked:
        ask(house.alice, hall)
    assert len(asked) == SEAT_STATEMENTS


SEAT_STATEMENTS = 16


# --- the queue -------------------------------------------------------------------------------------------------------


def test_where_all_seats_are_taken_people_wait_with_the_reason_and_get_the_next_one(house: Estate, hall: Pool) -> None:
    house.make(hall)
    Pool.objects.filter(pk=hall.pk).update(maximum=1)
    for user in guests(hall, 3):
        ask(user, hall)
    first, second = ask(house.alice, hall), ask(house.bob, hall)
    reconcile.run(hall.pk)
    first.refresh_from_db()
    assert first.state == Request.State.APPROVED
    assert first.reason == (
        "The only session host is full: 3 of 3 seats. You get the next seat that is given back."
    )  # fmt: skip
    brokering.release_desktop(actor=User.objects.get(username="guest-1"), desktop_id=Desktop.objects.get(pool=hall).pk)
    assert brokering.serve_queue(pool_id=hall.pk) == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == (Request.State.READY, Request.State.APPROVED)
    assert seats_of(hall)["alice"][1] == 2, "the seat that was given back"


def test_a_newcomer_takes_no_seat_while_others_wait(house: Estate, hall: Pool) -> None:
    ask(house.alice, hall)
    house.make(hall)
    Pool.objects.filter(pk=hall.pk).update(seats=1)
    ask(house.bob, hall)
    assert set(seats_of(hall)) == {"alice"}


def test_one_who_lost_the_entitlement_gets_no_seat(house: Estate, hall: Pool) -> None:
    waiting = ask(house.alice, hall)
    Entitlement.objects.filter(pool=hall, user=house.alice).delete()
    house.make(hall)
    brokering.serve_queue(pool_id=hall.pk)
    waiting.refresh_from_db()
    assert waiting.state == Request.State.APPROVED


# --- leaving ---------------------------------------------------------------------------------------------------------


def test_who_leaves_takes_nothing_from_those_who_stay(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    alices, bobs = opened(house.alice, host), opened(house.bob, host)
    stays, leaves = admission_of(house.bob, host), admission_of(house.alice, host)
    assert brokering.release_desktop(actor=house.alice, desktop_id=host.pk) is None
    host.refresh_from_db()
    assert (host.state, host.epoch) == (State.ASSIGNED, 2)
    assert set(seats_of(hall)) == {"bob"}
    assert not Operation.objects.exists()
    assert ScreenSession.objects.get(pk=alices).ended_at is not None
    assert ScreenSession.objects.get(pk=bobs).ended_at is None
    assert [row.user for row in DesktopSession.objects.filter(ended_at=None)] == [house.bob]
    assert screens.closures({alices: leaves, bobs: stays}) == {alices: sessions.RELEASED}
    assert Request.objects.get(user=house.alice, pool=hall).state == Request.State.ENDED
    assert Request.objects.get(user=house.bob, pool=hall).state == Request.State.READY


def test_a_ticket_of_who_left_opens_nothing_even_when_they_are_back(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    Desktop.objects.filter(pk=host.pk).update(addresses=["192.0.2.9"])
    ask(house.alice, hall)
    ask(house.bob, hall)
    screens.connect(user=house.alice, desktop_id=host.pk, session_key="a" * 32)
    brokering.release_desktop(actor=house.alice, desktop_id=host.pk)
    ask(house.alice, hall)
    assert seats_of(hall)["alice"][0] == host.name
    assert Ticket.objects.get(user=house.alice).expires_at <= timezone.now()


def test_when_the_last_has_left_the_host_gets_a_fresh_disk_before_it_takes_anybody(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    brokering.release_desktop(actor=house.alice, desktop_id=host.pk)
    recycle = brokering.release_desktop(actor=house.bob, desktop_id=host.pk)
    host.refresh_from_db()
    assert recycle is not None
    assert (recycle.kind, host.state, host.epoch) == (Operation.Kind.RECYCLE, State.RECYCLING, 3)
    assert ask(house.alice, hall).desktop_id is None


def test_where_its_pool_says_so_it_goes_on_as_it_is(house: Estate, hall: Pool) -> None:
    Pool.objects.filter(pk=hall.pk).update(freshens_when_empty=False, minimum=1)
    host = house.make(hall)
    ask(house.alice, hall)
    assert brokering.release_desktop(actor=house.alice, desktop_id=host.pk) is None
    reconcile.run(hall.pk)
    host.refresh_from_db()
    assert (host.state, host.epoch) == (State.ASSIGNED, 2)
    assert ask(house.bob, hall).desktop_id == host.pk


def test_one_that_is_not_needed_any_more_is_freshened_and_goes(house: Estate, hall: Pool) -> None:
    Pool.objects.filter(pk=hall.pk).update(freshens_when_empty=False)
    host = house.make(hall)
    ask(house.alice, hall)
    brokering.release_desktop(actor=house.alice, desktop_id=host.pk)
    reconcile.run(hall.pk)
    host.refresh_from_db()
    assert (host.state, host.epoch) == (State.RECYCLING, 3)
    assert Operation.objects.filter(desktop=host, kind=Operation.Kind.RECYCLE).count() == 1


def test_a_host_on_which_somebody_is_by_now_is_not_freshened(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    host.refresh_from_db()
    assert not brokering.freshen(host, "The last of its users has left.")
    host.refresh_from_db()
    assert host.state == State.ASSIGNED


def test_an_administrator_says_whose_seat_and_a_stranger_ends_nobodys(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    with pytest.raises(Clash, match="2 people have a seat"):
        brokering.release_desktop(actor=house.dana, desktop_id=host.pk)
    with pytest.raises(Missing):
        brokering.release_desktop(actor=house.charlie, desktop_id=host.pk)
    with pytest.raises(Missing):
        brokering.release_desktop(actor=house.alice, desktop_id=host.pk, user_id=house.bob.pk)
    brokering.release_desktop(actor=house.dana, desktop_id=host.pk, user_id=house.bob.pk)
    assert set(seats_of(hall)) == {"alice"}
    entry = AuditEntry.objects.get(action="desktop.reclaim")
    assert (entry.actor_name, entry.changes) == ("dana", {"user": ["bob", None], "seat": [2, None]})


def test_a_withdrawn_entitlement_gives_the_seat_back_and_another_one_keeps_it(house: Estate, hall: Pool) -> None:
    house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    Entitlement.objects.create(pool=hall, group=house.staff)
    for user in (house.alice, house.bob):
        mine = Entitlement.objects.get(pool=hall, user=user)
        entitlements.withdraw(actor=house.dana, entitlement_id=mine.pk)
    assert set(seats_of(hall)) == {"bob"}
    assert Assignment.objects.filter(user=house.alice, pool=house.pool, until=None).exists(), "her own desktop stays"


def test_a_closed_account_gives_its_seats_back(house: Estate, hall: Pool) -> None:
    house.make(hall)
    ask(house.alice, hall)
    people.set_user_active(actor=house.dana, user_id=house.alice.pk, on=False)
    assert seats_of(hall) == {}
    assert Assignment.objects.filter(user=house.alice, pool=house.pool, until=None).exists(), "her own desktop stays"


# --- sessions --------------------------------------------------------------------------------------------------------


def test_each_user_has_a_session_of_their_own_there(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    alices, _bobs = opened(house.alice, host), opened(house.bob, host)
    screens.end_session(heartbeat=screens.Heartbeat(alices, 0, 0), reason="The browser left.")
    rows = DesktopSession.objects.filter(desktop=host, ended_at=None)
    assert dict(rows.values_list("user__username", "state")) == {"alice": "disconnected", "bob": "connected"}


def test_logging_one_off_gives_back_their_seat_alone(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    opened(house.alice, host)
    opened(house.bob, host)
    session = DesktopSession.objects.get(user=house.bob, ended_at=None)
    assert presence.log_off(actor=house.dana, session_id=session.pk) is None
    assert set(seats_of(hall)) == {"alice"}
    assert [row.user for row in DesktopSession.objects.filter(ended_at=None)] == [house.alice]


def test_a_timer_gives_back_the_seat_of_who_left_alone(house: Estate, hall: Pool) -> None:
    pools.change_pool(actor=house.dana, pool_id=hall.pk, disconnected_min=30)
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    alices = opened(house.alice, host)
    opened(house.bob, host)
    screens.end_session(heartbeat=screens.Heartbeat(alices, 0, 0), reason="The browser left.")
    left = timezone.now() - 60 * MINUTE
    row = DesktopSession.objects.filter(user=house.alice, ended_at=None)
    row.update(began_at=left, closed_at=left, input_at=left, warned_for=left + 30 * MINUTE, warned_at=left)
    session_timers.run(row.get().pk)
    assert set(seats_of(hall)) == {"bob"}


def test_the_guest_tells_each_users_session_from_the_others(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    streams = {user: opened(user, host) for user in (house.alice, house.bob)}
    say(host, ("CORP\\Alice", "bob@corp.example", "root"))
    assert {row.user.username: row.guest_user for row in going_on(host)} == {
        "alice": "CORP\\Alice", "bob": "bob@corp.example",
    }  # fmt: skip
    for stream in streams.values():
        screens.end_session(heartbeat=screens.Heartbeat(stream, 0, 0), reason="The browser left.")
    for _ in range(2):
        say(host, ("bob@corp.example",))
    session_timers.look()
    assert set(seats_of(hall)) == {"bob"}, "Alice logged off in the guest"


def going_on(host: Desktop) -> list[DesktopSession]:
    return list(DesktopSession.objects.select_related("user").filter(desktop=host, ended_at=None))


def say(host: Desktop, names: tuple[str, ...]) -> None:
    DesktopSession.objects.filter(desktop=host).update(asked_at=None)
    asked = sessions.to_ask(host.hypervisor_id, timezone.now())
    assert set(asked) == {host.machine_id}
    sessions.told(asked, [GuestUsers(host.machine_id, timezone.now(), names)], timezone.now())


def test_a_stream_whose_user_has_just_left_begins_no_session(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    brokering.release_desktop(actor=house.alice, desktop_id=host.pk)
    opened(house.alice, host)
    assert going_on(host) == []


# --- a version that is pushed ----------------------------------------------------------------------------------------


@pytest.fixture
def behind(house: Estate, hall: Pool) -> Desktop:
    """A session host of the version before, with Alice and Bob on it; the pool's members build from a newer one."""
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    version = TemplateVersion.objects.create(template=house.copy.version.template, number=2)
    newer = TemplateCopy.objects.create(
        version=version, hypervisor=house.hypervisor, platform_id="newer", name="newer", vcpus=1, memory_mib=512
    )
    hall.members.update(copy=newer)
    return host


def test_whoever_comes_sits_on_the_new_version_while_there_is_room(house: Estate, hall: Pool, behind: Desktop) -> None:
    new = house.make(hall)
    Desktop.objects.filter(pk=new.pk).update(copy=hall.members.get().copy)
    first, second, third, fourth = (ask(user, hall).desktop_id for user in guests(hall, 4))
    assert [first, second, third, fourth] == [new.pk, new.pk, new.pk, behind.pk]


def test_at_the_deadline_all_who_are_on_a_host_are_turned_out_together_and_none_sits_down_again(
    house: Estate, hall: Pool, behind: Desktop
) -> None:
    now = timezone.now()
    push = Push.objects.create(
        pool=hall, version=hall.members.get().copy.version, state="running", users="deadline", deadline_at=now - MINUTE,
        notice_min=10, created_at=now, starts_at=now, started_at=now,
    )  # fmt: skip
    alices = Assignment.objects.get(pool=hall, user=house.alice, until=None)
    push.told.create(assignment=alices, at=now - 60 * MINUTE)
    pushes.turn_out(hall.pk, now)
    assert set(seats_of(hall)) == {"bob"}, "he was not told yet"
    assert ask(house.alice, hall).desktop_id is None
    bobs = Assignment.objects.get(pool=hall, user=house.bob, until=None)
    push.told.create(assignment=bobs, at=now - 60 * MINUTE)
    pushes.turn_out(hall.pk, now)
    behind.refresh_from_db()
    assert (behind.state, behind.is_emptying) == (State.RECYCLING, False)
    assert behind.copy == hall.members.get().copy
    assert Notice.objects.filter(kind="desktop_pushed").count() == 2


# --- what others on it forbid ----------------------------------------------------------------------------------------


def test_a_user_of_a_session_host_does_not_switch_it_off(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    for action in ("off", "shutdown", "reboot", "reset", "suspend"):
        with pytest.raises(Clash, match="Others are on"):
            power.set_power(actor=house.alice, desktop_id=host.pk, action=action)
    assert power.set_power(actor=house.dana, desktop_id=host.pk, action="shutdown").kind == "power"


def test_a_host_with_users_is_neither_deleted_nor_moved(house: Estate, hall: Pool) -> None:
    host = house.make(hall)
    ask(house.alice, hall)
    with pytest.raises(Clash, match="is assigned"):
        desktops.retire_desktop(actor=house.dana, desktop_id=host.pk)
    target = failovers.Target(hypervisor_id=house.hypervisor.pk, storage_id=UUID(int=0))
    with pytest.raises(Clash, match="not moved"):
        failovers._movable(host.pk, target)


def test_leases_run_for_each_seat(house: Estate, hall: Pool) -> None:
    pools.change_pool(actor=house.dana, pool_id=hall.pk, lease_h=8, renewals=1)
    host = house.make(hall)
    ask(house.alice, hall)
    ask(house.bob, hall)
    renewed, is_new = leases.renew(actor=house.alice, desktop_id=host.pk)
    assert (renewed.user, is_new) == (house.alice, True)
    bobs = Assignment.objects.filter(user=house.bob, pool=hall, until=None)
    before = timezone.now() - timedelta(hours=30)
    bobs.update(lease_until=before, told_at=before, end_told_at=before, next_lease_at=before)
    leases.run(bobs.get().pk)
    assert set(seats_of(hall)) == {"alice"}


def test_a_machine_is_adopted_as_a_session_host_for_nobody_alone(house: Estate, hall: Pool) -> None:
    machine = Machine.objects.create(
        hypervisor=house.hypervisor, platform_id="found", name="found-1", power="on", vcpus=1, memory_mib=512,
        seen_at=timezone.now(),
    )  # fmt: skip
    with pytest.raises(Invalid) as refused:
        drift.adopt(actor=house.dana, machine_id=machine.pk, pool_id=hall.pk, user_id=house.alice.pk)
    assert "user" in refused.value.fields
    assert drift.adopt(actor=house.dana, machine_id=machine.pk, pool_id=hall.pk).state == State.RECYCLING


# --- what a shared pool cannot be ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"protocol": "vnc"}, "protocol"),
        ({"guest_account": "pool", "guest_user": "kiosk"}, "guest_account"),
        ({"guest_account": "local", "guest_user": "kiosk"}, "guest_account"),
        ({"seats": 0}, "seats"),
        ({"seats": 201}, "seats"),
        ({"spare": 31}, "spare"),
    ],
)
def test_what_users_who_share_a_machine_cannot_have_is_refused_in_words(
    house: Estate, hall: Pool, wish: Any, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=house.dana, pool_id=hall.pk, **wish)
    assert set(refused.value.fields) == {field}


def test_spare_counts_seats_and_may_be_as_many_as_the_maximum_has(house: Estate, hall: Pool) -> None:
    assert pools.change_pool(actor=house.dana, pool_id=hall.pk, spare=30).spare == 30


def test_a_pool_becomes_shared_or_stops_to_be_only_while_nobody_is_on_it(house: Estate, hall: Pool) -> None:
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, kind="shared", protocol="rdp")
    assert "kind" in refused.value.fields
    house.make(hall)
    ask(house.alice, hall)
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=house.dana, pool_id=hall.pk, kind="dedicated")
    assert "kind" in refused.value.fields


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_hosts_are_built_for_those_who_come_and_are_clean_for_the_next(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(kind="shared", protocol="rdp", seats=2, spare=1, maximum=3)
    plant.fill(1)
    assert len(plant.desktops()) == 1, "a spare seat needs one host"
    (host,) = plant.desktops()
    for user in (plant.alice, plant.bob):
        assert plant.ask(user).desktop_id == host.pk
    plant.world().write(host.machine_id, " alice and bob")
    plant.fill(1)
    assert plant.count(State.ASSIGNED) == 1, "another one stands beside it for the spare seat"
    brokering.release_desktop(actor=plant.alice, desktop_id=host.pk)
    plant.step()
    host.refresh_from_db()
    assert (host.state, plant.world().read(host.machine_id)) == (State.ASSIGNED, "golden alice and bob")
    brokering.release_desktop(actor=plant.bob, desktop_id=host.pk)
    plant.until(lambda: [d.state for d in plant.desktops(*LIVE)] == [State.READY], "one clean host is left")
    (left,) = plant.desktops(*LIVE)
    assert plant.world().read(left.machine_id) == "golden"
    plant.assert_tidy()
