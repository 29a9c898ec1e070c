"""What goes wrong at a hypervisor: each a clear message, and nothing lost or left behind.

On the instant hypervisor, whose faults strike on demand; the same broker meets real ones in the journeys.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import Assignment, AuditEntry, Desktop, Event, Hypervisor, Operation, PoolMember, Request
from broker.models.operations import UNFINISHED
from broker.services import brokering, desktops, entitlements, hypervisors, inventory, pools, power, pump
from broker.services.errors import Clash, Invalid, Missing
from tests.broker.plant import PASSWORD, Plant
from tests.doubles.instant.connector import InstantConnector
from tests.doubles.instant.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.close()


@pytest.fixture
def office(plant: Plant) -> Plant:
    """One hypervisor, a pool with two ready desktops."""
    plant.add_hypervisor()
    plant.add_pool()
    plant.fill()
    return plant


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every time that a hypervisor was called, and so signed in to: its world."""
    found: list[str] = []
    reach = InstantConnector._reach_endpoint

    def counted(connector: InstantConnector, deadline: float) -> World:
        found.append(connector.given.world)
        return reach(connector, deadline)

    monkeypatch.setattr(InstantConnector, "_reach_endpoint", counted)
    return found


# --- it works at all -------------------------------------------------------------------------------------------------


def test_a_pool_fills_is_used_and_recycled_and_nobody_meets_anothers_files(office: Plant) -> None:
    mine = office.ask(office.alice)
    assert mine.state == Request.State.READY
    desktop = mine.desktop
    assert desktop is not None
    office.world().write(desktop.machine_id, "alice's diary")
    brokering.release_desktop(actor=office.alice, desktop_id=desktop.pk)
    office.until(lambda: office.count(State.READY) >= 2 and not office.count(State.RECYCLING), "it is clean again")
    assert all("diary" not in office.world().read(machine.id) for machine in office.world().machines())
    office.assert_tidy()


# --- the endpoint ----------------------------------------------------------------------------------------------------


def test_an_unreachable_host_is_said_to_be_and_nothing_is_lost(office: Plant, calls: list[str]) -> None:
    before = {d.pk: d.state for d in office.desktops()}
    office.world().faults.set("refuse")
    office.look()
    down = office.hypervisor()
    assert down.status == Hypervisor.Status.DOWN
    assert "refused the connection" in down.status_reason
    assert down.retry_at is not None
    calls.clear()
    Hypervisor.objects.update(retry_at=timezone.now() + timedelta(minutes=1))
    office.look()  # a hint that comes too early
    assert not calls
    request = office.ask(office.alice)
    assert request.state == Request.State.APPROVED
    office.reconcile()
    request.refresh_from_db()
    assert "instant-1 is down" in request.reason
    assert {d.pk: d.state for d in office.desktops()} == before
    office.world().faults.clear()
    office.until(lambda: office.count(State.ASSIGNED) == 1, "Alice is served once it is back")
    office.assert_tidy()
    told = Event.objects.filter(kind__in=["hypervisor.lost", "hypervisor.back"]).order_by("id")
    assert [event.kind for event in told] == ["hypervisor.back", "hypervisor.lost", "hypervisor.back"]


@pytest.mark.parametrize("first", ["look", "pump"])
@pytest.mark.parametrize(
    ("knob", "value", "words"),
    [
        ("password", "another one", "refused account 'deskyard'"),
        ("certificate", "", "a certificate that is not the trusted one"),
    ],
)
def test_a_host_that_refuses_us_is_asked_once_and_then_left_alone(
    office: Plant, calls: list[str], knob: str, value: str, words: str, first: str
) -> None:
    mine = office.ask(office.alice).desktop
    assert mine is not None
    order = power.set_power(actor=office.alice, desktop_id=mine.pk, action="off")
    before = {d.pk: d.state for d in office.desktops()}
    calls.clear()
    office.world().faults.set(knob, value)
    getattr(office, first)()
    refused = office.hypervisor()
    assert refused.status == Hypervisor.Status.REFUSED
    assert words in refused.status_reason
    assert PASSWORD not in refused.status_reason
    for _ in range(2):
        assert not inventory.due()
        assert not pump.backlog()
        office.look()  # a hint that comes late
        office.pump()
        office.pauses_pass()
    assert len(calls) == 1
    request = office.ask(office.bob)
    assert request.state == Request.State.APPROVED
    office.reconcile()
    request.refresh_from_db()
    assert "instant-1 refuses the sign-in" in request.reason
    assert {d.pk: d.state for d in office.desktops()} == before
    order.refresh_from_db()
    assert order.state in UNFINISHED
    office.assert_tidy()


