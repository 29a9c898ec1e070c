from __future__ import annotations

import time
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import OperationalError
from django.db.models import F
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.hypervisors import gate, sessions
from broker.hypervisors.orders import to_order
from broker.hypervisors.sessions import Session
from broker.models import Desktop, Hypervisor, Machine, Operation
from broker.services import brokering, drift, hypervisors, inventory, pools
from connectors.base import Inventory
from connectors.errors import Unreachable
from tests.broker.plant import PASSWORD, Plant


def test_a_machine_that_was_shown_before_its_making_was_written_is_shown_again(plant: Plant) -> None:
    """Listings after the first tell what changed, and of this machine nothing changes any more."""
    hypervisor = plant.add_hypervisor()
    plant.add_pool(spare=1)
    plant.reconcile()
    clone = Operation.objects.get(kind=Operation.Kind.CLONE)
    inventory.take(hypervisor.pk)
    with gate.opened(hypervisor) as connector:
        # A pump that is about to write the answer.
        list(connector.submit([to_order(clone, gate.installation_id())], time.monotonic() + 5))

    inventory.take(hypervisor.pk)
    assert plant.count(State.READY) == 0
    plant.pump()
    inventory.take(hypervisor.pk)

    assert plant.count(State.READY) == 1


def test_a_recycled_machine_that_looks_as_before_is_ready_as_soon_as_its_recycling_is_written(plant: Plant) -> None:
    hypervisor = plant.add_hypervisor()
    plant.add_pool(spare=1, maximum=1)
    plant.fill(1)
    inventory.take(hypervisor.pk)
    desktop = plant.ask(plant.alice).desktop
    assert desktop is not None
    recycle = brokering.release_desktop(actor=plant.alice, desktop_id=desktop.pk)
    assert recycle is not None
    with gate.opened(hypervisor) as connector:
        list(connector.submit([to_order(recycle, gate.installation_id())], time.monotonic() + 5))

    inventory.take(hypervisor.pk)
    assert plant.count(State.READY) == 0
    plant.pump()
    inventory.take(hypervisor.pk)

    assert plant.count(State.READY) == 1


def test_many_adopted_machines_that_vanish_at_once_are_doubted_though_they_bear_no_stamp(plant: Plant) -> None:
    """Such as people's own machines that became desktops: what they lose by a wrong belief is theirs."""
    plant.add_hypervisor()
    ids = [plant.world().add_foreign_machine(f"theirs-{n}") for n in range(8)]
    plant.look()
    plant.add_pool(spare=0)
    for machine in Machine.objects.filter(platform_id__in=ids):
        drift.adopt(actor=plant.dana, machine_id=machine.pk, pool_id=plant.pool.pk)
    for machine_id in ids:
        plant.world().remove_machine(machine_id)
    for _ in range(2):
        plant.look()
    assert plant.hypervisor().status == Hypervisor.Status.DOUBT
    assert plant.count(State.MISSING) == 0


@pytest.fixture
def shared(plant: Plant) -> tuple[Plant, list[str], list[str]]:
    """A hypervisor with 40 machines of nobody's and two desktops: the ids of the former, of the latter."""
    plant.add_hypervisor()
    theirs = [plant.world().add_foreign_machine(f"theirs-{n}") for n in range(40)]
    plant.add_pool(spare=2)
    plant.fill(2)
    return plant, theirs, [desktop.machine_id for desktop in plant.desktops(State.READY)]


def test_two_desktops_that_vanish_with_a_folder_full_of_machines_are_not_believed_gone(
    shared: tuple[Plant, list[str], list[str]],
) -> None:
    plant, theirs, ours = shared
    for machine_id in [*theirs, *ours]:
        plant.world().remove_machine(machine_id)
    for _ in range(4):
        plant.look()
    hypervisor = plant.hypervisor()
    assert hypervisor.status == Hypervisor.Status.DOUBT
    assert "42 machines vanished from the listing at once, 2 of them ours" in hypervisor.status_reason
    assert plant.count(State.READY) == 2
    assert Machine.objects.filter(platform_id__in=theirs).count() == 40
    hypervisors.confirm_absence(actor=plant.dana, hypervisor_id=hypervisor.pk)
    plant.look()
    assert plant.count(State.READY) == 0
    assert plant.hypervisor().status == Hypervisor.Status.UP
    assert not Machine.objects.filter(platform_id__in=theirs).exists()


def test_others_machines_that_vanish_without_any_of_ours_hold_nothing_up(
    shared: tuple[Plant, list[str], list[str]],
) -> None:
    plant, theirs, _ = shared
    for machine_id in theirs:
        plant.world().remove_machine(machine_id)
    for _ in range(2):
        plant.look()
    assert plant.hypervisor().status == Hypervisor.Status.UP
    assert not Machine.objects.filter(platform_id__in=theirs).exists()


def test_desktops_of_another_installation_come_and_go_and_put_nothing_of_ours_in_doubt(
    shared: tuple[Plant, list[str], list[str]],
) -> None:
    plant, theirs, ours = shared
    Machine.objects.filter(platform_id__in=theirs).update(stamp_installation="another", stamp_key="k")
    for machine_id in [*theirs, ours[0]]:
        plant.world().remove_machine(machine_id)
    for _ in range(2):
        plant.look()
    assert plant.hypervisor().status == Hypervisor.Status.UP
    assert plant.count(State.READY) == 1


def test_a_leftover_that_an_administrator_said_to_leave_alone_is_left_alone(office: Plant) -> None:
    left, other = office.desktops(State.READY)
    # As if the rows had lost them: their operations have ended, and no desktop is them.
    Desktop.objects.filter(pk__in=[left.pk, other.pk]).update(machine_id="")
    drift.forget(actor=office.dana, machine_id=Machine.objects.get(platform_id=left.machine_id).pk)
    office.look()
    named = Operation.objects.filter(kind=Operation.Kind.DELETE).values_list("parameters__machine", flat=True)
    assert list(named) == [other.machine_id]


