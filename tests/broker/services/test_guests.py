"""Where a desktop's guest is, as whom, and whether it is still the one it was."""

from __future__ import annotations

import pytest
from django.test import Client

from broker.models import AuditEntry, Desktop, GuestCertificate, Operation, Pool, Ticket
from broker.services import brokering, guests, hypervisors, pools, screens
from broker.services.errors import Clash, Forbidden, Invalid
from tests.broker.portal.cast import Estate, estate

pytestmark = pytest.mark.django_db
FIRST, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def house(db: None) -> Estate:
    """Alice's desktop shows its guest's remote desktop."""
    house = estate()
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, protocol=Pool.Protocol.RDP, rdp_port=3390)
    Desktop.objects.update(addresses=["fe80::1", "fd00::7", "127.0.0.1", "10.1.2.3", "nonsense"])
    return house


def admitted(house: Estate) -> screens.Admission:
    client = Client()
    client.force_login(house.alice)
    key = client.session.session_key or ""
    opening = screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key=key)
    return screens.admit(ticket=opening.ticket, session_key=key, protocol=screens.RDP)


def test_connect_gives_a_ticket_at_once_and_orders_nothing_of_the_hypervisor(house: Estate) -> None:
    opening = screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key="any")
    assert (opening.protocol, opening.operation, opening.subprotocols) == ("rdp", None, [])
    assert opening.guest == screens.GuestRules(house.desktop.name, "ask", "")
    assert not Operation.objects.exists()
    assert Ticket.objects.get().protocol == "rdp"


def test_another_protocol_than_the_pools_is_refused(house: Estate) -> None:
    with pytest.raises(Invalid) as refused:
        screens.connect(user=house.alice, desktop_id=house.desktop.pk, protocol="vnc", session_key="any")
    assert refused.value.fields == {"protocol": "This desktop's is rdp."}


def test_a_ticket_for_rdp_opens_no_other_kind_of_screen_and_is_burned_by_the_try(house: Estate) -> None:
    client = Client()
    client.force_login(house.alice)
    key = client.session.session_key or ""
    opening = screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key=key)
    with pytest.raises(Forbidden, match="another kind"):
        screens.admit(ticket=opening.ticket, session_key=key, protocol=screens.VNC)
    with pytest.raises(Forbidden, match="used before"):
        screens.admit(ticket=opening.ticket, session_key=key, protocol=screens.RDP)


def test_the_way_leads_to_the_guests_own_addresses_only(house: Estate) -> None:
    way = guests.way_to(admitted(house))
    assert way == guests.Way(("10.1.2.3", "fd00::7"), 3390, asks_32_bpp=True, has_clipboard=True, account=None)


def test_without_an_address_there_is_no_way_yet(house: Estate) -> None:
    Desktop.objects.update(addresses=["127.0.0.1"])
    assert guests.way_to(admitted(house)) is None


def test_a_desktop_that_changed_hands_has_no_way_and_is_not_recognised(house: Estate) -> None:
    admission = admitted(house)
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    with pytest.raises(Forbidden):
        guests.way_to(admission)
    with pytest.raises(Forbidden):
        guests.recognise(admission=admission, sha256=FIRST)
    assert not GuestCertificate.objects.exists()


def test_a_certificate_is_trusted_when_first_met_and_no_other_one_after_it(house: Estate) -> None:
    admission = admitted(house)
    guests.recognise(admission=admission, sha256=FIRST)
    guests.recognise(admission=admission, sha256=FIRST)
    for _ in range(2):
        with pytest.raises(Clash, match="another certificate"):
            guests.recognise(admission=admission, sha256=OTHER)
    entry = AuditEntry.objects.get(action="desktop.refuse_certificate")
    assert (entry.object_name, entry.changes) == (house.desktop.name, {"certificate": [FIRST, OTHER]})
    guests.recognise(admission=admission, sha256=FIRST)


def test_another_epoch_or_machine_is_met_anew(house: Estate) -> None:
    guests.recognise(admission=admitted(house), sha256=FIRST)
    Desktop.objects.update(machine_id="another")
    guests.recognise(admission=admitted(house), sha256=OTHER)
    Desktop.objects.update(epoch=9)
    guests.recognise(admission=admitted(house), sha256=FIRST)
    assert GuestCertificate.objects.get().epoch == 9


def test_an_administrator_lets_a_guest_be_met_anew_and_nobody_else_does(house: Estate) -> None:
    admission = admitted(house)
    guests.recognise(admission=admission, sha256=FIRST)
    with pytest.raises(Forbidden):
        guests.forget_certificate(actor=house.alice, desktop_id=house.desktop.pk)
    for _ in range(2):
        guests.forget_certificate(actor=house.dana, desktop_id=house.desktop.pk)
    assert AuditEntry.objects.filter(action="desktop.forget_certificate", actor=house.dana).count() == 1
    guests.recognise(admission=admission, sha256=OTHER)


def test_a_pools_account_is_kept_encrypted_told_to_nobody_and_handed_to_the_relay(house: Estate) -> None:
    wishes = {"guest_account": "pool", "guest_user": "CORP\\vdi", "guest_password": "open sesame"}
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, **wishes)  # type: ignore[arg-type]
    pool = Pool.objects.get(pk=house.pool.pk)
    assert b"sesame" not in bytes(pool.guest_secret)
    way = guests.way_to(admitted(house))
    assert way
    assert way.account == guests.GuestAccount("CORP\\vdi", "open sesame")
    assert "sesame" not in repr(way)
    opening = screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key="any")
    assert opening.guest == screens.GuestRules(house.desktop.name, "pool", "CORP\\vdi")
    assert "sesame" not in str(list(AuditEntry.objects.values()))
    assert AuditEntry.objects.filter(action="pool.change", changes__guest_secret=["", "(secret)"]).exists()


def test_a_pools_password_stays_unless_it_is_named_and_moves_to_a_new_key(house: Estate) -> None:
    wishes = {"guest_account": "pool", "guest_user": "vdi", "guest_password": "open sesame"}
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, **wishes)  # type: ignore[arg-type]
    before = bytes(Pool.objects.get(pk=house.pool.pk).guest_secret)
    hypervisors.rotate_secrets()
    pool = pools.change_pool(actor=house.dana, pool_id=house.pool.pk, guest_user="other", guest_password=None)
    pool.refresh_from_db()
    assert bytes(pool.guest_secret) != before
    assert guests.account_of(pool) == guests.GuestAccount("other", "open sesame")
    assert guests.account_of(pools.change_pool(actor=house.dana, pool_id=pool.pk, guest_password="")) is None


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"protocol": "telnet"}, "protocol"),
        ({"rdp_port": 0}, "rdp_port"),
        ({"rdp_port": 65_536}, "rdp_port"),
        ({"guest_account": "root"}, "guest_account"),
        ({"guest_account": "pool", "guest_user": " "}, "guest_user"),
        ({"guest_user": "two\nlines"}, "guest_user"),
        ({"guest_password": "two\nlines"}, "guest_password"),
    ],
)
def test_what_cannot_be_is_refused_field_by_field(house: Estate, wishes: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, **wishes)  # type: ignore[arg-type]
    assert field in refused.value.fields
