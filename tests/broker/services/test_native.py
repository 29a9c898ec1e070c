"""Files that open a desktop in a program of one's own: who gets one, and who comes in by it."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from broker.domain import rdp_files
from broker.models import (
    AuditEntry,
    Desktop,
    DesktopSession,
    Entitlement,
    FileSigner,
    Operation,
    Pool,
    ScreenSession,
    Ticket,
)
from broker.selectors import pulse
from broker.selectors.presence import screens_of
from broker.services import brokering, guesses, native, people, pools, presence, screens
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from broker.services.screens import Admission, Heartbeat
from tests.broker.portal.cast import Estate, estate
from tests.broker.services.test_signing import check

pytestmark = pytest.mark.django_db
HOME, ELSEWHERE = "10.1.0.7", "10.1.0.8"


@pytest.fixture
def house(db: None, settings: Settings, redis_url: str) -> Iterator[Estate]:
    """Alice's desktop may be opened in a Remote Desktop program."""
    settings.REDIS_URL, settings.RDP_ADDRESS = redis_url, "desk.example:3390"
    pulse.connection.cache_clear()
    pulse.connection().flushdb()
    house = estate()
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, protocol=Pool.Protocol.RDP, native_clients=True)
    yield house
    pulse.connection.cache_clear()


def cookie(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.session.session_key or ""


def lines(file: native.ClientFile) -> list[str]:
    return file.content.decode("utf-16").split("\r\n")


def ticket_in(file: native.ClientFile) -> str:
    (line,) = [line for line in lines(file) if line.startswith("loadbalanceinfo")]
    return line.removeprefix("loadbalanceinfo:s:Cookie: msts=")


def ask(house: Estate, session_key: str = "") -> str:
    key = session_key or cookie(house.alice)
    return ticket_in(native.client_file(user=house.alice, desktop_id=house.desktop.pk, session_key=key))


def start(admission: Admission) -> Heartbeat:
    """What the relay does once the guest answers."""
    session = screens.start_session(admission=admission, address=HOME)
    return Heartbeat(session, 0, 0, ticket_id=admission.ticket_id)


def refusal(ticket: str, address: str = HOME) -> str:
    with pytest.raises(Forbidden) as refused:
        native.admit(ticket=ticket, address=address)
    return refused.value.message


def test_a_file_leads_to_the_relay_by_a_ticket_and_is_signed(house: Estate, tmp_path: Path) -> None:
    file = native.client_file(user=house.alice, desktop_id=house.desktop.pk, session_key="any")
    assert (file.name, file.content_type) == ("office-001.rdp", "application/x-rdp")
    *settings, scope, signature, end = lines(file)
    wish = rdp_files.Wish("desk.example:3390", ticket_in(file), "alice", has_clipboard=True, asks_32_bpp=True)
    assert tuple(settings) == rdp_files.settings(wish)
    blob = base64.b64decode(signature.removeprefix("signature:s:"))
    assert struct.unpack("<III", blob[:12]) == (0x00010001, 1, len(blob) - 12)
    named, covered = rdp_files.signed_part(settings)
    assert (named, end) == (scope, "")
    own = FileSigner.objects.get().certificates
    assert check(tmp_path, blob[12:], covered, own).returncode == 0
    forged = [line.replace("desk.example", "evil.example") for line in settings]
    assert check(tmp_path, blob[12:], rdp_files.signed_part(forged)[1], own).returncode != 0


def test_giving_out_a_file_is_written_down_and_the_ticket_nowhere(house: Estate) -> None:
    ticket = ask(house)
    entry = AuditEntry.objects.get(action="desktop.connect")
    assert (entry.actor, entry.changes) == (house.alice, {"client": [None, "native"]})
    row = Ticket.objects.get()
    assert row.hash == screens.digest(ticket)
    assert row.expires_at - timezone.now() < timedelta(minutes=5)
    assert not Operation.objects.exists()


def test_the_pools_rules_stand_in_the_file(house: Estate) -> None:
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, has_clipboard=False, asks_32_bpp=False)
    found = lines(native.client_file(user=house.alice, desktop_id=house.desktop.pk, session_key="any"))
    assert "redirectclipboard:i:0" in found
    assert "session bpp:i:32" not in found


