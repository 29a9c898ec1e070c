"""Published applications: who may open them, what a session is told to start, and what ends them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from broker.domain.applications import Program
from broker.models import Application, AuditEntry, Desktop, Entitlement, Pool, Ticket
from broker.services import applications, brokering, entitlements, guests, native, pools, screens
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from tests.broker.portal.cast import Estate, estate

pytestmark = pytest.mark.django_db
FIELDS = ("name", "description", "icon", "guest", "command", "arguments", "folder", "is_enabled")


@pytest.fixture
def house(db: None) -> Estate:
    """Alice's desktop shows its guest's remote desktop."""
    house = estate()
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, protocol=Pool.Protocol.RDP)
    Desktop.objects.update(addresses=["10.1.2.3"])
    return house


def writer(house: Estate, **changes: str) -> Application:
    values: dict[str, Any] = {"name": "Writer", "command": "/usr/bin/libreoffice", "arguments": "--writer"} | changes
    return applications.publish(actor=house.dana, pool_id=house.pool.pk, **values)


def only_writer(house: Estate) -> Application:
    """Alice has it instead of the whole desktop."""
    made = writer(house)
    entitlements.entitle(actor=house.dana, pool_id=house.pool.pk, user_id=house.alice.pk, application_id=made.pk)
    for entitlement in Entitlement.objects.filter(application=None):
        entitlements.withdraw(actor=house.dana, entitlement_id=entitlement.pk)
    return made


def admitted(house: Estate, application: Application) -> screens.Admission:
    client = Client()
    client.force_login(house.alice)
    key = client.session.session_key or ""
    opening = screens.connect(
        user=house.alice, desktop_id=house.desktop.pk, session_key=key, application_id=application.pk
    )
    return screens.admit(ticket=opening.ticket, session_key=key, protocol=screens.RDP)


def test_who_may_have_an_application_opens_it_and_not_the_desktop_around_it(house: Estate) -> None:
    application = only_writer(house)
    way = guests.way_to(admitted(house, application))
    assert way is not None
    assert way.program == Program("Writer", "/usr/bin/libreoffice", "--writer")
    assert way.program.line == "/usr/bin/libreoffice --writer"
    with pytest.raises(Forbidden, match="the pool Office"):
        screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key="any")


def test_who_may_have_the_desktop_may_not_therefore_have_its_applications(house: Estate) -> None:
    application = writer(house)
    with pytest.raises(Forbidden, match="this application"):
        screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key="any", application_id=application.pk)
    assert not Ticket.objects.exists()


def test_an_application_lets_its_people_ask_for_a_desktop_of_the_pool(house: Estate) -> None:
    application = writer(house)
    entitlements.entitle(actor=house.dana, pool_id=house.pool.pk, user_id=house.bob.pk, application_id=application.pk)
    Entitlement.objects.filter(user=house.bob, application=None).delete()
    request, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert request.pool_id == house.pool.pk


def test_a_group_is_entitled_like_a_user_and_twice_is_once(house: Estate) -> None:
    application, group = writer(house), Group.objects.create(name="Writers")
    wish: dict[str, Any] = {"pool_id": house.pool.pk, "application_id": application.pk, "group_id": group.pk}
    first, is_new = entitlements.entitle(actor=house.dana, **wish)
    again, is_newer = entitlements.entitle(actor=house.dana, **wish)
    assert (first, is_new, is_newer) == (again, True, False)
    house.bob.groups.add(group)
    assert brokering.may_open(house.bob, house.pool.pk, application.pk)


def test_what_is_open_closes_when_the_application_is_not_offered_any_more(house: Estate) -> None:
    application = only_writer(house)
    admission = admitted(house, application)
    assert screens.why_not(admission) == ""
    values = {field: getattr(application, field) for field in FIELDS}
    applications.change(actor=house.dana, application_id=application.pk, **values | {"is_enabled": False})
    assert screens.why_not(admission) == "You no longer have access to this desktop."
    with pytest.raises(Forbidden, match="not offered"):
        guests.way_to(admission)
    with pytest.raises(Missing):
        admitted(house, application)


def test_withdrawn_it_goes_with_its_entitlements_and_tickets_and_the_desktop_stays(house: Estate) -> None:
    application = only_writer(house)
    admission = admitted(house, application)
    applications.withdraw(actor=house.dana, application_id=application.pk)
    assert not Entitlement.objects.filter(pool=house.pool).exists()
    assert screens.why_not(admission)
    house.desktop.refresh_from_db()
    assert house.desktop.state == "assigned"
    actions = list(AuditEntry.objects.filter(noun="application").order_by("pk").values_list("action", flat=True))
    assert actions == ["application.publish", "application.withdraw"]


def test_a_windows_application_is_refused_to_the_browser_with_the_reason(house: Estate) -> None:
    application = writer(house, guest="windows", command="||winword")
    entitlements.entitle(actor=house.dana, pool_id=house.pool.pk, user_id=house.alice.pk, application_id=application.pk)
    with pytest.raises(Clash, match="browsers cannot show a single Windows application"):
        admitted(house, application)


def test_a_file_for_a_program_of_ones_own_names_the_application(house: Estate, settings: object) -> None:
    settings.RDP_ADDRESS = "desk.example:3390"  # type: ignore[attr-defined]
    Pool.objects.update(native_clients=True)
    application = writer(house, guest="windows", command="||winword", arguments="/n")
    entitlements.entitle(actor=house.dana, pool_id=house.pool.pk, user_id=house.alice.pk, application_id=application.pk)
    file = native.client_file(
        user=house.alice, desktop_id=house.desktop.pk, session_key="any", application_id=application.pk
    )
    assert file.name == "Writer.rdp"
    assert "remoteapplicationprogram:s:||winword" in file.content.decode("utf-16").split("\r\n")
    assert Ticket.objects.get().application == application


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"name": ""}, "name"),
        ({"command": " "}, "command"),
        ({"command": "a\nb"}, "command"),
        ({"command": "x" * 150, "arguments": "y" * 150}, "arguments"),
        ({"folder": "\0"}, "folder"),
        ({"icon": "nothing"}, "icon"),
        ({"guest": "amiga"}, "guest"),
    ],
)
def test_what_cannot_be_is_refused_field_by_field(house: Estate, wishes: dict[str, str], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        writer(house, **wishes)
    assert list(refused.value.fields) == [field]
    assert not Application.objects.exists()


def test_a_pool_that_shows_the_machines_screen_has_no_applications(house: Estate) -> None:
    Pool.objects.update(protocol=Pool.Protocol.VNC)
    with pytest.raises(Invalid) as refused:
        writer(house)
    assert "VNC" in refused.value.fields["pool"]


def test_two_of_one_name_are_refused(house: Estate) -> None:
    writer(house)
    with pytest.raises(Invalid) as refused:
        writer(house, name="WRITER")
    assert "already" in refused.value.fields["name"]


def test_nobody_else_publishes(house: Estate) -> None:
    with pytest.raises(Forbidden):
        applications.publish(actor=house.alice, pool_id=house.pool.pk, name="Mine", command="sh")
    application = writer(house)
    with pytest.raises(Forbidden):
        applications.withdraw(actor=house.alice, application_id=application.pk)
