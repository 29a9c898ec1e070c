"""Published template versions: every target holds the same bytes, and what goes wrong leaves nothing half made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.domain.publication import Step
from broker.models import (
    AuditEntry,
    Event,
    Hypervisor,
    Machine,
    PoolMember,
    Publication,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    TemplateCopy,
    TemplateVersion,
    Vault,
)
from broker.services import (
    housekeeping,
    movers,
    moving,
    pools,
    publication_steps,
    publications,
    recovery,
    replication_policies,
    replication_runs,
    templates,
    vaults,
)
from broker.services.errors import Clash, Forbidden, Invalid
from broker.services.publications import Target
from broker.services.replication_policies import ChoiceWish
from tests.broker.plant import Plant
from tests.broker.services.published import ELSEWHERE, HERE, THERE, Press
from tests.doubles.instant import disks


@pytest.fixture
def press(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Press:
    movers._stopping.clear()
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    return Press(plant, tmp_path / "vault")


# --- what comes of it -------------------------------------------------------------------------------------------------


def test_every_member_that_lacks_it_gets_the_same_bytes_and_builds_from_them(press: Press) -> None:
    before = disks.read(press.world(HERE), press.image)
    rows = press.publish()
    assert [row.hypervisor.name for row in rows] == [THERE, ELSEWHERE]
    for row in rows:
        done = press.end(row)
        assert (done.state, done.error) == ("done", "")
        name = row.hypervisor.name
        copy = press.copy_at(name)
        assert copy is not None
        assert disks.read(press.world(name), copy.platform_id) == before
        assert done.copy == press.member_at(name).copy == copy
        assert (copy.vcpus, copy.memory_mib, copy.disk_mib, copy.name) == (1, 512, 4, "Debian-v2")
    assert press.member_at(HERE).copy == press.built, "where it lay already it is given at once"
    told = Event.objects.filter(kind="publication.done").order_by("at").first()
    assert told is not None
    assert (told.level, told.message) == ("info", f"Publishing Debian v2 to {THERE} went well.")
    assert AuditEntry.objects.filter(action="template.publish", actor=press.plant.dana).count() == 2


def test_the_pool_builds_desktops_of_the_published_bytes_everywhere(press: Press) -> None:
    for row in press.publish():
        press.end(row)
    pools.change_pool(actor=press.plant.dana, pool_id=press.pool.pk, spare=3, minimum=3)
    press.plant.fill(3)
    ready = press.plant.desktops(State.READY)
    assert {desktop.hypervisor.name for desktop in ready} == {HERE, THERE, ELSEWHERE}
    for desktop in ready:
        held = disks.read(press.world(desktop.hypervisor.name), desktop.machine_id)
        assert b"what is new in version 2" in held


def test_the_image_is_read_once_for_all_that_are_asked_for_together(press: Press) -> None:
    for row in press.publish():
        press.end(row)
    assert ReplicationRun.objects.filter(kind="replicate").count() == 1


def test_nothing_is_left_of_the_way_it_went(press: Press) -> None:
    for row in press.publish():
        press.end(row)
    while moving.work():
        pass
    assert disks.points(press.world(HERE), press.image) == []
    assert [disks.landings(press.world(name)) for name in (THERE, ELSEWHERE)] == [[], []]
    policy = ReplicationPolicy.objects.get()
    assert (policy.is_enabled, policy.choices.exists()) == (False, False)


def test_a_template_that_a_policy_copies_is_read_by_its_source_and_stays_in_the_policy(press: Press) -> None:
    policy = replication_policies.create_policy(
        actor=press.plant.dana, name="Images", vault_id=press.vault.pk, interval_s=3600, rpo_s=7200,
        choices=[ChoiceWish(kind="template", template_id=press.version.template_id)],
    )  # fmt: skip
    replication_runs.run_now(actor=press.plant.dana, policy_id=policy.pk)
    while moving.work():
        pass
    done = press.end(press.publish(THERE)[0])
    assert "Copied 0 B of 4 MiB" in done.report[0]["words"], "only what changed since is read"
    assert ReplicationPolicy.objects.get() == policy
    assert policy.sources.get().is_chosen
    copy = press.copy_at(THERE)
    assert copy is not None
    assert disks.read(press.world(THERE), copy.platform_id) == disks.read(press.world(HERE), press.image)


def test_it_holds_what_the_image_holds_when_it_is_asked_for(press: Press) -> None:
    """A run of a policy that began before is waited for, not shared: the image may be another one since."""
    policy = replication_policies.create_policy(
        actor=press.plant.dana, name="Images", vault_id=press.vault.pk, interval_s=3600, rpo_s=7200,
        choices=[ChoiceWish(kind="template", template_id=press.version.template_id)],
    )  # fmt: skip
    earlier = replication_runs.run_now(actor=press.plant.dana, policy_id=policy.pk)[0]
    hold = movers.take()
    assert hold is not None
    disks.write(press.world(HERE), press.image, 0, b"repaired")
    row = press.publish(THERE)[0]
    publication_steps.advance(row.pk)
    row.refresh_from_db()
    assert row.copying is None
    movers.give_back(hold)
    movers.let_go(hold)
    done = press.end(row)
    assert done.copying != earlier
    copy = press.copy_at(THERE)
    assert copy is not None
    assert disks.read(press.world(THERE), copy.platform_id).startswith(b"repaired")


def test_a_pool_joins_a_hypervisor_on_which_it_has_no_member_yet(press: Press) -> None:
    press.pool.members.filter(hypervisor__name=THERE).delete()
    at = press.target(THERE)
    target = Target(hypervisor_id=at.hypervisor_id, storage_id=at.storage_id, pool_id=press.pool.pk)
    rows = publications.publish(
        actor=press.plant.dana, version_id=press.version.pk, vault_id=press.vault.pk, targets=[target]
    )
    done = press.end(rows[0])
    assert "Office builds there too from now on." in done.report[-1]["words"]
    assert press.member_at(THERE).copy == done.copy
    pools.change_pool(actor=press.plant.dana, pool_id=press.pool.pk, spare=6, minimum=6)
    press.plant.fill(6)
    assert THERE in {desktop.hypervisor.name for desktop in press.plant.desktops(State.READY)}


# --- one fails, again only what is missing ----------------------------------------------------------------------------


def test_one_target_that_fails_leaves_the_others_and_is_asked_for_again_alone(press: Press) -> None:
    press.world(ELSEWHERE).faults.set("storage_full")
    good, bad = press.publish()
    assert press.end(good).state == "done"
    over = press.end(bad)
    assert over.state == "failed"
    assert "No room" in over.error
    assert press.copy_at(ELSEWHERE) is None
    assert press.landed(ELSEWHERE) == []
    assert press.member_at(ELSEWHERE).copy.version == press.plant.version
    assert Event.objects.get(kind="publication.failed").level == "error"
    press.world(ELSEWHERE).faults.clear("storage_full")
    (again,) = press.publish()
    assert again.hypervisor.name == ELSEWHERE
    assert press.end(again).state == "done"
    with pytest.raises(Clash, match="No member of a pool lacks Debian v2"):
        press.publish()
    with pytest.raises(Invalid) as refused:
        press.publish(THERE)
    assert "lies there already" in " ".join(refused.value.fields.values())


def test_a_target_under_way_is_not_begun_twice(press: Press) -> None:
    press.publish(THERE)
    with pytest.raises(Clash, match=f"on its way to {THERE} already"):
        press.publish(THERE)
    assert Publication.objects.count() == 1


def test_an_image_that_cannot_be_read_fails_all_and_leaves_nothing(press: Press) -> None:
    press.world(HERE).faults.set("fail_point")
    rows = [press.end(row) for row in press.publish()]
    assert {row.state for row in rows} == {"failed"}
    assert all("No point" in row.error for row in rows)
    assert TemplateCopy.objects.filter(version=press.version).count() == 1


# --- death ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Step.COPYING, Step.LANDING])
def test_a_mover_that_dies_is_followed_by_another_and_there_is_one_template(press: Press, step: Step) -> None:
    row = press.at(press.publish(THERE)[0], step)
    publication_steps.advance(row.pk)
    dead = movers.take()
    assert dead is not None
    movers.let_go(dead)
    assert not moving.work(), "nobody else has it while its lease lasts"
    press.has_died()
    done = press.end(row)
    assert (done.state, done.error) == ("done", "")
    assert len(press.landed(THERE)) == 1
    with pytest.raises(movers.LeaseLost), dead.writing():
        pass


def test_each_step_survives_the_death_of_who_took_it(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dies in the middle of a step has changed nothing: it is undone, and the next one takes the step."""

    class Dies(BaseException):
        pass

    row = press.publish(THERE)[0]
    died = []
    for step, act in list(publication_steps.ACTS.items()):
        press.at(row, step)
        press.plant.look(THERE)

        def die(one: Publication, step: Step = step, act: Callable[[Publication], None] = act) -> None:
            act(one)
            died.append(step)
            raise Dies

        monkeypatch.setitem(publication_steps.ACTS, step, die)
        with pytest.raises(Dies):
            publication_steps.advance(row.pk)
        monkeypatch.setitem(publication_steps.ACTS, step, act)
    assert press.end(row).state == "done"
    assert died == [Step.COPYING, Step.LANDING, Step.LISTING]
    assert len(press.landed(THERE)) == 1
    assert TemplateCopy.objects.filter(version=press.version, hypervisor__name=THERE).count() == 1
    assert ReplicationRun.objects.filter(kind="materialise").count() == 1


