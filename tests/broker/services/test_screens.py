"""Asking for a screen, tickets, and when a stream must end."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from broker.domain.lifecycle import State
from broker.models import ApiToken, Assignment, AuditEntry, Entitlement, Hypervisor, Operation, ScreenSession, Ticket
from broker.services import brokering, operations, screens
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from connectors.base import ScreenOpened
from tests.broker.portal.cast import Estate, estate

pytestmark = pytest.mark.django_db


@pytest.fixture
def house(db: None) -> Estate:
    return estate()


@pytest.fixture
def cookie(house: Estate) -> str:
    client = Client()
    client.force_login(house.alice)
    assert client.session.session_key
    return client.session.session_key


def ask(house: Estate, cookie: str) -> screens.Opening:
    return screens.connect(user=house.alice, desktop_id=house.desktop.pk, protocol="vnc", session_key=cookie)


def test_connect_writes_an_order_first_in_line_and_a_ticket_that_is_kept_only_as_a_hash(
    house: Estate, cookie: str
) -> None:
    opening = ask(house, cookie)
    operation, ticket = Operation.objects.get(), Ticket.objects.get()
    assert (operation.kind, operation.rank, operation.changes) == ("screen", operations.RANK_SCREEN, False)
    assert operation.parameters == {
        "machine": house.desktop.machine_id,
        "stamp_key": house.desktop.stamp_key,
        "valid_s": 30,
    }
    assert (ticket.operation, ticket.epoch, ticket.protocol) == (operation, 2, "vnc")
    assert len(opening.ticket) >= 43  # 256 bits
    assert opening.ticket not in str(Ticket.objects.values().get())
    assert cookie not in str(Ticket.objects.values().get())
    assert timedelta(seconds=25) < ticket.expires_at - timezone.now() <= timedelta(seconds=30)
    assert opening.subprotocols == ["binary", f"ticket.{opening.ticket}"]
    assert AuditEntry.objects.filter(actor=house.alice, action="desktop.connect").count() == 1
    assert opening.ticket not in repr(opening)


def test_a_screen_is_nobody_elses_not_even_the_administrators(house: Estate, cookie: str) -> None:
    for person in (house.bob, house.charlie, house.dana):
        with pytest.raises(Missing):
            screens.connect(user=person, desktop_id=house.desktop.pk, protocol="vnc", session_key=cookie)
    with pytest.raises(Missing):
        screens.connect(user=house.alice, desktop_id=uuid4(), protocol="vnc", session_key=cookie)
    assert not Ticket.objects.exists()


def test_a_screen_that_was_released_is_gone(house: Estate, cookie: str) -> None:
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    with pytest.raises(Missing):
        ask(house, cookie)


def test_without_the_entitlement_the_screen_stays_shut(house: Estate, cookie: str) -> None:
    Entitlement.objects.filter(user=house.alice).delete()
    with pytest.raises(Forbidden, match="Office"):
        ask(house, cookie)


def test_an_unknown_protocol_is_refused(house: Estate, cookie: str) -> None:
    with pytest.raises(Invalid) as refused:
        screens.connect(user=house.alice, desktop_id=house.desktop.pk, protocol="rdp", session_key=cookie)
    assert "protocol" in refused.value.fields


def test_who_has_neither_browser_nor_token_gets_no_ticket(house: Estate) -> None:
    with pytest.raises(Forbidden):
        screens.connect(user=house.alice, desktop_id=house.desktop.pk, protocol="vnc")


@pytest.mark.parametrize(("power", "action"), [("off", "on"), ("suspended", "resume")])
def test_a_desktop_that_is_off_is_started_once(house: Estate, cookie: str, power: str, action: str) -> None:
    house.desktop.power = power
    house.desktop.save()
    for _ in range(3):
        with pytest.raises(Clash, match="being started") as clash:
            ask(house, cookie)
        assert clash.value.operation
        assert clash.value.operation.parameters["action"] == action
    assert Operation.objects.count() == 1
    assert not Ticket.objects.exists()


def test_a_missing_desktop_and_a_lost_host_are_said_in_words(house: Estate, cookie: str) -> None:
    Hypervisor.objects.update(status=Hypervisor.Status.DOWN)
    with pytest.raises(Clash, match="cannot be reached"):
        ask(house, cookie)
    house.desktop.state = State.MISSING
    house.desktop.save()
    with pytest.raises(Clash, match="cannot be found"):
        ask(house, cookie)


def test_a_ticket_is_burned_by_whoever_shows_it_first(house: Estate, cookie: str) -> None:
    opening = ask(house, cookie)
    admission = screens.admit(ticket=opening.ticket, session_key=cookie)
    assert (admission.user_id, admission.desktop_id, admission.epoch) == (house.alice.pk, house.desktop.pk, 2)
    with pytest.raises(Forbidden):
        screens.admit(ticket=opening.ticket, session_key=cookie)


def test_a_ticket_shown_by_somebody_else_is_burned_too(house: Estate, cookie: str) -> None:
    opening = ask(house, cookie)
    with pytest.raises(Forbidden, match="another browser"):
        screens.admit(ticket=opening.ticket, session_key="somebody else's")
    with pytest.raises(Forbidden):
        screens.admit(ticket=opening.ticket, session_key=cookie)


def test_a_ticket_dies_with_the_session_and_with_the_account(house: Estate, cookie: str) -> None:
    first, second = ask(house, cookie), ask(house, cookie)
    house.alice.is_active = False
    house.alice.save()
    with pytest.raises(Forbidden, match="switched off"):
        screens.admit(ticket=first.ticket, session_key=cookie)
    house.alice.is_active = True
    house.alice.save()
    SessionStore(cookie).delete()
    with pytest.raises(Forbidden, match="has ended"):
        screens.admit(ticket=second.ticket, session_key=cookie)


def test_the_address_is_kept_encrypted_and_told_once(house: Estate, cookie: str) -> None:
    opening = ask(house, cookie)
    ticket = Ticket.objects.get()
    assert screens.target_of(ticket.pk) is None
    assert opening.operation
    screens.store_target(opening.operation, ScreenOpened(protocol="vnc", host="10.1.2.3", port=5901, password="sesame"))
    stored = bytes(Ticket.objects.get().target)
    assert b"sesame" not in stored
    assert b"10.1.2.3" not in stored
    target = screens.target_of(ticket.pk)
    assert target == screens.Target("vnc", "10.1.2.3", 5901, "sesame")
    assert "sesame" not in repr(target)
    assert not Ticket.objects.get().target
    assert screens.target_of(ticket.pk) is None


def test_an_address_older_than_a_minute_is_not_told(house: Estate, cookie: str) -> None:
    opening = ask(house, cookie)
    assert opening.operation
    screens.store_target(opening.operation, ScreenOpened(protocol="vnc", host="h", port=1, password="p"))
    Ticket.objects.update(target_expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(Clash, match="expired"):
        screens.target_of(Ticket.objects.get().pk)


def streams(house: Estate, cookie: str, number: int = 1) -> dict[UUID, screens.Admission]:
    """Live streams of Alice's, as the relay holds them."""
    admissions = [screens.admit(ticket=ask(house, cookie).ticket, session_key=cookie) for _ in range(number)]
    return {screens.start_session(admission=one, address="127.0.0.1"): one for one in admissions}