def test_an_account_that_is_corrected_serves_who_waits(office: Plant) -> None:
    office.world().faults.set("password", "another one")
    office.look()
    office.ask(office.alice)
    hypervisors.change_hypervisor(
        actor=office.dana,
        hypervisor_id=office.hypervisor().pk,
        name="instant-1",
        values={"world": str(office.world().folder), "password": "another one", "boot_s": "0", "latency_s": "0"},
    )
    office.until(lambda: office.count(State.ASSIGNED) == 1, "Alice is served once the account is right")
    assert office.hypervisor().status == Hypervisor.Status.UP
    assert not AuditEntry.objects.filter(changes__icontains="another one").exists()
    office.assert_tidy()


def test_a_certificate_that_is_put_right_serves_who_waits_once_somebody_looks(office: Plant, calls: list[str]) -> None:
    office.world().faults.set("certificate")
    office.look()
    office.ask(office.alice)
    calls.clear()
    hypervisors.recheck_hypervisor(actor=office.dana, hypervisor_id=office.hypervisor().pk)
    for _ in range(2):
        office.step()
    assert len(calls) == 1, "one try for each asking"
    assert office.hypervisor().status == Hypervisor.Status.REFUSED
    office.world().faults.clear()
    hypervisors.recheck_hypervisor(actor=office.dana, hypervisor_id=office.hypervisor().pk)
    office.until(lambda: office.count(State.ASSIGNED) == 1, "Alice is served once the certificate is right")
    assert office.hypervisor().status == Hypervisor.Status.UP
    office.assert_tidy()