def test_whoever_looks_twice_or_at_once_takes_no_step_twice(press: Press) -> None:
    row = press.publish(THERE)[0]
    for _ in range(3):
        publication_steps.advance(row.pk)
    assert ReplicationRun.objects.filter(kind="replicate").count() == 1
    moving.work()
    for _ in range(3):
        publication_steps.advance(row.pk)
    assert ReplicationRun.objects.filter(kind="materialise").count() == 1


# --- cancelled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Step.COPYING, Step.LANDING])
def test_a_cancelled_one_leaves_nothing_there(press: Press, step: Step) -> None:
    row = press.at(press.publish(THERE)[0], step)
    publications.cancel(actor=press.plant.dana, publication_id=row.pk)
    over = press.end(row)
    assert (over.state, over.error) == ("cancelled", "It was cancelled.")
    while moving.work():
        pass
    assert press.landed(THERE) == []
    assert disks.landings(press.world(THERE)) == []
    assert disks.points(press.world(HERE), press.image) == []
    assert press.copy_at(THERE) is None
    with pytest.raises(Clash, match="It is over"):
        publications.cancel(actor=press.plant.dana, publication_id=row.pk)


def test_cancelling_one_of_two_leaves_the_other_what_both_read(press: Press) -> None:
    first, second = press.publish()
    for row in (first, second):
        publication_steps.advance(row.pk)
    publications.cancel(actor=press.plant.dana, publication_id=first.pk)
    assert press.end(first).state == "cancelled"
    assert press.end(second).state == "done"