def test_a_stream_goes_on_until_its_right_ends_whichever_way(house: Estate, cookie: str) -> None:
    live = streams(house, cookie)

    def why() -> list[str]:
        return list(screens.closures(live).values())

    assert why() == []

    entitlement = Entitlement.objects.get(user=house.alice)
    entitlement.delete()
    assert why() == ["You no longer have access to this desktop."]
    house.alice.groups.add(house.staff)
    assert why() == []

    house.alice.set_password("another long password")
    house.alice.save()
    assert why() == ["You signed out."]
    house.alice.is_active = False
    house.alice.save()
    assert why() == ["This account was switched off."]

    Assignment.objects.update(until=timezone.now())
    assert why() == ["The desktop was released."]


def test_a_stream_of_a_token_ends_with_the_token(house: Estate) -> None:
    token = ApiToken.objects.create(
        user=house.alice, name="script", hash="h", prefix="p", expires_at=timezone.now() + timedelta(days=1)
    )
    admission = screens.Admission(uuid4(), house.desktop.pk, 2, house.alice.pk, "vnc", token_id=token.pk)
    stream = uuid4()
    assert screens.closures({stream: admission}) == {}
    ApiToken.objects.update(expires_at=timezone.now())
    assert screens.closures({stream: admission}) == {stream: "The API token is no longer valid."}


def test_looking_after_many_streams_takes_as_many_statements_as_after_one(
    house: Estate, cookie: str, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    many = streams(house, cookie, 20)
    with django_assert_max_num_queries(6):
        screens.closures(many)
    with django_assert_max_num_queries(3):  # the statement and its savepoint
        screens.beat([screens.Heartbeat(session, 5, 6) for session in many])
    assert set(ScreenSession.objects.values_list("bytes_to_user", "bytes_from_user")) == {(5, 6)}


def test_a_session_ends_once(house: Estate, cookie: str) -> None:
    (session,) = streams(house, cookie)
    screens.end_session(heartbeat=screens.Heartbeat(session, 1, 2), reason="The browser left.")
    screens.end_session(heartbeat=screens.Heartbeat(session, 9, 9), reason="again")
    row = ScreenSession.objects.get()
    assert (row.end_reason, row.bytes_to_user) == ("The browser left.", 1)


def test_housekeeping_ends_what_a_dead_relay_carried_and_forgets_addresses(house: Estate, cookie: str) -> None:
    streams(house, cookie)
    opening = ask(house, cookie)
    assert opening.operation
    screens.store_target(opening.operation, ScreenOpened(protocol="vnc", host="h", port=1, password="p"))
    screens.end_lost()
    assert ScreenSession.objects.get().ended_at is None
    assert Ticket.objects.get(operation=opening.operation).target
    ScreenSession.objects.update(seen_at=timezone.now() - timedelta(minutes=2))
    Ticket.objects.filter(operation=opening.operation).update(target_expires_at=timezone.now() - timedelta(seconds=1))
    assert screens.end_lost() == 2
    assert ScreenSession.objects.get().end_reason == "The relay stopped."
    assert not Ticket.objects.get(operation=opening.operation).target