def test_only_ones_own_desktop_is_opened_and_only_while_it_may_be(house: Estate) -> None:
    for person in (house.bob, house.charlie, house.dana):
        with pytest.raises(Missing):
            native.client_file(user=person, desktop_id=house.desktop.pk, session_key="any")
    with pytest.raises(Forbidden):
        native.client_file(user=house.alice, desktop_id=house.desktop.pk)
    Entitlement.objects.filter(user=house.alice).delete()
    with pytest.raises(Forbidden):
        native.client_file(user=house.alice, desktop_id=house.desktop.pk, session_key="any")
    assert not Ticket.objects.exists()


@pytest.mark.parametrize("lacks", ["leave", "door", "protocol"])
def test_no_file_is_given_where_a_desktop_is_not_opened_so(house: Estate, settings: Settings, lacks: str) -> None:
    if lacks == "leave":
        Pool.objects.update(native_clients=False)
    elif lacks == "protocol":
        Pool.objects.update(protocol=Pool.Protocol.VNC)
    else:
        settings.RDP_ADDRESS = ""
    with pytest.raises(Clash, match="in the browser only"):
        native.client_file(user=house.alice, desktop_id=house.desktop.pk, session_key="any")


def test_a_pool_whose_account_only_the_relay_knows_cannot_have_it(house: Estate) -> None:
    with pytest.raises(Invalid) as refused:
        pools.change_pool(
            actor=house.dana, pool_id=house.pool.pk, guest_account="pool", guest_user="vdi", guest_password="x"
        )
    assert list(refused.value.fields) == ["guest_account"]


def test_a_desktop_that_is_off_is_started_instead(house: Estate) -> None:
    Desktop.objects.update(power="off")
    with pytest.raises(Clash, match="is being started") as refused:
        native.client_file(user=house.alice, desktop_id=house.desktop.pk, session_key="any")
    assert refused.value.operation is not None


# --- coming in -------------------------------------------------------------------------------------------------------


def test_whoever_shows_it_first_is_let_in_and_may_come_back_from_there_alone(house: Estate) -> None:
    ticket = ask(house)
    first = native.admit(ticket=ticket, address=HOME)
    assert (first.user_id, first.desktop_id, first.client) == (house.alice.pk, house.desktop.pk, "native")
    assert native.admit(ticket=ticket, address=HOME).ticket_id == first.ticket_id
    assert refusal(ticket, ELSEWHERE) == native.ELSEWHERE
    entry = AuditEntry.objects.get(action="desktop.refuse_client")
    assert entry.object_id == str(house.desktop.pk)
    assert entry.changes["address"] == [HOME, ELSEWHERE]
    assert native.admit(ticket=ticket, address=HOME)


def test_a_file_not_used_in_time_is_worth_nothing(house: Estate) -> None:
    ticket = ask(house)
    Ticket.objects.update(expires_at=timezone.now())
    assert refusal(ticket) == native.TOO_LATE
    assert AuditEntry.objects.filter(action="desktop.refuse_client").count() == 1
    assert Ticket.objects.get().used_at is None


def test_a_ticket_of_the_browsers_opens_no_such_door_nor_one_of_a_file_the_browsers(house: Estate) -> None:
    key = cookie(house.alice)
    browsers = screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key=key).ticket
    assert refusal(browsers) == native.UNKNOWN
    with pytest.raises(Forbidden):
        screens.admit(ticket=ask(house, key), session_key=key, protocol=screens.RDP)


def test_a_desktop_that_changed_hands_is_not_opened_by_an_old_file(house: Estate) -> None:
    ticket = ask(house)
    Desktop.objects.update(epoch=house.desktop.epoch + 1)
    assert refusal(ticket) == native.CHANGED_HANDS


@pytest.mark.parametrize("how", ["signs out", "released", "entitlement", "password", "switched off"])
def test_what_ends_a_stream_shuts_the_door_too(house: Estate, how: str) -> None:
    key = cookie(house.alice)
    ticket = ask(house, key)
    native.admit(ticket=ticket, address=HOME)
    if how == "signs out":
        Session.objects.filter(session_key=key).delete()
    elif how == "released":
        brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    elif how == "entitlement":
        Entitlement.objects.filter(user=house.alice).delete()
    elif how == "password":
        house.alice.set_password("quite another password")
        house.alice.save()
    else:
        User.objects.filter(pk=house.alice.pk).update(is_active=False)
    assert refusal(ticket)
    assert refusal(ticket) == native.TOO_LATE
    assert AuditEntry.objects.filter(action="desktop.refuse_client").count() == 1


