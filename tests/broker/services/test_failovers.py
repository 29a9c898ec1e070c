"""Failovers: tests leave nothing, moves keep user and bytes, and what goes wrong is taken back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.db.models import F
from django.utils import timezone

from broker.domain.failover import Kind, Step
from broker.domain.lifecycle import State
from broker.models import (
    AuditEntry,
    Desktop,
    Event,
    Failover,
    Host,
    Hypervisor,
    LogicalNetwork,
    Machine,
    Network,
    NetworkMapping,
    Operation,
    Pool,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    Standby,
)
from broker.selectors import replication as selectors
from broker.services import (
    brokering,
    drift,
    failover_steps,
    failovers,
    movers,
    moving,
    power,
    recovery,
    replication_policies,
    replication_promises,
    replication_runs,
    vaults,
)
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from broker.services.failovers import Target
from tests.broker.plant import Plant
from tests.broker.services.movable import House
from tests.doubles.instant import disks


@pytest.fixture
def house(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    movers._stopping.clear()
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    return House(plant, tmp_path / "vault")


# --- moves ------------------------------------------------------------------------------------------------------------


def test_a_moved_desktop_keeps_its_user_its_name_and_every_byte(house: House) -> None:
    before = house.bytes_of(house.here, house.desktop.machine_id)
    old = house.desktop.machine_id
    done = house.end(house.move())
    assert (done.state, done.error) == ("done", "")
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert (desktop.hypervisor.name, desktop.state, desktop.name) == (house.there, "assigned", house.desktop.name)
    assert desktop.assignments.get(until=None).user == house.plant.alice
    assert house.bytes_of(house.there, desktop.machine_id) == before
    assert desktop.member is not None
    assert desktop.member.hypervisor == desktop.hypervisor
    assert desktop.copy == desktop.member.copy
    assert desktop.epoch == house.desktop.epoch + 1
    assert (desktop.is_moving, desktop.is_in_maintenance, desktop.power) == (False, False, "on")
    left = house.world(house.here).machine(old)
    assert left is not None
    assert left.power == "off", "two of it never run"
    assert any(line["words"].startswith("Copied 64 KiB of 4 MiB.") for line in done.report)
    told = Event.objects.get(kind="failover.done")
    assert (told.level, told.message) == ("info", f"The move of {desktop} to {house.there} went well.")
    assert Event.objects.filter(kind="desktop.moved", desktop=desktop).count() == 1


def test_what_is_written_until_the_stop_comes_along(house: House) -> None:
    failover = house.at(house.move(), Step.STOPPING)
    disks.write(house.world(house.here), house.desktop.machine_id, 900_000, b"the last letter")
    house.end(failover)
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert b"the last letter" in house.bytes_of(house.there, desktop.machine_id)


def test_nothing_is_left_of_the_way_it_went(house: House) -> None:
    old = house.desktop.machine_id
    house.end(house.move())
    while moving.work():
        pass
    assert disks.points(house.world(house.here), old) == []
    assert disks.landings(house.world(house.there)) == []
    assert not ReplicationPolicy.objects.get().choices.exists()


def test_a_desktop_with_a_policy_is_moved_by_its_source_and_stays_in_the_policy(house: House) -> None:
    policy = house.replicate()
    house.end(house.move())
    assert ReplicationPolicy.objects.get() == policy
    replication_promises.watch()
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    source = policy.sources.get(is_chosen=True)
    assert (source.hypervisor, source.platform_id) == (desktop.hypervisor, desktop.machine_id)


def test_while_it_is_moved_nobody_uses_it_and_before_everybody_can(house: House) -> None:
    failover = house.at(house.move(), Step.COPYING)
    power.set_power(actor=house.plant.alice, desktop_id=house.desktop.pk, action="reboot")
    house.plant.pump(house.here)
    house.at(failover, Step.LAST_COPY)
    for refused in (
        lambda: power.set_power(actor=house.plant.alice, desktop_id=house.desktop.pk, action="on"),
        lambda: brokering.release_desktop(actor=house.plant.alice, desktop_id=house.desktop.pk),
        lambda: house.move(),
    ):
        with pytest.raises(Clash, match="being moved"):
            refused()
    house.end(failover)
    power.set_power(actor=house.plant.alice, desktop_id=house.desktop.pk, action="reboot")


def test_it_moves_back_the_same_way(house: House) -> None:
    house.end(house.move())
    disks.write(house.world(house.there), Desktop.objects.get(pk=house.desktop.pk).machine_id, 0, b"written there")
    house.there = house.here
    done = house.end(house.move())
    assert done.state == "done"
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert desktop.hypervisor.name == house.there
    assert house.bytes_of(house.there, desktop.machine_id).startswith(b"written there")


@pytest.mark.parametrize("step", [Step.COPYING, Step.LAST_COPY, Step.LANDING, Step.PROBING])
def test_a_cancelled_move_leaves_everything_as_it_was(house: House, step: Step) -> None:
    house.world(house.there).faults.set("silent")
    before = house.bytes_of(house.here, house.desktop.machine_id)
    failover = house.at(house.move(), step)
    failovers.cancel(actor=house.plant.dana, failover_id=failover.pk)
    over = house.end(failover)
    assert over.state == "cancelled"
    assert_as_before(house, before)


def test_a_move_that_is_cancelled_when_its_machine_has_just_been_made_takes_it_away(house: House) -> None:
    """The mover has ended, and nobody has looked yet."""
    before = house.bytes_of(house.here, house.desktop.machine_id)
    failover = house.at(house.move(), Step.LANDING)
    while moving.work():
        pass
    failovers.cancel(actor=house.plant.dana, failover_id=failover.pk)
    assert house.end(failover).state == "cancelled"
    assert_as_before(house, before)


def test_a_move_that_is_cancelled_while_its_machine_is_being_made_takes_it_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform's last word comes after that of the administrator, and the mover's after both."""
    before = house.bytes_of(house.here, house.desktop.machine_id)
    failover = house.at(house.move(), Step.LANDING)
    made = disks.InstantLanding.machine

    def interrupted(landing: disks.InstantLanding) -> str:
        machine = made(landing)
        failovers.cancel(actor=house.plant.dana, failover_id=failover.pk)
        failover_steps.advance(failover.pk)
        return machine

    monkeypatch.setattr(disks.InstantLanding, "machine", interrupted)
    while moving.work():
        pass
    assert house.end(failover).state == "cancelled"
    house.plant.look(house.there)
    house.plant.pump(house.there)
    assert_as_before(house, before)