def test_what_stands_by_the_time_that_a_mover_hears_of_it_is_entered(press: Press) -> None:
    row = press.at(press.publish(THERE)[0], Step.LANDING)
    publication_steps.advance(row.pk)
    moving.work()
    publications.cancel(actor=press.plant.dana, publication_id=row.pk)
    done = press.end(row)
    assert done.state == "done"
    assert press.copy_at(THERE) is not None


def test_a_mover_that_has_not_heard_of_it_is_waited_for(press: Press) -> None:
    """What it makes meanwhile would be nobody's."""
    row = press.at(press.publish(THERE)[0], Step.LANDING)
    publication_steps.advance(row.pk)
    hold = movers.take()
    assert hold is not None
    publications.cancel(actor=press.plant.dana, publication_id=row.pk)
    publication_steps.advance(row.pk)
    row.refresh_from_db()
    assert row.state == "running"
    moving._carry_out(hold)
    movers.let_go(hold)
    assert press.end(row).state == "done"
    assert press.copy_at(THERE) is not None


def test_what_stands_cannot_be_cancelled_any_more(press: Press) -> None:
    row = press.at(press.publish(THERE)[0], Step.LISTING)
    with pytest.raises(Clash, match="stands already"):
        publications.cancel(actor=press.plant.dana, publication_id=row.pk)


# --- listed -----------------------------------------------------------------------------------------------------------


def test_what_no_listing_shows_is_not_entered_and_is_taken_up_by_the_next_attempt(press: Press) -> None:
    row = press.at(press.publish(THERE)[0], Step.LISTING)
    assert press.copy_at(THERE) is None
    Publication.objects.update(step_since=timezone.now() - timedelta(hours=1))
    publication_steps.advance(row.pk)
    row.refresh_from_db()
    assert row.state == "failed"
    assert f"No listing of {THERE} shows Debian-v2 as a template." in row.error
    assert press.copy_at(THERE) is None
    press.plant.look(THERE)
    (again,) = press.publish(THERE)
    assert (again.step, again.machine_id) == (Step.LISTING, row.machine_id)
    assert press.end(again).state == "done"
    assert len(press.landed(THERE)) == 1
    assert ReplicationRun.objects.filter(kind="materialise").count() == 1


