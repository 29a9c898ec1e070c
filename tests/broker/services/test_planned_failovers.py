"""Failovers that a platform carries out: a desktop goes over to the replica that it keeps, and loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from broker.domain.failover import Kind, Step
from broker.models import Desktop, Failover, Hypervisor, Machine, PoolMember, ReplicationRun, ReplicationSource
from broker.selectors import drift
from broker.selectors import failovers as selectors
from broker.services import (
    failover_steps,
    failovers,
    movers,
    moving,
    power,
    replicas,
    replication_policies,
    replication_promises,
)
from broker.services.errors import Clash, Forbidden, Missing
from broker.services.replication_policies import ChoiceWish
from connectors.replication import Mirror, MirrorState
from tests.broker.plant import Plant
from tests.broker.services.movable import House
from tests.doubles.instant import mirrors
from tests.doubles.instant.mirrors import ORIGINAL, REPLICA


@pytest.fixture
def house(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """Alice's desktop has a replica on the other hypervisor, and a policy watches it."""
    movers._stopping.clear()
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    made = House(plant, tmp_path / "vault")
    mirrors.keep(made.world(made.here), made.desktop.machine_id, made.world(made.there))
    replication_policies.create_policy(
        actor=plant.dana, name="Of the makers", engine="platform", rpo_s=1800,
        choices=[ChoiceWish(kind="desktop", desktop_id=made.desktop.pk)],
    )  # fmt: skip
    tell(made)
    return made


def tell(house: House, **fields: Any) -> None:
    """What the platform says of the replica, and that it was asked."""
    values: dict[str, Any] = {
        "to": f"{house.there}-1", "state": MirrorState.HEALTHY, "newest_at": timezone.now() - timedelta(minutes=3),
        "can_fail_over": True,
    }  # fmt: skip
    told = Mirror(machine=house.desktop.machine_id, name=house.desktop.name, **(values | fields))
    mirrors.tell(house.world(house.here), told)
    ReplicationSource.objects.update(mirrors_at=None)
    house.plant.look(house.here)


def begin(house: House) -> Failover:
    return failovers.begin_planned(actor=house.plant.dana, desktop_id=house.desktop.pk)


def ends(house: House) -> tuple[str, str]:
    """How the two ends of the replication stand."""
    machine = house.desktop.machine_id
    return mirrors.state(house.world(house.here), machine), mirrors.state(house.world(house.there), machine)


def powers(house: House) -> tuple[str, str]:
    found = [house.world(name).machine(house.desktop.machine_id) for name in (house.here, house.there)]
    return tuple(one.power if one else "" for one in found)  # type: ignore[return-value]


def assert_as_before(house: House) -> None:
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert (desktop.hypervisor.name, desktop.machine_id) == (house.here, house.desktop.machine_id)
    assert (desktop.is_moving, desktop.is_in_maintenance, desktop.epoch) == (False, False, house.desktop.epoch)
    assert ends(house) == (ORIGINAL, REPLICA)
    assert powers(house) == ("on", "off")


# --- it goes over -----------------------------------------------------------------------------------------------------


def test_a_desktop_goes_over_with_its_user_its_entitlement_and_every_byte(house: House) -> None:
    before = house.bytes_of(house.here, house.desktop.machine_id)
    done = house.end(begin(house))
    assert (done.state, done.error) == ("done", "")
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert (desktop.name, desktop.hypervisor.name, desktop.machine_id) == (
        house.desktop.name, house.there, house.desktop.machine_id,
    )  # fmt: skip
    assert desktop.assignments.get(until=None).user == house.plant.alice
    assert (desktop.is_moving, desktop.is_in_maintenance, desktop.epoch) == (False, False, house.desktop.epoch + 1)
    assert house.bytes_of(house.there, desktop.machine_id) == before
    assert powers(house) == ("off", "on")
    assert ends(house) == (REPLICA, ORIGINAL), "it replicates back"
    assert [line["step"] for line in done.report] == [
        "waiting", "stopping", "handing_over", "taking_over", "starting", "probing", "reversing",
    ]  # fmt: skip


def test_it_costs_its_user_the_time_and_nothing_else(house: House) -> None:
    done = house.end(begin(house))
    told = selectors.progress_of(selectors.failovers().get(pk=done.pk), timezone.now())
    assert told.lost_s == 0.0
    assert told.down_s is not None
    assert done.vault is None