def test_a_machine_that_somebody_uses_is_not_taken_as_left_over(house: House) -> None:
    """It was started on the platform, or adopted from the drift page, after its run had been cancelled."""
    house.replicate()
    point = RecoveryPoint.objects.get()
    there = house.plant.hypervisor(house.there)
    runs = [
        recovery.order_landing(point, there, None, name=name, storage=there.storages.get().platform_id, networks=[])
        for name in ("started", "adopted", "nobodys")
    ]
    while moving.work():
        pass
    world = house.world(house.there)
    ids = {machine.name: machine.id for machine in world.machines()}
    with world.change() as db:
        db.execute("UPDATE machine SET power = 'on' WHERE id = ?", [ids["started"]])
    house.plant.look(house.there)
    adopted = Machine.objects.get(name="adopted")
    drift.adopt(actor=house.plant.dana, machine_id=adopted.pk, pool_id=house.pool.pk, user_id=house.plant.bob.pk)
    # Given up again, and not deleted there.
    Desktop.objects.filter(name="adopted").update(state=State.GONE)
    past = timezone.now() - timedelta(minutes=1)
    ReplicationRun.objects.filter(pk__in=[run.pk for run in runs]).update(
        state="cancelled", platform_id="", finished_at=past
    )
    house.plant.look(house.there)
    named = Operation.objects.filter(kind=Operation.Kind.DELETE).values_list("parameters__machine", flat=True)
    assert list(named) == [ids["nobodys"]]


def test_a_machine_that_shows_no_sign_of_life_is_taken_away_again(house: House) -> None:
    before = house.bytes_of(house.here, house.desktop.machine_id)
    house.world(house.there).faults.set("silent")
    failover = house.at(house.move(), Step.PROBING)
    Failover.objects.update(step_since=timezone.now() - timedelta(hours=1))
    over = house.end(failover)
    assert over.state == "failed"
    assert "No sign of life" in over.error
    assert_as_before(house, before)