def test_what_was_taken_up_and_is_gone_by_now_is_not_believed(press: Press) -> None:
    row = press.at(press.publish(THERE)[0], Step.LISTING)
    Publication.objects.update(step_since=timezone.now() - timedelta(hours=1))
    publication_steps.advance(row.pk)
    press.plant.look(THERE)
    row.refresh_from_db()
    with press.world(THERE).change() as db:
        db.execute("DELETE FROM template WHERE id = ?", [row.machine_id])
    (again,) = press.publish(THERE)
    publication_steps.advance(again.pk)
    again.refresh_from_db()
    assert again.state == "running", "the row of a listing that is older is no proof"
    assert press.copy_at(THERE) is None


def test_a_template_that_cannot_be_cloned_is_not_entered(press: Press) -> None:
    row = press.at(press.publish(THERE)[0], Step.LISTING)
    press.plant.look(THERE)
    Machine.objects.filter(platform_id=row.machine_id).update(template_cannot="It has checkpoints. Delete them.")
    publication_steps.advance(row.pk)
    row.refresh_from_db()
    assert row.state == "failed"
    assert "cannot be cloned: It has checkpoints" in row.error
    assert press.copy_at(THERE) is None


# --- what changes meanwhile -------------------------------------------------------------------------------------------


def test_a_member_that_was_removed_meanwhile_stays_away_and_the_copy_is_entered(press: Press) -> None:
    row = press.at(press.publish(THERE)[0], Step.LANDING)
    pools.remove_member(actor=press.plant.dana, member_id=press.member_at(THERE).pk)
    assert press.end(row).state == "done"
    assert press.copy_at(THERE) is not None
    assert not PoolMember.objects.filter(hypervisor__name=THERE).exists()


def test_a_member_that_was_given_a_newer_version_meanwhile_keeps_it(press: Press) -> None:
    row = press.at(press.publish(THERE)[0], Step.LANDING)
    third: TemplateVersion = templates.add_version(actor=press.plant.dana, template_id=press.version.template_id)
    press.world(THERE).add_template("third")
    press.plant.look(THERE)
    machine = Machine.objects.get(platform_id="template-third")
    newer = templates.link_copy(actor=press.plant.dana, version_id=third.pk, machine_id=machine.pk)
    pools.change_member(actor=press.plant.dana, member_id=press.member_at(THERE).pk, copy_id=newer.pk)
    done = press.end(row)
    assert done.state == "done"
    assert "Office builds from Debian v3 there by now, and goes on so." in done.report[-1]["words"]
    assert press.member_at(THERE).copy == newer


def test_a_version_under_way_is_not_removed(press: Press) -> None:
    press.publish(THERE)
    removals: list[Callable[[], None]] = [
        lambda: templates.remove_version(actor=press.plant.dana, version_id=press.version.pk),
        lambda: templates.remove_template(actor=press.plant.dana, template_id=press.version.template_id),
    ]
    for remove in removals:
        with pytest.raises(Clash, match=f"Debian v2 is being published to {THERE}"):
            remove()


def test_a_copy_that_was_unlinked_before_it_was_read_ends_it_in_words(press: Press) -> None:
    row = press.publish(THERE)[0]
    templates.remove_copy(actor=press.plant.dana, copy_id=press.built.pk)
    over = press.end(row)
    assert over.state == "failed"
    assert "was unlinked meanwhile" in over.error


def test_the_point_is_kept_for_as_long_as_templates_are_made_of_it(press: Press) -> None:
    row = press.at(press.publish(THERE)[0], Step.LANDING)
    point = RecoveryPoint.objects.get()
    ReplicationRun.objects.filter(kind="materialise").delete()
    with pytest.raises(Clash, match=r"Debian v2 is being published to .* from it"):
        recovery.delete_point(actor=press.plant.dana, point_id=point.pk)
    assert recovery.condemn([point.pk]) == []
    row.refresh_from_db()
    assert press.end(row).state == "done"
    assert recovery.condemn([point.pk]) == [point.pk]


# --- refused ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_published_is_refused_in_words(press: Press) -> None:
    def publish(**fields: object) -> None:
        wish = {"actor": press.plant.dana, "version_id": press.version.pk, "vault_id": press.vault.pk}
        publications.publish(**(wish | fields))  # type: ignore[arg-type]

    with pytest.raises(Forbidden):
        publish(actor=press.plant.alice)
    with pytest.raises(Forbidden):
        publications.cancel(actor=press.plant.alice, publication_id=press.version.pk)
    for fields, words in (
        ({"vault_id": press.version.pk}, "no such vault"),
        ({"source_id": press.version.pk}, "no copy of Debian v2"),
        ({"name": "two\nlines"}, "one line"),
        ({"targets": [press.target(HERE)]}, f"{HERE}: Debian v2 lies there already, as second."),
        ({"targets": [Target(hypervisor_id=press.version.pk, storage_id=press.version.pk)]}, "no such hypervisor"),
    ):
        with pytest.raises(Invalid) as refused:
            publish(**fields)
        assert words in " ".join(refused.value.fields.values())
    with pytest.raises(Clash, match="Choose where to"):
        publish(targets=[])
    assert not Publication.objects.exists()


