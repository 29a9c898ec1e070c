"""A pool's local account: each assignment has a password of its own, which only the broker and the guest ever know."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import Assignment, AuditEntry, Desktop, Event, Hypervisor, Operation, Pool, Ticket
from broker.services import brokering, guest_passwords, guests, hypervisors, operations, outcomes, pools, screens
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from connectors.base import Outcome, Stage
from tests.broker.plant import Plant

PASSWORDS = Operation.objects.filter(kind=Operation.Kind.PASSWORD).order_by("created_at")


@pytest.fixture
def office(plant: Plant) -> Plant:
    """Guests that know the account `desk`; Alice has a desktop that answers."""
    plant.add_hypervisor()
    account = {"protocol": "rdp", "guest_account": "local", "guest_user": "desk"}
    plant.add_pool(starts_powered_off=False, **account)
    plant.fill()
    plant.ask(plant.alice)
    Desktop.objects.update(addresses=["10.1.2.3"])
    return plant


def desktop_of(user: User) -> Desktop:
    return Assignment.objects.select_related("desktop__pool", "desktop__hypervisor").get(user=user, until=None).desktop


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def opening(user: User) -> tuple[screens.Opening, screens.Admission]:
    """As far as the relay's question where the guest is."""
    key = signed_in(user).session.session_key or ""
    opened = screens.connect(user=user, desktop_id=desktop_of(user).pk, session_key=key)
    return opened, screens.admit(ticket=opened.ticket, session_key=key, protocol=screens.RDP)


def account(office: Plant, user: User) -> guests.GuestAccount:
    """By which the relay signs this person in, once whatever has to be done first was done."""
    _, admission = opening(user)
    office.pump()
    way = guests.way_to(admission)
    assert way
    assert way.account
    return way.account


def in_guest(office: Plant, user: User) -> str:
    """What the guest itself takes for its account."""
    return office.world().passwords(desktop_of(user).machine_id)["desk"]


def everything_written() -> str:
    """Rows as anybody could read them who has the database and no key."""
    tables: list[Any] = [Operation, Event, AuditEntry, Assignment, Ticket, Desktop, Pool]
    return str([list(table.objects.values()) for table in tables])


# --- opening ---------------------------------------------------------------------------------------------------------