def test_a_full_storage_takes_the_move_back(house: House) -> None:
    before = house.bytes_of(house.here, house.desktop.machine_id)
    house.world(house.there).faults.set("storage_full")
    over = house.end(house.move())
    assert over.state == "failed"
    assert "No room" in over.error
    assert_as_before(house, before)


def assert_as_before(house: House, before: bytes) -> None:
    """Its user goes on where it was, and nothing of the attempt is left."""
    while moving.work():
        pass
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert (desktop.hypervisor.name, desktop.machine_id) == (house.here, house.desktop.machine_id)
    assert (desktop.is_moving, desktop.is_in_maintenance, desktop.epoch) == (False, False, house.desktop.epoch)
    machine = house.world(house.here).machine(desktop.machine_id)
    assert machine is not None
    assert machine.power == "on"
    assert house.bytes_of(house.here, desktop.machine_id) == before
    assert disks.points(house.world(house.here), desktop.machine_id) == []
    assert disks.landings(house.world(house.there)) == []
    assert [m.name for m in house.world(house.there).machines() if m.name == desktop.name] == []


def test_a_desktop_that_was_given_back_meanwhile_is_not_moved(house: House) -> None:
    failover = house.at(house.move(), Step.COPYING)
    brokering.release_desktop(actor=house.plant.alice, desktop_id=house.desktop.pk)
    over = house.end(failover)
    assert over.state == "failed"
    assert "changed hands" in over.error


def test_what_cannot_be_moved_is_refused_in_words(house: House) -> None:
    with pytest.raises(Forbidden):
        failovers.begin_move(
            actor=house.plant.alice, desktop_id=house.desktop.pk, vault_id=house.vault.pk, target=house.target
        )
    here = house.plant.hypervisor(house.here)
    target = Target(hypervisor_id=here.pk, storage_id=here.storages.get().pk)
    with pytest.raises(Invalid) as refused:
        failovers.begin_move(
            actor=house.plant.dana, desktop_id=house.desktop.pk, vault_id=house.vault.pk, target=target
        )
    assert "there already" in refused.value.fields["hypervisor_id"]
    house.pool.members.filter(hypervisor__name=house.there).delete()
    with pytest.raises(Invalid) as refused:
        house.move()
    assert "does not build there" in refused.value.fields["hypervisor_id"]


def test_a_hypervisor_on_which_nothing_can_be_brought_up_is_refused_at_once(house: House) -> None:
    house.replicate()
    point = ReplicationRun.objects.get(kind="replicate").point
    assert point is not None
    Hypervisor.objects.filter(name=house.there).update(kind="tape")
    for begin in (
        house.move,
        lambda: house.emergency(even_if_up=True),
        lambda: failovers.begin_test(actor=house.plant.dana, point_id=point.pk, target=house.target),
    ):
        with pytest.raises(Invalid) as refused:
            begin()
        assert f"Nothing can be brought up on {house.there}" in refused.value.fields["hypervisor_id"]
    assert not Failover.objects.exists()


def test_a_desktop_whose_disks_nobody_can_read_is_not_moved(house: House) -> None:
    Hypervisor.objects.filter(name=house.here).update(kind="tape")
    with pytest.raises(Clash, match=f"Machines on {house.here} cannot be moved"):
        house.move()
    found = failovers.look_ahead(actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.MOVE)
    assert "does not read their disks" in found[0].why_not


# --- networks ---------------------------------------------------------------------------------------------------------


def network(house: House, name: str) -> Network:
    there = house.plant.hypervisor(house.there)
    return Network.objects.create(hypervisor=there, platform_id=f"id-{name}", name=name, seen_at=timezone.now())


def test_a_moved_desktop_goes_on_the_network_of_its_pool(house: House) -> None:
    office = LogicalNetwork.objects.create(name="Office")
    Pool.objects.update(network=office)
    with pytest.raises(Clash, match="Network Office has no counterpart"):
        house.move()
    there = house.plant.hypervisor(house.there)
    NetworkMapping.objects.create(logical=office, hypervisor=there, network=network(house, "lan"))
    assert house.move().networks == ["id-lan"]