def test_a_hypervisor_that_is_down_or_takes_no_machines_is_no_target(press: Press) -> None:
    down, tape = {"status": "down"}, {"status": "up", "kind": "tape"}
    for change, words in ((down, "is down"), (tape, "Nothing can be brought up")):
        Hypervisor.objects.filter(name=THERE).update(**change)
        with pytest.raises(Invalid) as refused:
            press.publish(THERE)
        assert words in " ".join(refused.value.fields.values())


def test_a_version_that_nobody_can_read_is_refused_with_the_reason(press: Press) -> None:
    Hypervisor.objects.filter(name=HERE).update(status="down")
    with pytest.raises(Clash, match=f"The copy on {HERE} cannot be read: {HERE} is down"):
        press.publish(THERE)
    Hypervisor.objects.filter(name=HERE).update(status="up", kind="tape")
    with pytest.raises(Clash, match="its connector does not read disks"):
        press.publish(THERE)
    templates.remove_copy(actor=press.plant.dana, copy_id=press.built.pk)
    with pytest.raises(Clash, match="Debian v2 lies nowhere yet"):
        press.publish(THERE)


def test_a_name_that_is_taken_there_gets_an_ending(press: Press) -> None:
    press.world(THERE).add_template("Debian-v2")
    press.plant.look(THERE)
    done = press.end(press.publish(THERE)[0])
    assert done.state == "done"
    assert done.name.startswith("Debian-v2-")


# --- afterwards -------------------------------------------------------------------------------------------------------


def test_old_publications_go_with_the_points_that_were_made_for_them_alone(press: Press) -> None:
    press.end(press.publish(THERE)[0])
    housekeeping.tidy()
    assert RecoveryPoint.objects.get().state == "usable", "it is young"
    long_ago = timezone.now() - timedelta(days=100)
    Publication.objects.update(finished_at=long_ago)
    ReplicationRun.objects.update(finished_at=long_ago)
    housekeeping.tidy()
    assert not Publication.objects.exists()
    assert RecoveryPoint.objects.get().state == "deleting"
    Vault.objects.update(next_collection_at=timezone.now())
    housekeeping.tidy()
    while moving.work():
        pass
    assert not RecoveryPoint.objects.exists()
    assert press.copy_at(THERE) is not None, "what came of it stays"
    assert not ReplicationRun.objects.filter(kind="materialise").exists()


def test_points_of_which_another_publication_tells_or_that_a_policy_has_chosen_stay(press: Press) -> None:
    first, second = press.publish(THERE, ELSEWHERE)
    for row in (first, second):
        press.end(row)
    assert first.group == second.group
    Publication.objects.filter(pk=first.pk).update(finished_at=timezone.now() - timedelta(days=100))
    housekeeping.tidy()
    assert list(Publication.objects.values_list("pk", flat=True)) == [second.pk]
    assert RecoveryPoint.objects.get().state == "usable"
    ReplicationSource.objects.update(is_chosen=True)
    Publication.objects.update(finished_at=timezone.now() - timedelta(days=100))
    housekeeping.tidy()
    assert not Publication.objects.exists()
    assert RecoveryPoint.objects.get().state == "usable"


def test_a_run_that_read_an_image_is_kept_as_long_as_a_publication_tells_of_it(press: Press) -> None:
    row = press.end(press.publish(THERE)[0])
    ReplicationRun.objects.update(finished_at=timezone.now() - timedelta(days=100))
    housekeeping.tidy()
    assert ReplicationRun.objects.get(publications_copied=row).point is not None


def test_a_vault_that_is_removed_leaves_what_was_published_through_it(press: Press) -> None:
    row = press.at(press.publish(THERE)[0], Step.LISTING)
    with pytest.raises(Clash, match="goes through Cellar"):
        vaults.remove_vault(actor=press.plant.dana, vault_id=press.vault.pk)
    press.end(row)
    vaults.remove_vault(actor=press.plant.dana, vault_id=press.vault.pk)
    row.refresh_from_db()
    assert (row.state, row.vault, row.vault_name) == ("done", None, "Cellar")