def test_half_open_tcp_costs_one_deadline_and_no_machine(office: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.services.pump.CALL_S", 0.5)
    office.ask(office.alice)
    office.reconcile()
    office.world().faults.set("hang")
    begun = time.monotonic()
    office.pump()
    assert time.monotonic() - begun < 6, "the deadline was 0.5 s"
    assert office.hypervisor().status == Hypervisor.Status.DOWN
    assert "no answer in time" in office.hypervisor().status_reason
    office.world().faults.clear()
    time.sleep(0.5)
    office.fill()
    office.assert_tidy()


def test_a_lost_answer_makes_no_second_machine(office: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.services.pump.CALL_S", 0.5)
    office.ask(office.alice)
    office.reconcile()
    office.world().faults.set("drop", 1)
    office.pump()
    assert office.hypervisor().status == Hypervisor.Status.DOWN
    time.sleep(0.6)
    office.fill()
    office.assert_tidy()
    assert len(office.world().machines()) == 3
    made = [key for key, *_ in office.world().acts("machine")]
    assert len(made) == len(set(made)) == 3


# --- orders ----------------------------------------------------------------------------------------------------------


def test_an_error_in_mid_clone_is_told_in_the_platforms_words_and_leaves_nothing(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=1)
    plant.world().faults.set("fail_clone", 1)
    plant.step()
    failed = Operation.objects.get(state=Operation.State.FAILED)
    assert "failed when it was half done" in failed.error
    assert failed.platform_words == "internal error 0xC10E"
    assert plant.count(State.FAILED) == 1
    assert not plant.world().machines()
    member = PoolMember.objects.get(pool=plant.pool)
    assert member.failures == 1
    assert member.hold_until is not None
    assert "half done" in member.hold_reason
    plant.fill(1)
    plant.assert_tidy()
    assert PoolMember.objects.get(pool=plant.pool).failures == 0


def test_a_failing_template_is_not_tried_in_a_loop(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=8)
    plant.world().faults.set("fail_clone")
    for _ in range(6):
        plant.step()
    assert Operation.objects.filter(kind=Operation.Kind.CLONE).count() <= 8
    request = plant.ask(plant.alice)
    plant.reconcile()
    request.refresh_from_db()
    assert "on hold" in request.reason
    assert "half done" in request.reason


def test_a_full_storage_is_said_and_the_other_hypervisor_is_used(plant: Plant) -> None:
    plant.add_hypervisor("instant-1")
    plant.add_hypervisor("instant-2")
    plant.add_pool(spare=4)
    plant.world("instant-1").faults.set("storage_full")
    plant.fill(4)
    assert {d.hypervisor.name for d in plant.desktops(State.READY)} == {"instant-2"}
    full = Operation.objects.filter(error_kind="capacity_exhausted").first()
    assert full is not None
    assert "no room for a disk" in full.error
    assert not plant.world("instant-1").machines()
    plant.assert_tidy()


def test_a_host_without_memory_is_not_promised_twice(plant: Plant) -> None:
    plant.add_hypervisor(memory_mib=1024)
    plant.add_pool(spare=5)
    for _ in range(3):
        plant.step()
    assert plant.count(State.READY) == 2
    assert len(plant.world().acts("machine")) == 2
    plant.ask(plant.alice)
    plant.ask(plant.bob)
    waiting = brokering.request_desktop(user=_entitled(plant, "carol"), pool_id=plant.pool.pk)[0]
    plant.reconcile()
    waiting.refresh_from_db()
    assert "512 MiB wanted, 0 MiB free of 1024 (1024 in use or promised)" in waiting.reason


def test_a_busy_platform_is_asked_again_later(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=1)
    plant.world().faults.set("busy", 2)
    plant.fill(1)
    assert Operation.objects.filter(kind=Operation.Kind.CLONE).count() == 1
    assert Operation.objects.get(kind=Operation.Kind.CLONE).state == Operation.State.DONE
    plant.assert_tidy()


def test_a_failed_recycle_keeps_the_desktop_from_everybody(office: Plant) -> None:
    mine = office.ask(office.alice).desktop
    assert mine is not None
    office.fill()
    office.world().write(mine.machine_id, "alice's diary")
    office.world().faults.set("fail_clone", 1)
    brokering.release_desktop(actor=office.alice, desktop_id=mine.pk)
    office.pump()
    mine.refresh_from_db()
    assert mine.state == State.FAILED
    assert "half done" in mine.failure
    office.step()
    assert office.count(State.READY) == 2
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, spare=3)
    office.until(lambda: office.count(State.READY) == 3, "it was tried again, as it is needed")
    mine.refresh_from_db()
    assert mine.state == State.READY
    assert all("diary" not in office.world().read(machine.id) for machine in office.world().machines())
    office.assert_tidy()


def test_a_guest_that_falls_silent_is_given_to_nobody_and_gets_a_fresh_disk(office: Plant) -> None:
    office.world().faults.set("silent")
    office.look()
    assert office.ask(office.alice).state == Request.State.APPROVED
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, spare=1, maximum=2)
    office.step()
    assert office.count(State.READY) == 2
    long_ago = timezone.now() - timedelta(seconds=office.pool.prepare_timeout_s)
    Desktop.objects.update(observed_at=long_ago, state_since=long_ago)
    Hypervisor.objects.update(status_since=long_ago)
    office.world().faults.clear()
    office.reconcile()
    assert office.count(State.RECYCLING) == 1
    office.until(lambda: office.count(State.ASSIGNED) == 1, "Alice has one that answers")
    office.assert_tidy()


# --- listings --------------------------------------------------------------------------------------------------------


def test_half_the_machines_missing_from_a_listing_puts_the_hypervisor_in_doubt(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=14)
    plant.fill(14)
    plant.world().faults.set("omit", 0.5)
    for _ in range(3):
        plant.look()
    doubted = plant.hypervisor()
    assert doubted.status == Hypervisor.Status.DOUBT
    assert "7 of" in doubted.status_reason
    assert plant.count(State.MISSING) == 0
    orders = Operation.objects.count()
    plant.reconcile()
    plant.pump()
    assert Operation.objects.count() == orders
    assert len(plant.world().machines()) == 14
    plant.world().faults.clear()
    plant.look()
    assert plant.hypervisor().status == Hypervisor.Status.UP
    assert plant.count(State.READY) == 14


def test_half_the_machines_really_gone_are_believed_once_an_administrator_says_so(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=14)
    plant.fill(14)
    for machine in plant.world().machines()[:7]:
        plant.world().remove_machine(machine.id)
    for _ in range(2):
        plant.look()
    assert plant.hypervisor().status == Hypervisor.Status.DOUBT
    hypervisors.confirm_absence(actor=plant.dana, hypervisor_id=plant.hypervisor().pk)
    for _ in range(2):
        plant.look()
    assert plant.count(State.MISSING) == 7
    plant.fill(13)
    assert plant.count(State.READY) == 13
    plant.assert_tidy()