def test_what_the_member_says_of_networks_goes_before(house: House) -> None:
    Pool.objects.update(network=LogicalNetwork.objects.create(name="Office"))
    house.pool.members.update(networks=["own"])
    assert house.move().networks == ["own"]


def test_where_nobody_says_cards_go_on_networks_of_the_same_names_and_the_report_tells_which_do_not(
    house: House,
) -> None:
    house.replicate()
    network(house, "lan")
    nics = [{"model": "virtio", "mac": "", "network": name} for name in ("lan", "lab")]
    RecoveryPoint.objects.update(configuration={"nics": nics})
    failover = house.at(house.emergency(even_if_up=True), Step.LANDING)
    assert failover.run is not None
    assert failover.run.wish["networks"] == ["id-lan", ""]
    done = house.end(failover)
    said = next(line["words"] for line in done.report if line["step"] == Step.LANDING)
    assert "Its network card 2 was on lab and is not connected there." in said
    assert "card 1" not in said


def test_each_step_survives_the_death_of_who_took_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dies in the middle of a step has changed nothing: it is undone, and the next one takes the step."""

    class Dies(BaseException):
        pass

    failover = house.move()
    for step, act in list(failover_steps.ACTS.items()):

        def die(row: Failover, act: Callable[[Failover], None] = act) -> None:
            act(row)
            raise Dies

        monkeypatch.setitem(failover_steps.ACTS, step, die)
        failover.refresh_from_db()
        if failover.step == step:
            with pytest.raises(Dies):
                failover_steps.advance(failover.pk)
        monkeypatch.setitem(failover_steps.ACTS, step, act)
        if failover.state == "running":
            house.until(failover, lambda row, before=step: row.step != before, f"{step} is passed")  # type: ignore[misc]
    assert house.end(failover).state == "done"
    assert Desktop.objects.filter(hypervisor__name=house.there, state="assigned").count() == 1
    assert len([m for m in house.world(house.there).machines() if m.name == house.desktop.name]) == 1


# --- tests ------------------------------------------------------------------------------------------------------------


def test_a_test_proves_a_point_and_leaves_nothing(house: House) -> None:
    house.replicate()
    point = ReplicationRun.objects.get(kind="replicate").point
    assert point is not None
    before = len(house.world(house.there).machines())
    failover = failovers.begin_test(actor=house.plant.dana, point_id=point.pk, target=house.target)
    up = house.at(failover, Step.CLEANING)
    assert house.bytes_of(house.there, up.machine_id) == house.bytes_of(house.here, house.desktop.machine_id)
    done = house.end(up)
    assert (done.state, done.error) == ("done", "")
    assert len(house.world(house.there).machines()) == before
    assert done.digest == hashlib.sha256(json.dumps(done.report, sort_keys=True).encode()).hexdigest()
    assert [entry["step"] for entry in done.report] == ["waiting", "landing", "starting", "probing", "cleaning"]
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert (desktop.hypervisor.name, desktop.power, desktop.is_moving) == (house.here, "on", False)


def test_a_test_that_fails_says_so_and_leaves_nothing_either(house: House) -> None:
    house.replicate()
    point = ReplicationRun.objects.get(kind="replicate").point
    assert point is not None
    before = len(house.world(house.there).machines())
    house.world(house.there).faults.set("silent")
    failover = failovers.begin_test(actor=house.plant.dana, point_id=point.pk, target=house.target)
    house.at(failover, Step.PROBING)
    Failover.objects.update(step_since=timezone.now() - timedelta(hours=1))
    over = house.end(failover)
    assert over.state == "failed"
    assert len(house.world(house.there).machines()) == before


# --- emergencies ------------------------------------------------------------------------------------------------------


def test_in_an_emergency_the_newest_point_is_brought_up_for_its_user(house: House) -> None:
    house.replicate()
    with pytest.raises(Clash, match="Move the desktop instead"):
        house.emergency()
    Hypervisor.objects.filter(name=house.here).update(status="down", retry_at=timezone.now() + timedelta(hours=1))
    failover = house.emergency()
    for _ in range(10):
        failover_steps.advance(failover.pk)
        while moving.work():
            pass
        house.plant.pump(house.there)
        house.plant.look(house.there)
    failover.refresh_from_db()
    assert (failover.state, failover.error) == ("done", "")
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert desktop.hypervisor.name == house.there
    assert b"a letter of Alice's" in house.bytes_of(house.there, desktop.machine_id)
    assert failover.answered_at is not None
    assert failover.stopped_at is not None


def test_without_a_point_there_is_no_emergency(house: House) -> None:
    with pytest.raises(Clash, match="no recovery point"):
        house.emergency(even_if_up=True)


# --- pools ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_become_of_each_and_changes_nothing(house: House) -> None:
    before = Operation.objects.count(), ReplicationRun.objects.count()
    found = failovers.look_ahead(
        actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.EMERGENCY, even_if_up=True
    )
    assert [(p.desktop, p.why_not) for p in found] == [(house.desktop, "It has no recovery point.")]
    found = failovers.look_ahead(actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.MOVE)
    assert [p.why_not for p in found] == [""]
    house.replicate()
    found = failovers.look_ahead(
        actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.EMERGENCY, even_if_up=True
    )
    assert found[0].why_not == ""
    assert found[0].loses_s is not None
    assert not Failover.objects.exists()
    assert before[0] == Operation.objects.count()


def test_a_dry_run_says_for_what_there_may_be_no_room_and_forbids_nothing(house: House) -> None:
    def lacks(kind: Kind = Kind.MOVE) -> str:
        (one,) = failovers.look_ahead(
            actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=kind, even_if_up=True
        )
        assert one.why_not == ""
        return one.lacks

    assert lacks() == ""
    there = house.plant.hypervisor(house.there)
    there.storages.update(free_mib=10)
    assert lacks() == "shared has 10 MiB left for it, and its disks may take 1000 MiB."
    house.replicate()
    assert lacks() == "", "its newest point tells how large it is"
    there.storages.update(free_mib=0)
    assert "shared has 0 B left" in lacks(Kind.EMERGENCY)
    source = ReplicationSource.objects.get()
    point = RecoveryPoint.objects.get()
    Standby.objects.create(
        source=source, hypervisor=there, name="waits", machine_id="m", machine_key="k", point=point,
        refreshed_at=timezone.now(),
    )  # fmt: skip
    assert lacks(Kind.EMERGENCY) == "", "its disks are there already"
    Host.objects.filter(hypervisor=there).update(used_memory_mib=F("memory_mib") - 100)
    assert lacks(Kind.EMERGENCY) == "No host has more than 100 MiB of memory left for it, and it needs 512 MiB."
    there.storages.update(free_mib=1 << 20)
    begun = failovers.begin_pool(
        actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.MOVE, vault_id=house.vault.pk
    )
    assert Failover.objects.filter(group=begun).count() == 1


def test_in_an_emergency_desktops_on_a_hypervisor_that_answers_are_left_alone(house: House) -> None:
    house.replicate()
    found = failovers.look_ahead(
        actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.EMERGENCY
    )
    assert [p.why_not for p in found] == [f"{house.here} answers: move it, then nothing is lost."]
    with pytest.raises(Clash, match="No desktop of the pool can go there"):
        failovers.begin_pool(actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.EMERGENCY)
    Hypervisor.objects.filter(name=house.here).update(status="down", retry_at=timezone.now() + timedelta(hours=1))
    group = failovers.begin_pool(
        actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.EMERGENCY
    )
    assert [row.kind for row in Failover.objects.filter(group=group)] == ["emergency"]


def test_a_pool_that_moves_without_a_vault_does_not_lose_its_work_instead(house: House) -> None:
    house.replicate()
    with pytest.raises(Invalid) as refused:
        failovers.begin_pool(actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.MOVE)
    assert "Choose the vault" in refused.value.fields["vault_id"]
    with pytest.raises(Invalid):
        failovers.look_ahead(actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.TEST)
    with pytest.raises(Forbidden):
        failovers.begin_pool(actor=house.plant.alice, pool_id=house.pool.pk, target=house.target, kind=Kind.MOVE)
    assert not Failover.objects.exists()


def test_a_whole_pool_moves_a_few_at_a_time_in_order(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from broker.domain import failover as rules

    monkeypatch.setattr(rules, "AT_ONCE", 1)
    house.plant.ask(house.plant.bob)
    on_here = Desktop.objects.filter(state="assigned", hypervisor__name=house.here)
    names = sorted(on_here.values_list("name", flat=True))
    group = failovers.begin_pool(
        actor=house.plant.dana, pool_id=house.pool.pk, target=house.target, kind=Kind.MOVE, vault_id=house.vault.pk
    )
    rows = list(Failover.objects.filter(group=group).order_by("place"))
    assert [row.subject for row in rows] == names
    for row in rows:
        for later in rows[row.place :]:
            later.refresh_from_db()
            assert later.step == Step.WAITING
        assert house.end(row).state == "done"
    assert not Desktop.objects.filter(state="assigned", hypervisor__name=house.here).exists()


def group_of(house: House, *rows: tuple[str, Step]) -> list[Failover]:
    """Of one group, each in that state and at that step."""
    group, there = uuid4(), house.plant.hypervisor(house.there)
    return [
        Failover.objects.create(
            kind=Kind.EMERGENCY, subject=f"office-00{place}", hypervisor=there, name=f"office-00{place}", group=group,
            place=place, state=state, step=step, step_since=timezone.now(),
        )
        for place, (state, step) in enumerate(rows)
    ]  # fmt: skip


def test_a_group_is_cancelled_in_one_act_each_under_its_own_rules(house: House) -> None:
    rows = group_of(
        house, ("running", Step.WAITING), ("running", Step.PROBING), ("running", Step.TAKING_BACK), ("done", Step.OVER)
    )
    ended = failovers.cancel_group(actor=house.plant.dana, group=rows[0].group)  # type: ignore[arg-type]
    assert (ended.cancelled, ended.left) == (2, 1)
    assert [Failover.objects.get(pk=row.pk).is_to_end for row in rows] == [True, True, False, False]
    for row in rows[:2]:
        assert house.end(row).state == "cancelled"
    told = AuditEntry.objects.filter(action="failover.cancel").values_list("object_id", flat=True)
    assert {str(one) for one in told} == {str(row.pk) for row in rows[:2]}


def test_a_group_of_which_none_can_be_cancelled_says_so(house: House) -> None:
    over = group_of(house, ("done", Step.OVER), ("running", Step.TAKING_BACK))[0]
    with pytest.raises(Clash, match="None of them"):
        failovers.cancel_group(actor=house.plant.dana, group=over.group)  # type: ignore[arg-type]
    with pytest.raises(Missing):
        failovers.cancel_group(actor=house.plant.dana, group=uuid4())
    with pytest.raises(Forbidden):
        failovers.cancel_group(actor=house.plant.alice, group=over.group)  # type: ignore[arg-type]


def test_the_policy_by_which_desktops_move_is_nobodys_to_see_or_change(house: House) -> None:
    house.end(house.move())
    own = ReplicationPolicy.objects.get()
    assert own.is_own
    assert not selectors.policies(timezone.now()).exists()
    for act in (replication_runs.run_now, replication_policies.delete_policy):
        with pytest.raises(Missing):
            act(actor=house.plant.dana, policy_id=own.pk)
    vaults.remove_vault(actor=house.plant.dana, vault_id=house.vault.pk)
    assert not ReplicationPolicy.objects.exists()


# --- a vault goes -----------------------------------------------------------------------------------------------------


def test_a_vault_that_is_removed_leaves_the_history_of_what_went_through_it(house: House) -> None:
    over = house.end(house.move())
    report, digest = over.report, over.digest
    vaults.remove_vault(actor=house.plant.dana, vault_id=house.vault.pk)
    over.refresh_from_db()
    assert (over.vault, over.vault_name, over.point) == (None, "Cellar", None)
    assert (over.report, over.digest) == (report, digest)


def test_a_vault_through_which_a_desktop_moves_is_not_removed(house: House) -> None:
    failover = house.at(house.move(), Step.STOPPING)
    with pytest.raises(Clash, match="goes through Cellar"):
        vaults.remove_vault(actor=house.plant.dana, vault_id=house.vault.pk)
    assert house.end(failover).state == "done"