def test_a_token_may_ask_for_a_file_until_it_is_revoked(house: Estate) -> None:
    token, _ = people.make_token(actor=house.alice, user=house.alice, name="script")
    ticket = ticket_in(native.client_file(user=house.alice, desktop_id=house.desktop.pk, token=token))
    assert native.admit(ticket=ticket, address=HOME).token_id == token.pk
    people.revoke_token(actor=house.alice, token_id=token.pk)
    assert refusal(ticket) == "The API token that asked for this ticket is no longer valid."


# --- while it lives --------------------------------------------------------------------------------------------------


def test_while_its_stream_lives_a_program_may_come_back_and_not_long_after(house: Estate) -> None:
    ticket = ask(house)
    beat = start(native.admit(ticket=ticket, address=HOME))
    Ticket.objects.update(expires_at=timezone.now() + timedelta(seconds=5))
    screens.beat([beat])
    left = Ticket.objects.get().expires_at - timezone.now()
    assert timedelta(seconds=native.RECONNECT_S - 5) < left <= timedelta(seconds=native.RECONNECT_S)
    Ticket.objects.update(expires_at=timezone.now())
    screens.beat([beat])
    assert refusal(ticket) == native.TOO_LATE


def test_a_program_that_comes_back_takes_the_place_of_its_stream(house: Estate) -> None:
    ticket = ask(house)
    first = start(native.admit(ticket=ticket, address=HOME))
    second = start(native.admit(ticket=ticket, address=HOME))
    rows = {row.pk: row.end_reason for row in ScreenSession.objects.all()}
    assert rows == {first.session_id: screens.CAME_BACK, second.session_id: ""}


def test_its_screen_stands_among_ones_own_and_ended_there_does_not_come_back(house: Estate) -> None:
    key = cookie(house.alice)
    ticket = ask(house, key)
    admission = native.admit(ticket=ticket, address=HOME)
    beat = start(admission)
    (shown,) = screens_of(house.alice, screens.digest(key))
    assert (shown.device, shown.is_here, shown.session.client) == ("the Remote Desktop app", False, "native")
    assert presence.end_screen(user=house.alice, session_id=beat.session_id)
    assert screens.closures({beat.session_id: admission}) == {beat.session_id: presence.ENDED}
    assert refusal(ticket) == native.TOO_LATE


def test_whoever_is_disconnected_by_an_administrator_does_not_come_back_by_itself(house: Estate) -> None:
    ticket = ask(house)
    beat = start(native.admit(ticket=ticket, address=HOME))
    session = DesktopSession.objects.get()
    assert (session.client, session.address, session.state) == ("native", HOME, "connected")
    presence.disconnect(actor=house.dana, session_id=session.pk)
    assert ScreenSession.objects.get(pk=beat.session_id).end_reason == presence.ENDED_BY_STAFF
    assert refusal(ticket) == native.TOO_LATE


def test_a_stream_ended_for_good_does_not_come_back(house: Estate) -> None:
    ticket = ask(house)
    native.void(admission=native.admit(ticket=ticket, address=HOME))
    assert refusal(ticket) == native.TOO_LATE
    assert not AuditEntry.objects.filter(action="desktop.refuse_client").exists()
    assert guesses.ticket_wait_s(address=HOME) == 0


# --- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_redis_away", [False, True])
def test_an_address_that_shows_too_many_bad_tickets_is_not_listened_to(
    house: Estate, settings: Settings, is_redis_away: bool
) -> None:
    if is_redis_away:
        settings.REDIS_URL = "redis://127.0.0.1:1"
        pulse.connection.cache_clear()
        guesses._own.clear()
    ticket = ask(house)
    for _ in range(guesses.TICKET_LIMIT):
        assert refusal("x" * 43, ELSEWHERE) == native.UNKNOWN
    assert refusal(ticket, ELSEWHERE) == native.WAIT
    assert native.admit(ticket=ticket, address=HOME)
    told = [entry.changes["reason"][1] for entry in AuditEntry.objects.filter(action="client.refuse").order_by("at")]
    assert told == [native.UNKNOWN, native.WAIT]
    guesses._own.clear()


def test_who_has_one_address_of_ipv6_has_its_neighbours_too() -> None:
    assert guesses._ticket_key("2001:db8::1") == guesses._ticket_key("2001:db8::2:3:4:5")
    assert guesses._ticket_key("2001:db8::1") != guesses._ticket_key("2001:db8:0:1::1")