def test_one_missing_machine_is_believed_after_two_complete_listings(office: Plant) -> None:
    lost = office.desktops(State.READY)[0]
    office.world().remove_machine(lost.machine_id)
    office.look()
    lost.refresh_from_db()
    assert lost.state == State.READY
    office.look()
    lost.refresh_from_db()
    assert lost.state == State.MISSING


def test_a_missing_desktop_of_a_user_is_never_rebuilt_and_comes_back_as_his(office: Plant) -> None:
    mine = office.ask(office.alice).desktop
    assert mine is not None
    office.fill()
    office.world().faults.set("omit", 1)
    for _ in range(2):
        office.look()
    mine.refresh_from_db()
    assert mine.state == State.MISSING
    assert Assignment.objects.filter(desktop=mine, user=office.alice, until=None).exists()
    office.reconcile()
    assert not Operation.objects.filter(desktop=mine, kind__in=["recycle", "delete"]).exists()
    office.world().faults.clear()
    office.look()
    mine.refresh_from_db()
    assert mine.state == State.ASSIGNED


def test_a_partial_listing_says_nothing_of_what_it_leaves_out(office: Plant) -> None:
    office.world().faults.set("omit", 1)
    office.world().faults.set("partial")
    for _ in range(4):
        office.look()
    assert office.count(State.READY) == 2
    assert office.hypervisor().status == Hypervisor.Status.UP


