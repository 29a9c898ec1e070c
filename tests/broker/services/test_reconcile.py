"""The reconciler carries plans out; what to plan is tested in `tests/broker/domain/test_planning.py`."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.domain import planning
from broker.domain.lifecycle import State
from broker.hypervisors import gate
from broker.hypervisors.orders import to_order
from broker.models import (
    AuditEntry,
    Desktop,
    Event,
    Host,
    Hypervisor,
    Machine,
    Operation,
    Pool,
    PoolMember,
    Request,
)
from broker.services import brokering, desktops, entitlements, hypervisors, operations, pools, reconcile, templates
from tests.broker.plant import Plant
from tests.broker.portal.cast import Estate

Kind = Operation.Kind


def _run(house: Estate) -> None:
    reconcile.run(house.pool.pk)


# --- building --------------------------------------------------------------------------------------------------------


def test_a_build_is_planned_with_its_reservation_its_reasons_and_its_order(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=2)
    plant.reconcile()
    host = Host.objects.get()
    planned = plant.desktops(State.PLANNED)
    assert len(planned) == 2
    assert (host.reserved_memory_mib, host.reserved_vcpus) == (1024, 2)
    assert all(d.why for d in planned)
    assert Operation.objects.filter(kind=Kind.CLONE, desktop__in=planned).count() == 2
    plant.reconcile()
    assert plant.count() == 2


def test_numbers_go_on_after_the_last_one_and_a_freed_number_comes_back_last(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(naming="pc-#", spare=3, maximum=9)
    plant.fill(3)
    Pool.objects.update(last_number=8)
    pools.change_pool(actor=plant.dana, pool_id=plant.pool.pk, spare=5)
    plant.reconcile()
    assert {d.name for d in plant.desktops(State.PLANNED)} == {"pc-9", "pc-4"}
    plant.pool.refresh_from_db()
    assert plant.pool.last_number == 4


def test_where_names_run_out_what_can_be_named_is_built_and_the_rest_goes_on(plant: Plant) -> None:
    plant.add_hypervisor()
    for number in (1, 2, 3):
        plant.world().add_foreign_machine(f"pc-{number}")
    plant.look()
    plant.add_pool(naming="pc-#", spare=9, maximum=9)
    plant.fill(6)
    plant.step()
    assert plant.count(State.READY) == 6
    host = Host.objects.get()
    assert host.reserved_memory_mib == 0
    for user in (plant.alice, plant.bob):
        plant.ask(user)
    assert plant.count(State.ASSIGNED) == 2


def test_those_who_wait_are_told_that_names_ran_out(plant: Plant) -> None:
    plant.add_hypervisor()
    for number in range(1, 10):
        plant.world().add_foreign_machine(f"pc-{number}")
    plant.look()
    plant.add_pool(naming="pc-#", spare=1, maximum=9)
    request = plant.ask(plant.alice)
    plant.reconcile()
    request.refresh_from_db()
    assert "No name of the pattern pc-# is free" in request.reason


def test_a_build_that_somebody_waits_for_goes_before_other_pools_spare(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=3)
    plant.reconcile()
    assert not Operation.objects.filter(kind=Kind.CLONE, rank=operations.rank_for_person(50)).exists()
    plant.ask(plant.alice)
    plant.reconcile()
    plant.reconcile()
    assert Operation.objects.filter(kind=Kind.CLONE, rank=operations.rank_for_person(50)).count() == 1
    plant.ask(plant.bob)
    plant.reconcile()
    assert Operation.objects.filter(kind=Kind.CLONE, rank=operations.rank_for_person(50)).count() == 2


def test_what_was_planned_for_a_hypervisor_that_went_away_is_planned_elsewhere(plant: Plant) -> None:
    plant.add_hypervisor("instant-1")
    plant.add_hypervisor("instant-2")
    plant.add_pool(spare=4)
    plant.reconcile()
    Hypervisor.objects.filter(name="instant-1").update(
        status=Hypervisor.Status.DOWN, status_since=timezone.now() - timedelta(minutes=2)
    )
    plant.reconcile()
    assert {d.hypervisor.name for d in plant.desktops(State.PLANNED)} == {"instant-2"}
    assert plant.count(State.PLANNED) == 4
    assert Host.objects.get(hypervisor__name="instant-1").reserved_memory_mib == 0


# --- leaving ---------------------------------------------------------------------------------------------------------


def test_a_drained_host_gets_nothing_new_and_is_emptied_one_replacement_at_a_time(plant: Plant) -> None:
    plant.add_hypervisor()
    world = plant.world()
    with world.change() as db:
        db.execute("INSERT INTO host VALUES ('host-2', 'instant-1-2', 64, 65536, 1)")
    plant.look()
    plant.add_pool(spare=4)
    plant.fill(4)
    full = Host.objects.get(platform_id="host-1")
    assert Machine.objects.filter(host=full, stamp_key__gt="").exists()
    hypervisors.drain_host(actor=plant.dana, host_id=full.pk, on=True)
    plant.until(
        lambda: (
            not Machine.objects.filter(host=full, stamp_key__gt="").exists()
            and plant.count(State.READY) == 4
            and not plant.count(State.RETIRING)
        ),
        "the host is empty",
        steps=40,
    )
    plant.assert_tidy()


def test_what_a_removed_member_left_on_a_hypervisor_that_is_down_is_not_deleted_there(plant: Plant) -> None:
    plant.add_hypervisor("instant-1")
    plant.add_hypervisor("instant-2")
    plant.add_pool(spare=4)
    plant.fill(4)
    pools.remove_member(actor=plant.dana, member_id=PoolMember.objects.get(hypervisor__name="instant-1").pk)
    Hypervisor.objects.filter(name="instant-1").update(
        status=Hypervisor.Status.DOWN, status_since=timezone.now() - timedelta(minutes=2)
    )
    for _ in range(3):
        plant.reconcile()
        plant.pump("instant-2")
        plant.look("instant-2")
    assert not [d for d in plant.desktops(State.RETIRING, State.GONE) if d.hypervisor.name == "instant-1"]
    assert len([d for d in plant.desktops(State.READY) if d.hypervisor.name == "instant-2"]) == 4


def test_a_delete_that_fails_is_tried_ever_more_rarely(office: Plant) -> None:
    target = office.desktops(State.READY)[0]
    with office.world().change() as db:
        db.execute("UPDATE machine SET key = 'theirs' WHERE id = ?", [target.machine_id])
    desktops.retire_desktop(actor=office.dana, desktop_id=target.pk)
    Desktop.objects.filter(pk=target.pk).update(state_since=timezone.now() - timedelta(hours=1))
    for _ in range(4):
        office.reconcile()
        office.pump()
    assert Operation.objects.filter(desktop=target, kind=Kind.DELETE).count() == 1
    Operation.objects.filter(desktop=target).update(finished_at=timezone.now() - timedelta(minutes=10))
    office.reconcile()
    assert Operation.objects.filter(desktop=target, kind=Kind.DELETE).count() == 2


def test_a_users_files_on_a_failed_desktop_are_gone_after_an_hour(office: Plant) -> None:
    mine = office.ask(office.alice).desktop
    assert mine is not None
    office.fill()
    office.world().faults.set("fail_clone", 1)
    brokering.release_desktop(actor=office.alice, desktop_id=mine.pk)
    office.pump()
    office.step()
    mine.refresh_from_db()
    assert mine.state == State.FAILED
    Desktop.objects.filter(pk=mine.pk).update(state_since=timezone.now() - timedelta(minutes=61))
    office.step()
    office.step()
    assert office.world().machine(mine.machine_id) is None
    office.assert_tidy()


def test_a_build_that_failed_stays_to_be_looked_at(house: Estate) -> None:
    Pool.objects.update(spare=0)
    failed = house.make(
        state=State.FAILED, clean_epoch=0, machine_id="", state_since=timezone.now() - timedelta(hours=2)
    )
    _run(house)
    failed.refresh_from_db()
    assert failed.state == State.FAILED


def test_a_desktop_given_back_that_nobody_needs_is_recycled_and_deleted_once(office: Plant) -> None:
    mine = office.ask(office.alice).desktop
    assert mine is not None
    office.fill()
    brokering.release_desktop(actor=office.alice, desktop_id=mine.pk)
    for _ in range(6):
        office.step()
    before = Operation.objects.count()
    for _ in range(6):
        office.step()
    assert Operation.objects.count() == before
    assert office.count(State.READY) == 2
    office.assert_tidy()


def test_a_missing_desktop_of_nobodys_is_let_go_and_one_of_somebodys_stays(house: Estate) -> None:
    long_ago = timezone.now() - timedelta(hours=1)
    Pool.objects.update(spare=0)
    nobodys, once_bobs = house.make(state=State.MISSING), house.give(house.bob)
    brokering.release_desktop(actor=house.bob, desktop_id=once_bobs.pk)
    Operation.objects.update(state=Operation.State.FAILED)
    Desktop.objects.filter(pk__in=[once_bobs.pk, house.desktop.pk]).update(state=State.MISSING)
    Desktop.objects.update(state_since=long_ago)
    _run(house)
    states = dict(Desktop.objects.values_list("pk", "state"))
    assert states == {
        nobodys.pk: State.RETIRING,
        once_bobs.pk: State.RETIRING,
        house.desktop.pk: State.MISSING,
    }


# --- orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "kind"), [(State.RECYCLING, Kind.RECYCLE), (State.RETIRING, Kind.DELETE), (State.BUILDING, Kind.CLONE)]
)
def test_an_order_that_a_crash_swallowed_is_written_again_and_once(house: Estate, state: State, kind: str) -> None:
    desktop = house.make(state=state, epoch=2, machine_id="" if kind == Kind.CLONE else "m-1")
    _run(house)
    _run(house)
    assert [o.kind for o in Operation.objects.filter(desktop=desktop)] == [kind]


def test_an_order_in_flight_is_waited_for(house: Estate) -> None:
    desktop = house.make(state=State.RETIRING)
    now = timezone.now()
    Operation.objects.create(
        kind=Kind.POWER, state=Operation.State.SENT, hypervisor=house.hypervisor, desktop=desktop, epoch=1,
        created_at=now, deadline_at=now + timedelta(hours=1),
    )  # fmt: skip
    _run(house)
    assert not Operation.objects.filter(kind=Kind.DELETE).exists()


def test_recycling_takes_the_copy_that_the_member_names_now(house: Estate) -> None:
    desktop = house.make(state=State.RECYCLING, epoch=2)
    newer = house.copy
    newer.pk, newer.platform_id = None, "newer"
    newer.save(force_insert=True)
    PoolMember.objects.update(copy=newer)
    _run(house)
    desktop.refresh_from_db()
    assert desktop.copy_id == newer.pk
    assert Operation.objects.get(desktop=desktop).parameters["template"] == "newer"


def test_what_the_broker_deletes_and_holds_is_audited_as_its_own_deed(house: Estate) -> None:
    Pool.objects.update(spare=0, delete_budget_per_hour=1)
    house.make()
    house.make()
    for _ in range(2):
        _run(house)
    assert list(AuditEntry.objects.order_by("action").values_list("action", "actor_name")) == [
        ("desktop.retire", "deskyard"),
        ("pool.held", "deskyard"),
    ]
    assert Event.objects.filter(kind="pool.held").count() == 1


# --- those who wait --------------------------------------------------------------------------------------------------


def test_who_waits_is_told_that_it_is_being_built(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=1)
    request = plant.ask(plant.alice)
    plant.reconcile()
    request.refresh_from_db()
    assert (request.state, request.reason) == (Request.State.BUILDING, "Your desktop is being built.")


def test_who_waits_at_the_maximum_is_told_so(house: Estate) -> None:
    Pool.objects.update(spare=0, maximum=1)
    waiting, _ = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    _run(house)
    waiting.refresh_from_db()
    assert "that is its maximum" in waiting.reason


# --- cost ------------------------------------------------------------------------------------------------------------


def test_a_calm_pool_costs_the_same_whatever_its_size(house: Estate) -> None:
    Pool.objects.update(spare=0, minimum=0, maximum=1000)
    costs = []
    for count in (10, 200):
        for _ in range(count):
            house.make(is_in_maintenance=True)
        _run(house)
        with CaptureQueriesContext(connection) as asked:
            _run(house)
        costs.append(len(asked))
    assert costs[0] == costs[1] < 50


def test_deletes_that_are_due_cost_the_same_kinds_of_statements_whatever_their_number(house: Estate) -> None:
    costs = []
    for count in (10, 100):
        for _ in range(count):
            house.make(state=State.RETIRING)
        with CaptureQueriesContext(connection) as asked:
            _run(house)
        assert Operation.objects.filter(kind=Kind.DELETE, state="queued").count() == count
        Operation.objects.update(state="failed")
        Desktop.objects.filter(state=State.RETIRING).update(state=State.GONE)
        costs.append(len(asked))
    assert costs[1] < costs[0] + 10


# --- what a build left -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["retired", "timed out"])
def test_what_a_build_of_unknown_outcome_made_is_deleted_with_its_desktop(office: Plant, end: str) -> None:
    """The worker died after the machine was made; nobody has read its answer, and no listing has shown it yet."""
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, spare=3)
    office.reconcile()
    clone = Operation.objects.get(kind=Kind.CLONE, state=Operation.State.QUEUED)
    assert clone.desktop_id is not None
    with gate.opened(office.hypervisor()) as connector:
        list(connector.submit([to_order(clone, gate.installation_id())], time.monotonic() + 5))
    Operation.objects.filter(pk=clone.pk).update(attempt=1)
    Desktop.objects.filter(pk=clone.desktop_id).update(state=State.BUILDING)
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, spare=2)
    if end == "timed out":
        Operation.objects.filter(pk=clone.pk).update(deadline_at=timezone.now(), not_before=timezone.now())
        office.pump()
    desktops.retire_desktop(actor=office.dana, desktop_id=clone.desktop_id)
    office.reconcile()
    delete = Operation.objects.get(kind=Kind.DELETE, desktop=clone.desktop)
    assert delete.parameters == {"machine": "", "stamp_key": str(clone.pk)}
    office.pump()
    assert Desktop.objects.get(pk=clone.desktop_id).state == State.GONE
    office.assert_tidy()


def test_a_build_that_failed_in_the_platforms_own_words_leaves_nothing_to_delete(house: Estate) -> None:
    retiring = house.make(state=State.RETIRING, machine_id="", clean_epoch=0)
    now = timezone.now()
    Operation.objects.create(
        kind=Kind.CLONE, state="failed", attempt=1, hypervisor=house.hypervisor, desktop=retiring, created_at=now,
        deadline_at=now, finished_at=now,
    )  # fmt: skip
    _run(house)
    retiring.refresh_from_db()
    assert retiring.state == State.GONE


# --- the delete budget -----------------------------------------------------------------------------------------------


def test_a_pool_that_was_told_to_go_on_has_its_whole_budget_again(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=6, delete_budget_per_hour=2)
    plant.fill(6)
    pools.change_pool(actor=plant.dana, pool_id=plant.pool.pk, spare=0)
    for left in (4, 2):
        for _ in range(4):
            plant.step()
        plant.pool.refresh_from_db()
        assert plant.count(State.READY) == left
        assert "budget is 2 an hour" in plant.pool.hold_reason
        pools.resume_pool(actor=plant.dana, pool_id=plant.pool.pk)


def test_desktops_without_a_machine_cost_no_delete_budget(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=4, delete_budget_per_hour=2)
    plant.fill(4)
    now = timezone.now()
    some = Desktop.objects.filter(pk__in=[d.pk for d in plant.desktops()[:2]])
    for desktop in some:
        AuditEntry.objects.create(
            at=now, actor_name="", action="desktop.retire", noun="desktop", object_id=str(desktop.pk)
        )
    some.update(state=State.GONE, state_since=now, machine_id="")
    Pool.objects.update(spare=0)
    plant.reconcile()
    assert (plant.count(State.RETIRING), Pool.objects.get().hold_reason) == (2, "")


# --- a guest that never answers --------------------------------------------------------------------------------------


def test_a_guest_that_never_answers_is_recycled_thrice_and_then_kept_to_be_looked_at(plant: Plant) -> None:
    plant.add_hypervisor(boot_s="100000")
    plant.add_pool(spare=1, maximum=1, prepare_timeout_s=10)
    for _ in range(40):
        plant.pauses_pass()
        Desktop.objects.filter(state=State.PREPARING).update(state_since=timezone.now() - timedelta(minutes=1))
        Hypervisor.objects.update(status_since=timezone.now() - timedelta(minutes=5))
        plant.step()
        if plant.count(State.FAILED) and plant.desktops()[0].attempts == planning.RECYCLE_TRIES:
            break
    (failed,) = plant.desktops(State.FAILED)
    assert failed.attempts == planning.RECYCLE_TRIES
    assert Operation.objects.filter(kind=Kind.RECYCLE).count() == planning.RECYCLE_TRIES - 1


# --- members ---------------------------------------------------------------------------------------------------------


def _on(plant: Plant, name: str) -> list[Desktop]:
    return [d for d in plant.desktops(State.READY, State.ASSIGNED) if d.hypervisor_id == plant.hypervisors[name].pk]


def test_a_member_gets_its_minimum_whatever_its_weight(plant: Plant) -> None:
    plant.add_hypervisor("heavy")
    plant.add_hypervisor("light")
    plant.add_pool(spare=2)
    for member in PoolMember.objects.select_related("hypervisor"):
        values: dict[str, int] = (
            {"weight": 10_000} if member.hypervisor.name == "heavy" else {"weight": 1, "minimum": 2}
        )
        pools.change_member(actor=plant.dana, member_id=member.pk, **values)  # type: ignore[arg-type]
    plant.until(lambda: len(_on(plant, "light")) == 2, "the light one has its minimum")
    plant.step()
    plant.step()
    assert plant.count(State.READY) == 2


def test_a_members_minimum_that_finds_no_room_holds_up_nothing_else(plant: Plant) -> None:
    plant.add_hypervisor("tiny", memory_mib=600)
    plant.add_hypervisor("large")
    plant.add_pool(spare=3)
    tiny = PoolMember.objects.get(hypervisor__name="tiny")
    pools.change_member(actor=plant.dana, member_id=tiny.pk, minimum=3)
    plant.until(lambda: plant.count(State.READY) == 3, "the spare is full")
    assert len(_on(plant, "tiny")) == 1


def test_only_the_chosen_hosts_and_storage_are_built_on_and_why_says_so(plant: Plant) -> None:
    plant.add_hypervisor(hosts=2)
    plant.world().rows("INSERT INTO storage VALUES ('storage-2', 'fast', 1000000, 1)")
    plant.look()
    plant.add_pool(spare=2)
    member = PoolMember.objects.get()
    pools.change_member(actor=plant.dana, member_id=member.pk, hosts=["host-2"], storage="storage-2")
    plant.fill()
    assert {m.host for m in plant.world().machines()} == {"host-2"}
    assert {row[0] for row in plant.world().rows("SELECT storage FROM disk")} == {"storage-2"}
    why = plant.desktops()[0].why
    assert "clones to fast while its template lies on shared" in why[0]["reasons"][0]
    assert why[1]["reasons"] == ["Host instant-1-1 is not among those chosen for the pool on instant-1."]
    desktop = plant.ask(plant.alice).desktop
    assert desktop is not None
    brokering.release_desktop(actor=plant.alice, desktop_id=desktop.pk)
    assert Operation.objects.get(kind=Kind.RECYCLE).parameters["storage"] == "storage-2"


def test_one_host_has_no_more_of_a_pool_than_it_may_and_those_who_wait_are_told(plant: Plant) -> None:
    plant.add_hypervisor(hosts=2)
    plant.add_pool(spare=5, maximum_per_host=1)
    plant.fill()
    plant.step()
    assert plant.count(State.READY) == 2
    entitlements.entitle(actor=plant.dana, pool_id=plant.pool.pk, user_id=plant.dana.pk)
    requests = [plant.ask(user) for user in (plant.alice, plant.bob, plant.dana)]
    plant.step()
    requests[-1].refresh_from_db()
    assert "the pool may have 1 desktops on one host and has 1 there" in requests[-1].reason


def test_one_pool_holds_different_operating_systems_by_different_copies(plant: Plant) -> None:
    plant.add_hypervisor("linux")
    plant.add_hypervisor("windows")
    plant.add_pool(spare=4)
    plant.world("windows").add_template("win11", content="windows")
    plant.look("windows")
    template = templates.create_template(actor=plant.dana, name="Windows 11", os="Windows")
    version = templates.add_version(actor=plant.dana, template_id=template.pk)
    machine = Machine.objects.get(hypervisor__name="windows", platform_id="template-win11")
    copy = templates.link_copy(actor=plant.dana, version_id=version.pk, machine_id=machine.pk)
    member = PoolMember.objects.get(hypervisor__name="windows")
    pools.change_member(actor=plant.dana, member_id=member.pk, copy_id=copy.pk)
    plant.fill(4)
    for name, content in (("linux", "golden"), ("windows", "windows")):
        world = plant.world(name)
        assert {world.read(machine.id) for machine in world.machines()} == {content}
        assert {d.copy.version.template.name for d in _on(plant, name)} == {
            "Debian" if name == "linux" else "Windows 11"
        }


def test_a_template_that_was_switched_on_is_not_cloned_and_that_is_said(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(spare=1)
    Machine.objects.filter(is_template=True).update(template_cannot="It is switched on.")
    plant.ask(plant.alice)
    plant.reconcile()
    assert plant.count() == 0
    assert "template golden on instant-1 cannot be cloned: It is switched on" in Request.objects.get().reason


# --- shares of resources ---------------------------------------------------------------------------------------------


def _shares(plant: Plant) -> list[int]:
    """Weights, as the platform shows them."""
    return sorted(plant.world().share(machine.id)[0] for machine in plant.world().machines())


def test_a_pool_of_a_higher_class_gives_its_machines_their_share_once(plant: Plant) -> None:
    plant.add_hypervisor()
    plant.add_pool(resource_class="critical", spare=2)
    plant.fill()
    plant.until(lambda: _shares(plant) == [400, 400], "both machines have the share")
    plant.step()
    plant.step()
    assert Operation.objects.filter(kind=Kind.SHARE).count() == 2
    assert {d.applied_share for d in plant.desktops()} == {"400/25/100/100"}


def test_a_normal_pool_orders_no_shares_and_takes_back_what_it_had_given(office: Plant) -> None:
    office.step()
    assert not Operation.objects.filter(kind=Kind.SHARE).exists()
    for resource_class, weight in (("low", 50), ("normal", 100)):
        pools.change_pool(actor=office.dana, pool_id=office.pool.pk, resource_class=resource_class)
        office.step()
        assert _shares(office) == [weight, weight]


def test_an_order_of_a_share_keeps_nobody_from_getting_the_desktop(office: Plant) -> None:
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, resource_class="high")
    office.reconcile()
    orders = Operation.objects.filter(kind=Kind.SHARE, state="queued")
    assert [order.changes for order in orders] == [False, False]
    request = office.ask(office.alice)
    assert request.state == Request.State.READY
    office.step()
    office.step()
    assert set(_shares(office)) == {200}


def test_a_desktop_that_got_a_fresh_disk_is_given_its_share_anew(office: Plant) -> None:
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, resource_class="high")
    office.step()
    desktop = office.ask(office.alice).desktop
    assert desktop is not None
    brokering.release_desktop(actor=office.alice, desktop_id=desktop.pk)
    office.pump()
    desktop.refresh_from_db()
    assert desktop.applied_share == "?"
    office.fill()
    office.until(lambda: {d.applied_share for d in office.desktops()} == {"200/0/100/0"}, "both have it again")


def test_an_order_of_a_share_that_crossed_a_hand_over_is_given_again(office: Plant) -> None:
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, resource_class="high")
    office.reconcile()
    order = Operation.objects.filter(kind=Kind.SHARE).first()
    assert order is not None
    Operation.objects.filter(pk=order.pk).update(state="running", next_poll_at=timezone.now())
    desktop = Desktop.objects.get(operations=order)
    Desktop.objects.filter(pk=desktop.pk).update(epoch=2, clean_epoch=2)
    office.pump()
    desktop.refresh_from_db()
    assert desktop.applied_share == "?"


def test_where_the_platform_knows_no_shares_none_are_ordered(office: Plant) -> None:
    takes = [name for name in office.hypervisor().takes if name != "ShareResources"]
    Hypervisor.objects.update(takes=takes)
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, resource_class="high")
    office.reconcile()
    assert not Operation.objects.filter(kind=Kind.SHARE).exists()


def test_a_machine_that_refused_its_share_is_left_alone_for_an_hour(office: Plant) -> None:
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, resource_class="high")
    office.reconcile()
    Operation.objects.filter(kind=Kind.SHARE).update(state="failed", finished_at=timezone.now())
    office.reconcile()
    assert Operation.objects.filter(kind=Kind.SHARE).count() == 2
    Operation.objects.update(finished_at=timezone.now() - timedelta(hours=2))
    office.reconcile()
    assert Operation.objects.filter(kind=Kind.SHARE).count() == 4


def test_shares_of_a_large_pool_are_ordered_in_batches(house: Estate) -> None:
    Hypervisor.objects.update(takes=["ShareResources"])
    Pool.objects.update(weight=300, resource_class="own", maximum=200, spare=120, minimum=0)
    for number in range(reconcile.SHARES_AT_ONCE + 20):
        house.make(name=f"many-{number:03d}")
    _run(house)
    _run(house)
    assert Operation.objects.filter(kind=Kind.SHARE).count() == reconcile.SHARES_AT_ONCE


def test_planned_desktops_that_nobody_needs_any_more_go_without_a_word_to_the_hypervisor(plant: Plant) -> None:
    plant.add_hypervisor()
    pool = plant.add_pool(spare=5)
    plant.reconcile()
    assert plant.count(State.PLANNED) == 5
    pools.change_pool(actor=plant.dana, pool_id=pool.pk, spare=2)
    plant.reconcile()
    plant.reconcile()
    assert plant.count(State.PLANNED) == 2
    plant.fill(2)
    assert len(plant.world().machines()) == 2
    assert not Operation.objects.filter(kind="delete").exists()