def test_the_first_opening_gives_the_guest_a_password_that_the_relay_alone_is_told(
    office: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    opened, admission = opening(office.alice)
    order = PASSWORDS.get()
    assert opened.operation == order
    assert (order.changes, order.rank, order.requested_by) == (False, operations.RANK_SCREEN, office.alice)
    assert opened.guest == screens.GuestRules(desktop_of(office.alice).name, "local", "desk")
    assert guests.way_to(admission) is None
    office.pump()
    way = guests.way_to(admission)
    assert way
    assert way.account == guests.GuestAccount("desk", in_guest(office, office.alice))
    page = signed_in(office.alice).post(f"/desktops/{admission.desktop_id}/connect/").content.decode()
    assert '"account": "local"' in page
    assert way.account.password not in everything_written() + repr(way) + repr(opened) + caplog.text + page


def test_who_opens_it_again_waits_for_nothing_and_comes_in_by_the_same_password(office: Plant) -> None:
    first = account(office, office.alice)
    opened, admission = opening(office.alice)
    assert opened.operation is None
    way = guests.way_to(admission)
    assert way
    assert way.account == first
    assert PASSWORDS.count() == 1


def test_two_openings_at_once_wait_for_one_order(office: Plant) -> None:
    (first, _), (second, admission) = opening(office.alice), opening(office.alice)
    assert first.operation == second.operation == PASSWORDS.get()
    office.pump()
    assert guests.way_to(admission)


def test_it_waits_for_no_other_change_of_the_desktop(office: Plant) -> None:
    desktop = desktop_of(office.alice)
    machine = operations.machine_parameters(desktop)
    operations.order(
        kind=Operation.Kind.SNAPSHOT, hypervisor_id=desktop.hypervisor_id, desktop=desktop,
        parameters=machine | {"name": "s"},
    )  # fmt: skip
    assert opening(office.alice)[0].operation == PASSWORDS.get()


def test_each_assignment_has_a_password_of_its_own(office: Plant) -> None:
    office.ask(office.bob)
    Desktop.objects.update(addresses=["10.1.2.3"])
    assert account(office, office.alice).password != account(office, office.bob).password


def test_a_password_that_was_set_and_whose_answer_was_lost_is_set_again_and_is_the_same(office: Plant) -> None:
    _, admission = opening(office.alice)
    office.world().faults.set("drop", 1)
    office.pump()
    lost = in_guest(office, office.alice)
    assert guests.way_to(admission) is None
    office.pauses_pass()
    Operation.objects.update(call_deadline=timezone.now() - timedelta(seconds=1))
    office.pump()
    way = guests.way_to(admission)
    assert way
    assert way.account == guests.GuestAccount("desk", lost)
    assert [attempt for _, kind, attempt, _ in office.world().acts("password%") if kind == "SetGuestPassword"] == [1, 2]


def test_a_guest_that_does_not_know_the_account_is_said_and_asked_again_by_the_next_opening(office: Plant) -> None:
    Pool.objects.update(guest_user="nobody")
    _, admission = opening(office.alice)
    office.pump()
    with pytest.raises(Clash, match="does not take a password for 'nobody'"):
        guests.way_to(admission)
    Pool.objects.update(guest_user="desk")
    assert account(office, office.alice).user == "desk"


def test_another_account_of_the_pool_gets_another_password(office: Plant) -> None:
    first = account(office, office.alice)
    Pool.objects.update(guest_user="other")
    second = account(office, office.alice)
    assert (second.user, second.password != first.password) == ("other", True)
    assert office.world().passwords(desktop_of(office.alice).machine_id)["other"] == second.password


def test_nobody_else_has_one_set(office: Plant) -> None:
    desktop = desktop_of(office.alice)
    with pytest.raises(Missing):
        guest_passwords.prepare(user=office.bob, desktop=desktop)
    assert not PASSWORDS.exists()


def test_where_the_platform_cannot_set_one_its_user_types(office: Plant) -> None:
    Hypervisor.objects.update(takes=["CloneMachine"])
    opened, admission = opening(office.alice)
    assert opened.operation is None
    assert opened.guest == screens.GuestRules(desktop_of(office.alice).name, "ask", "")
    way = guests.way_to(admission)
    assert way
    assert way.account is None


# --- when it no longer holds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("happens", ["refused", "another machine", "reverted", "met anew"])
def test_a_guest_that_may_not_have_it_any_more_gets_the_same_anew(office: Plant, happens: str) -> None:
    first = account(office, office.alice)
    desktop, (_, admission) = desktop_of(office.alice), opening(office.alice)
    if happens == "refused":
        guests.distrust(admission=admission)
        assert Event.objects.filter(kind="desktop.password_refused", desktop=desktop).count() == 1
    elif happens == "another machine":
        Assignment.objects.filter(user=office.alice).update(guest_machine="elsewhere")
    elif happens == "reverted":
        revert(desktop)
    else:
        guests.forget_certificate(actor=office.dana, desktop_id=desktop.pk)
    with pytest.raises(Clash, match="Open it again"):
        guests.way_to(admission)
    assert account(office, office.alice) == first
    assert PASSWORDS.count() == 2


def revert(desktop: Desktop) -> None:
    order = operations.draft(
        kind=Operation.Kind.REVERT, hypervisor_id=desktop.hypervisor_id, desktop=desktop, parameters={}
    )
    order.state = Operation.State.RUNNING
    order.save()
    outcomes.apply(desktop.hypervisor, 0, [Outcome(key=str(order.pk), stage=Stage.DONE)])


def test_a_stream_of_an_earlier_user_distrusts_nothing(office: Plant) -> None:
    account(office, office.alice)
    _, admission = opening(office.alice)
    Desktop.objects.filter(pk=admission.desktop_id).update(epoch=99)
    guests.distrust(admission=admission)
    assert Assignment.objects.get(user=office.alice).guest_machine
    with pytest.raises(Forbidden):
        guests.way_to(admission)


# --- the end ---------------------------------------------------------------------------------------------------------


def test_at_release_the_guest_gets_another_one_that_nobody_keeps_before_its_disk_goes(office: Plant) -> None:
    first, desktop = account(office, office.alice), desktop_of(office.alice)
    assert brokering.release_desktop(actor=office.alice, desktop_id=desktop.pk) is None
    ended = Assignment.objects.get(user=office.alice)
    assert (ended.guest_user, bytes(ended.guest_secret), ended.guest_machine) == ("", b"", "")
    kinds = Operation.objects.filter(desktop=desktop, state="queued").values_list("kind", flat=True)
    assert list(kinds) == ["password"]
    office.pump()
    left = office.world().passwords(desktop.machine_id)["desk"]
    assert left != first.password
    assert left not in everything_written()
    office.until(lambda: desktop_again(desktop).state == State.READY, "it is clean")
    assert office.world().passwords(desktop.machine_id) == {}


def desktop_again(desktop: Desktop) -> Desktop:
    desktop.refresh_from_db()
    return desktop


def test_a_guest_that_does_not_listen_at_release_is_recycled_all_the_same(office: Plant) -> None:
    account(office, office.alice)
    desktop = desktop_of(office.alice)
    office.world().faults.set("silent")
    brokering.release_desktop(actor=office.alice, desktop_id=desktop.pk)
    late = PASSWORDS.last()
    assert late
    assert late.deadline_at - late.created_at <= timedelta(seconds=guest_passwords.REPLACE_S)
    Operation.objects.filter(pk=late.pk).update(deadline_at=timezone.now())
    office.pump()
    late.refresh_from_db()
    assert late.state == Operation.State.FAILED
    office.world().faults.clear("silent")
    office.until(lambda: desktop_again(desktop).state == State.READY, "it is clean")


@pytest.mark.parametrize("why", ["never opened", "off", "host is down", "cannot any more", "busy"])
def test_where_there_is_nothing_to_replace_or_nobody_hears_it_the_disk_goes_at_once(office: Plant, why: str) -> None:
    if why != "never opened":
        account(office, office.alice)
    desktop = desktop_of(office.alice)
    if why == "off":
        Desktop.objects.update(power="off")
    elif why == "host is down":
        Hypervisor.objects.update(status=Hypervisor.Status.DOWN)
    elif why == "cannot any more":
        Hypervisor.objects.update(takes=["RecycleMachine"])
    elif why == "busy":
        fly(desktop, Operation.Kind.POWER, {"action": "reboot"})
    released = brokering.release_desktop(actor=office.alice, desktop_id=desktop.pk)
    assert (released is None) == (why == "busy")
    assert not PASSWORDS.filter(epoch=desktop_again(desktop).epoch).exists()
    assert not Assignment.objects.exclude(guest_secret=b"").exists()


def fly(desktop: Desktop, kind: Operation.Kind, more: dict[str, str]) -> Operation:
    """An order that the platform is at."""
    order = operations.draft(
        kind=kind, hypervisor_id=desktop.hypervisor_id, desktop=desktop,
        parameters=operations.machine_parameters(desktop) | more, changes=kind != Operation.Kind.PASSWORD,
    )  # fmt: skip
    order.state, order.attempt = Operation.State.RUNNING, 1
    order.save()
    return order


def test_an_order_that_outlives_its_assignment_sets_what_nobody_keeps_and_is_nobody_elses(office: Plant) -> None:
    desktop = desktop_of(office.alice)
    opening(office.alice)
    order = PASSWORDS.get()
    assert guest_passwords.of_orders([order]).keys() == {order.pk}
    Operation.objects.update(state="running")
    brokering.release_desktop(actor=office.alice, desktop_id=desktop.pk)
    assert guest_passwords.of_orders([order]) == {}
    Assignment.objects.create(
        pool=desktop.pool, user=office.bob, desktop=desktop, since=timezone.now(), guest_user="desk", guest_secret=b"x"
    )
    assert guest_passwords.of_orders([order]) == {}
    guest_passwords.taken([order])
    assert Assignment.objects.get(user=office.bob).guest_machine == ""


def test_what_pumps_send_is_looked_up_only_where_a_password_is_to_be_set(
    office: Plant, django_assert_num_queries: Any
) -> None:
    desktop = desktop_of(office.alice)
    with django_assert_num_queries(0):
        assert guest_passwords.of_orders([draft(desktop)]) == {}


def draft(desktop: Desktop) -> Operation:
    return operations.draft(kind="power", hypervisor_id=desktop.hypervisor_id, desktop=desktop, parameters={})


def test_its_secret_moves_to_a_new_key_and_goes_on_opening_the_guest(office: Plant) -> None:
    first = account(office, office.alice)
    before = bytes(Assignment.objects.get(user=office.alice).guest_secret)
    hypervisors.rotate_secrets()
    assert bytes(Assignment.objects.get(user=office.alice).guest_secret) != before
    assert account(office, office.alice) == first


def test_such_an_order_is_not_retried_by_hand(office: Plant) -> None:
    opening(office.alice)
    order = PASSWORDS.get()
    operations.cancel_operation(actor=office.dana, operation_id=order.pk)
    with pytest.raises(Clash, match="repeats this by itself"):
        operations.retry_operation(actor=office.dana, operation_id=order.pk)
    assert account(office, office.alice).user == "desk"


# --- the pool --------------------------------------------------------------------------------------------------------


def test_a_pool_that_no_platform_can_set_passwords_for_is_refused_in_words(office: Plant) -> None:
    pool = pools.change_pool(actor=office.dana, pool_id=office.pool.pk, guest_account="ask")
    Hypervisor.objects.update(takes=["CloneMachine"])
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=office.dana, pool_id=pool.pk, guest_account="local")
    words = "Nowhere that it builds can passwords be set in guests: not on instant-1."
    assert refused.value.fields == {"guest_account": words}
    wish = pools.MemberWish(copy_id=desktop_of(office.alice).copy_id)
    fields: Any = {"protocol": "rdp", "guest_account": "local", "guest_user": "desk"}
    with pytest.raises(Invalid) as refused:
        pools.create_pool(actor=office.dana, members=[wish], name="New", naming="new-##", **fields)
    assert refused.value.fields == {"guest_account": words}
    assert pools.create_pool(actor=office.dana, name="New", naming="new-##", **fields).guest_account == "local"


def test_one_platform_of_several_that_can_is_enough(office: Plant) -> None:
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, guest_account="ask")
    other = Hypervisor.objects.create(name="esxi-01", kind="esxi", status_since=timezone.now())
    copy = desktop_of(office.alice).copy
    copy.pk, copy.hypervisor = None, other
    copy.save(force_insert=True)
    office.pool.members.create(hypervisor=other, copy=copy)
    pool = pools.change_pool(actor=office.dana, pool_id=office.pool.pk, guest_account="local")
    assert pool.guest_account == "local"


@pytest.mark.parametrize(
    ("wishes", "field"), [({"guest_user": " "}, "guest_user"), ({"native_clients": True}, "native_clients")]
)
def test_what_a_local_account_cannot_be_is_refused(office: Plant, wishes: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=office.dana, pool_id=office.pool.pk, **wishes)
    assert list(refused.value.fields) == [field]