def test_a_strangers_machine_is_left_alone(office: Plant) -> None:
    foreign = office.world().add_foreign_machine("somebody's", installation="another", key="42")
    unknown = office.world().add_foreign_machine("nobody's")
    for _ in range(3):
        office.step()
    assert {foreign, unknown} <= {machine.id for machine in office.world().machines()}


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_name_that_a_stranger_took_is_passed_over(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.world().add_foreign_machine("office-001")
    plant.look()
    plant.add_pool(spare=1)
    plant.fill(1)
    assert plant.desktops(State.READY)[0].name == "office-002"
    assert not Operation.objects.filter(state=Operation.State.FAILED).exists()


def test_a_name_taken_behind_our_back_fails_in_words_and_the_next_one_is_used(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=1)
    plant.world().add_foreign_machine("office-001")
    plant.fill(1)
    assert "already a machine named 'office-001'" in Operation.objects.filter(error_kind="conflict")[0].error
    assert plant.desktops(State.READY)[0].name != "office-001"
    assert plant.world().machine_named("office-001") is not None


@pytest.mark.parametrize(
    "name", ["two words", "it's", 'say "hi"', "line\nbreak", "../../etc", "x" * 300, "büro", "", "pc", "#a#"]
)
def test_a_naming_pattern_that_makes_bad_names_is_refused_in_words(office: Plant, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        pools.create_pool(actor=office.dana, name="Another", naming=f"{name}-#" if name not in ("", "pc") else name)
    assert refused.value.fields["naming"]


@pytest.mark.parametrize("name", ["two words", "it's", 'say "hi"', "../../etc", "büro", "名前", "<b>bold</b>", "%s{}"])
def test_an_awkward_name_of_a_hypervisor_is_only_a_name(plant: Plant, name: str) -> None:
    plant.worlds["odd"] = world = World.make(plant.folder / "odd")
    values = {"world": str(world.folder), "password": PASSWORD, "latency_s": "0", "boot_s": "0"}
    made = hypervisors.register_hypervisor(actor=plant.dana, name=name, kind="instant", values=values)
    plant.hypervisors["odd"] = made
    plant.look("odd")
    assert plant.hypervisor("odd").status == Hypervisor.Status.UP
    assert plant.hypervisor("odd").name == name
    with pytest.raises(Invalid):
        hypervisors.register_hypervisor(actor=plant.dana, name=name, kind="instant", values=values)


# --- the last user's late order --------------------------------------------------------------------------------------


def test_the_last_users_late_order_never_reaches_the_next_user(office: Plant) -> None:
    mine = office.ask(office.alice).desktop
    assert mine is not None
    late = power.set_power(actor=office.alice, desktop_id=mine.pk, action="off")
    brokering.release_desktop(actor=office.alice, desktop_id=mine.pk)
    office.until(lambda: office.count(State.READY) >= 2 and not office.count(State.RECYCLING), "it is clean again")
    # Bob gets the very same desktop, and Alice's order turns up in the queue once more.
    Desktop.objects.filter(pool=office.pool).exclude(pk=mine.pk).update(is_in_maintenance=True)
    mine.refresh_from_db()
    assert mine.state == State.READY
    assert office.ask(office.bob).desktop_id == mine.pk
    assert Assignment.objects.get(until=None).user == office.bob
    late.refresh_from_db()
    assert late.state == Operation.State.CANCELLED
    Operation.objects.filter(pk=late.pk).update(state=Operation.State.QUEUED, finished_at=None)
    office.pump()
    late.refresh_from_db()
    assert late.state == Operation.State.CANCELLED
    assert "changed hands" in late.error
    machine = office.world().machine(mine.machine_id)
    assert machine is not None
    assert machine.power == "on"
    assert not office.world().acts("power off")
    assert Assignment.objects.get(until=None, user=office.bob).desktop_id == mine.pk


def test_a_released_desktop_cannot_be_powered_or_released_by_its_last_user(office: Plant) -> None:
    mine = office.ask(office.alice).desktop
    assert mine is not None
    brokering.release_desktop(actor=office.alice, desktop_id=mine.pk)
    with pytest.raises(Missing):
        power.set_power(actor=office.alice, desktop_id=mine.pk, action="off")
    with pytest.raises(Missing):
        brokering.release_desktop(actor=office.alice, desktop_id=mine.pk)


def test_somebody_elses_machine_under_our_id_is_a_conflict_and_is_not_touched(office: Plant) -> None:
    target = office.desktops(State.READY)[0]
    with office.world().change() as db:
        db.execute("UPDATE machine SET key = 'theirs' WHERE id = ?", [target.machine_id])
    desktops.retire_desktop(actor=office.dana, desktop_id=target.pk)
    office.reconcile()
    office.pump()
    assert office.world().machine(target.machine_id) is not None
    failed = Operation.objects.get(desktop=target, kind=Operation.Kind.DELETE)
    assert failed.error_kind == "conflict"
    assert "stamp" in failed.error


def test_an_assigned_desktop_is_not_deleted(office: Plant) -> None:
    mine = office.ask(office.alice).desktop
    assert mine is not None
    with pytest.raises(Clash, match="Reclaim it"):
        desktops.retire_desktop(actor=office.dana, desktop_id=mine.pk)


# --- deletions -------------------------------------------------------------------------------------------------------


def test_a_pool_made_small_deletes_its_budget_and_asks(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=12, delete_budget_per_hour=5)
    plant.fill(12)
    pools.change_pool(actor=plant.dana, pool_id=plant.pool.pk, spare=0)
    for _ in range(5):
        plant.step()
    assert plant.count(State.READY) == 7
    plant.pool.refresh_from_db()
    assert "budget is 5 an hour" in plant.pool.hold_reason
    pools.resume_pool(actor=plant.dana, pool_id=plant.pool.pk)
    AuditEntry.objects.filter(action="desktop.retire").update(at=timezone.now() - timedelta(hours=2))
    Desktop.objects.filter(state=State.GONE).update(state_since=timezone.now() - timedelta(hours=2))
    plant.step()
    assert plant.count(State.READY) == 2
    plant.assert_tidy()


# --- two hypervisors -------------------------------------------------------------------------------------------------


def test_one_of_two_hypervisors_dies_and_comes_back(plant: Plant) -> None:
    plant.add_hypervisor("instant-1")
    plant.add_hypervisor("instant-2")
    plant.add_pool(spare=4)
    plant.fill(4)
    assert {d.hypervisor.name for d in plant.desktops(State.READY)} == {"instant-1", "instant-2"}
    plant.world("instant-1").faults.set("refuse")
    plant.look("instant-1")
    Hypervisor.objects.filter(name="instant-1").update(status_since=timezone.now() - timedelta(minutes=2))
    for user in (plant.alice, plant.bob):
        desktop = plant.ask(user).desktop
        assert desktop is not None
        assert desktop.hypervisor.name == "instant-2"
    plant.until(lambda: len(_ready_on(plant, "instant-2")) == 4, "the other one has the spare")
    plant.world("instant-1").faults.clear()
    plant.until(lambda: plant.count(State.READY) == 4 and not plant.count(State.RETIRING), "there are four again")
    assert plant.count(State.ASSIGNED) == 2
    plant.assert_tidy()


def _entitled(plant: Plant, name: str) -> User:
    user: User = User.objects.create_user(name)
    entitlements.entitle(actor=plant.dana, pool_id=plant.pool.pk, user_id=user.pk)
    return user


def _ready_on(plant: Plant, name: str) -> list[Desktop]:
    return [d for d in plant.desktops(State.READY) if d.hypervisor.name == name]