def test_what_it_was_is_the_replica_and_neither_left_behind_nor_drift(house: House) -> None:
    done = house.end(begin(house))
    house.plant.look(house.here)
    house.plant.look(house.there)
    old = Machine.objects.get(hypervisor__name=house.here, platform_id=house.desktop.machine_id)
    assert selectors.left_machine(done) is None
    assert selectors.origins([old]) == {}
    assert not drift.drifting_machines().filter(platform_id=house.desktop.machine_id).exists()


def test_the_policy_watches_it_where_it_is_then(house: House) -> None:
    house.end(begin(house))
    replication_promises.watch()
    watched = ReplicationSource.objects.get(is_chosen=True)
    assert (watched.hypervisor.name, watched.platform_id) == (house.there, house.desktop.machine_id)


def test_its_user_goes_on_before_it_replicates_back_and_also_if_it_never_does(house: House) -> None:
    house.world(house.there).faults.set("fail_reverse")
    at = house.at(begin(house), Step.REVERSING)
    desktop = Desktop.objects.get(pk=house.desktop.pk)
    assert (desktop.hypervisor.name, desktop.is_moving) == (house.there, False)
    done = house.end(at)
    assert (done.state, done.error) == ("done", "")
    told = [line["words"] for line in done.report if not line["is_good"]]
    assert len(told) == 1
    assert "not replicated back" in told[0]
    assert powers(house) == ("off", "on")


def test_who_has_gone_over_can_be_cancelled_no_more(house: House) -> None:
    at = house.at(begin(house), Step.REVERSING)
    with pytest.raises(Clash):
        failovers.cancel(actor=house.plant.dana, failover_id=at.pk)


def test_a_desktop_that_was_off_is_not_started_where_it_was_by_taking_back(house: House) -> None:
    power.set_power(actor=house.plant.dana, desktop_id=house.desktop.pk, action="off")
    house.plant.pump(house.here)
    house.plant.look(house.here)
    house.world(house.there).faults.set("fail_take_over")
    over = house.end(begin(house))
    assert over.state == "failed"
    assert powers(house) == ("off", "off")


# --- it is taken back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Step.STOPPING, Step.HANDING_OVER, Step.TAKING_OVER, Step.STARTING, Step.PROBING])
def test_a_cancelled_one_leaves_everything_as_it_was(house: House, step: Step) -> None:
    house.world(house.there).faults.set("silent")
    failover = house.at(begin(house), step)
    failovers.cancel(actor=house.plant.dana, failover_id=failover.pk)
    assert house.end(failover).state == "cancelled"
    assert_as_before(house)


@pytest.mark.parametrize(("end", "knob"), [("here", "fail_hand_over"), ("there", "fail_take_over")])
def test_what_the_platform_refuses_is_taken_back(house: House, end: str, knob: str) -> None:
    house.world(house.here if end == "here" else house.there).faults.set(knob)
    over = house.end(begin(house))
    assert over.state == "failed"
    assert "today" in over.error
    assert_as_before(house)


def test_a_replica_that_shows_no_sign_of_life_is_one_again(house: House) -> None:
    house.world(house.there).faults.set("silent")
    failover = house.at(begin(house), Step.PROBING)
    Failover.objects.update(step_since=timezone.now() - timedelta(hours=1))
    assert house.end(failover).state == "failed"
    assert_as_before(house)