def test_a_reading_that_lost_its_lease_judges_nothing(office: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its successor has read in the meantime that all is well."""

    def freeze(hypervisor: Hypervisor, session: object) -> Inventory:
        Hypervisor.objects.update(inventory_epoch=F("inventory_epoch") + 1)
        raise Unreachable("It is away.")

    monkeypatch.setattr(inventory, "_read", freeze)
    inventory.take(office.hypervisor().pk)
    assert office.hypervisor().status == Hypervisor.Status.UP


def test_a_connector_whose_reading_could_not_be_written_is_closed(
    office: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its cursor has passed would otherwise never be told again."""

    def break_off(writer: inventory.Writer) -> None:
        raise OperationalError("the database went away")

    monkeypatch.setattr(inventory.Writer, "write", break_off)
    closed: list[object] = []
    monkeypatch.setattr("broker.hypervisors.gate.shut", closed.append)
    with pytest.raises(OperationalError):
        inventory.take(office.hypervisor().pk)
    assert len(closed) == 1
    assert office.hypervisor().inventory_expires_at is None


def test_what_is_being_deleted_vanishes_without_a_doubt(plant: Plant) -> None:
    """A worker that dies between many deletions and their answers leaves listings without them."""
    plant.add_hypervisor()
    plant.add_pool(spare=10, delete_budget_per_hour=50)
    plant.fill(10)
    pools.change_pool(actor=plant.dana, pool_id=plant.pool.pk, spare=0)
    plant.reconcile()
    deletes = Operation.objects.filter(kind=Operation.Kind.DELETE)
    assert len(deletes) == 10
    deletes.update(attempt=1)
    for machine in plant.world().machines():
        plant.world().remove_machine(machine.id)
    for _ in range(3):
        plant.look()
    assert plant.hypervisor().status == Hypervisor.Status.UP
    plant.until(lambda: not plant.count(State.RETIRING), "all are gone")
    assert not Machine.objects.exclude(is_template=True).exists()


def test_what_failed_builds_leave_and_take_away_again_is_no_reason_for_doubt(plant: Plant) -> None:
    """Many builds that fail at their last step remove what they made, all at once, and inventory had seen it."""
    plant.add_hypervisor()
    plant.add_pool(spare=2)
    plant.fill(2)
    made = [
        plant.world().add_foreign_machine(f"half-{n}", installation=gate.installation_id(), key=str(uuid4()))
        for n in range(8)
    ]
    plant.look()
    assert Machine.objects.filter(platform_id__in=made).count() == 8
    for machine_id in made:
        plant.world().remove_machine(machine_id)
    for _ in range(3):
        plant.look()
    assert plant.hypervisor().status == Hypervisor.Status.UP
    assert not Machine.objects.filter(platform_id__in=made).exists()
    assert plant.count(State.READY) == 2


def test_what_is_being_recycled_may_be_replaced_without_a_doubt(plant: Plant) -> None:
    """Where recycling makes a new machine, the old ones vanish before the orders' answers are written."""
    plant.add_hypervisor()
    plant.add_pool(spare=10, maximum=10)
    plant.fill(10)
    for _ in range(10):
        desktop = plant.ask(plant.alice).desktop
        assert desktop is not None
        brokering.release_desktop(actor=plant.alice, desktop_id=desktop.pk)
    recycles = Operation.objects.filter(kind=Operation.Kind.RECYCLE)
    assert len(recycles) == 10
    recycles.update(attempt=1, state=Operation.State.RUNNING)
    for machine in plant.world().machines():
        plant.world().remove_machine(machine.id)
    for _ in range(3):
        plant.look()
    assert plant.hypervisor().status == Hypervisor.Status.UP
    assert (plant.count(State.RECYCLING), plant.count(State.MISSING)) == (10, 0)


def test_a_machine_deleted_under_a_reading_does_not_come_back(office: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    pools.change_pool(actor=office.dana, pool_id=office.pool.pk, spare=1)
    office.reconcile()
    (leaving,) = office.desktops(State.RETIRING)
    read = inventory._read

    def read_before_it_goes(hypervisor: Hypervisor, session: Session) -> Inventory:
        reading = read(hypervisor, session)
        office.pump()
        return reading

    monkeypatch.setattr(inventory, "_read", read_before_it_goes)
    office.look()
    assert not office.count(State.RETIRING)
    assert not Machine.objects.filter(platform_id=leaving.machine_id).exists()


def test_a_doubt_may_last_for_months(office: Plant) -> None:
    """At a listing a minute the count of absences would outgrow its column after 23 days."""
    foreign = office.world().add_foreign_machine("somebodys")
    office.look()
    Machine.objects.filter(platform_id=foreign).update(absences=32_767, seen_at=timezone.now() - timedelta(days=30))
    office.world().remove_machine(foreign)
    office.look()
    assert not Machine.objects.filter(absences__gt=inventory.COUNTED_ABSENCES).exists()


def test_a_host_that_is_registered_twice_is_said_once_on_each(plant: Plant) -> None:
    plant.add_hypervisor("instant-1")
    values = {"world": str(plant.folder / "instant-1"), "password": PASSWORD}
    twin = hypervisors.register_hypervisor(actor=plant.dana, name="twin", kind="instant", values=values)
    for _ in range(2):
        inventory.take(twin.pk)
        plant.look()
    twin.refresh_from_db()
    sessions.discard(sessions.borrow(twin))
    (words,) = twin.warnings
    assert "registered a second time, as instant-1" in words
    assert "as twin" in plant.hypervisor().warnings[0]