def test_what_the_platform_is_at_is_awaited_before_it_is_taken_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken back too early, it would be handed over afterwards, and could be started nowhere."""
    failover = house.at(begin(house), Step.HANDING_OVER)
    handed_over, stood_at = mirrors.hand_over, list[str]()

    def interrupted(*given: Any) -> None:
        failovers.cancel(actor=house.plant.dana, failover_id=failover.pk)
        failover_steps.advance(failover.pk)
        stood_at.append(Failover.objects.get(pk=failover.pk).step)
        handed_over(*given)

    monkeypatch.setattr(mirrors, "hand_over", interrupted)
    failover_steps.advance(failover.pk)
    while moving.work():
        pass
    assert stood_at == [Step.HANDING_OVER]
    assert house.end(failover).state == "cancelled"
    assert_as_before(house)


def test_where_the_replica_cannot_be_asked_the_old_one_is_not_started(house: House) -> None:
    """It may run there."""
    house.world(house.there).faults.set("silent")
    failover = house.at(begin(house), Step.PROBING)
    failovers.cancel(actor=house.plant.dana, failover_id=failover.pk)
    house.world(house.there).faults.set("refuse")
    ReplicationRun.objects.filter(kind="mirror").update(attempt=movers.ATTEMPTS)
    for _ in range(10):
        failover_steps.advance(failover.pk)
        ReplicationRun.objects.filter(state="queued").update(not_before=None, attempt=movers.ATTEMPTS)
        moving.work()
    failover.refresh_from_db()
    assert failover.state == "cancelled"
    assert powers(house) == ("off", "on")


def test_each_step_survives_the_death_of_who_took_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dies(BaseException):
        pass

    failover = begin(house)
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
    assert ends(house) == (REPLICA, ORIGINAL)


def test_a_mover_that_dies_after_the_platforms_last_word_has_handed_over_once(house: House) -> None:
    failover = house.at(begin(house), Step.HANDING_OVER)
    failover_steps.advance(failover.pk)
    run = ReplicationRun.objects.get(kind="mirror")
    mirrors.hand_over(house.world(house.here), house.desktop.machine_id)
    ReplicationRun.objects.filter(pk=run.pk).update(
        state="running", attempt=1, mover_expires_at=timezone.now() - timedelta(seconds=1)
    )
    assert house.end(failover).state == "done"


# --- what stands in the way -------------------------------------------------------------------------------------------


def assert_refused(house: House, words: str) -> None:
    assert words in replicas.replica_of(Desktop.objects.get(pk=house.desktop.pk)).why_not
    with pytest.raises(Clash, match=words):
        begin(house)
    assert not Failover.objects.filter(kind=Kind.PLANNED).exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"to": "nowhere"}, "is no hypervisor here"),
        ({"state": MirrorState.FAILING, "fault": "Nothing arrives there."}, "Nothing arrives there"),
        ({"state": MirrorState.PAUSED, "fault": ""}, "cannot take its place now"),
        ({"can_fail_over": False, "newest_at": None}, "cannot take its place now"),
    ],
)
def test_what_the_platform_tells_of_the_replica_may_stand_in_the_way(
    house: House, fields: dict[str, Any], words: str
) -> None:
    tell(house, **fields)
    assert_refused(house, words)


def test_a_replica_on_a_hypervisor_that_is_called_as_the_platform_calls_it_is_found(house: House) -> None:
    tell(house, to="DR-SITE.example.org")
    assert_refused(house, "is no hypervisor here")
    Hypervisor.objects.filter(name=house.there).update(name="dr-site")
    assert replicas.replica_of(Desktop.objects.get(pk=house.desktop.pk)).why_not == ""


def test_which_of_several_is_meant_is_not_guessed(house: House) -> None:
    tell(house, to="twice")
    house.plant.add_hypervisor("instant-3")
    Hypervisor.objects.filter(name="instant-3").update(name="TWICE.b")
    Hypervisor.objects.filter(name=house.there).update(name="twice")
    assert_refused(house, "several with a host of that name")


def test_where_the_pool_does_not_build_nobody_goes(house: House) -> None:
    PoolMember.objects.filter(hypervisor__name=house.there).delete()
    assert_refused(house, "does not build on")


@pytest.mark.parametrize("end", ["here", "there"])
def test_both_ends_are_needed(house: House, end: str) -> None:
    name = house.here if end == "here" else house.there
    Hypervisor.objects.filter(name=name).update(status=Hypervisor.Status.DOWN)
    assert_refused(house, "both ends are needed")


def test_a_kind_that_is_watched_and_not_driven_says_so(house: House) -> None:
    Hypervisor.objects.filter(name=house.here).update(kind="nutanix")
    assert_refused(house, "Do it there")


def test_what_nobody_watches_has_no_replica_that_is_known(house: House) -> None:
    policy = ReplicationSource.objects.get().policy
    replication_policies.delete_policy(actor=house.plant.dana, policy_id=policy.pk)
    assert_refused(house, "No policy watches")


def test_a_desktop_goes_one_way_at_a_time(house: House) -> None:
    begin(house)
    with pytest.raises(Clash, match="moved already"):
        begin(house)


def test_administrators_alone_have_a_say(house: House) -> None:
    with pytest.raises(Forbidden):
        failovers.begin_planned(actor=house.plant.alice, desktop_id=house.desktop.pk)
    with pytest.raises(Missing):
        failovers.begin_planned(actor=house.plant.dana, desktop_id=house.vault.pk)
