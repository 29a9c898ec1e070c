"""Pushes of template versions: free desktops go over a few at a time, those in use when their users have left, and
a bad version eats no pool."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import (
    Assignment,
    AuditEntry,
    Desktop,
    Event,
    Machine,
    Notice,
    Operation,
    Pool,
    Push,
    PushTold,
    Request,
    TemplateVersion,
)
from broker.services import brokering, pools, pushes, reconcile, templates
from broker.services.errors import Clash, Forbidden, Invalid
from tests.broker.plant import Plant

S = Push.State


def newer(plant: Plant) -> TemplateVersion:
    """Another version, which lies on every hypervisor."""
    version = templates.add_version(actor=plant.dana, template_id=plant.version.template_id)
    for name, made in plant.hypervisors.items():
        golden = plant.world(name).add_template(f"golden-v{version.number}")
        plant.look(name)
        machine = Machine.objects.get(hypervisor=made, platform_id=golden)
        templates.link_copy(actor=plant.dana, version_id=version.pk, machine_id=machine.pk)
    return version


def begin(plant: Plant, version: TemplateVersion, **more: Any) -> Push:
    return pushes.push(actor=plant.dana, pool_id=plant.pool.pk, version_id=version.pk, **more)


def on(plant: Plant, version: TemplateVersion) -> int:
    """Desktops that are ready or somebody's on the version."""
    rows = Desktop.objects.filter(pool=plant.pool, state__in=[State.READY, State.ASSIGNED])
    return rows.filter(copy__version=version).count()


def taken(plant: Plant) -> Desktop:
    """Alice's, from now on."""
    desktop = plant.ask(plant.alice).desktop
    assert desktop is not None
    return desktop


def over(row: Push) -> bool:
    row.refresh_from_db()
    return row.state not in (S.SCHEDULED, S.RUNNING)


@pytest.fixture
def floor(plant: Plant) -> Plant:
    """A pool with eight free desktops."""
    plant.add_hypervisor()
    plant.add_pool(spare=8)
    plant.fill(8)
    return plant


def test_free_desktops_get_a_fresh_disk_of_it_and_keep_their_names(floor: Plant) -> None:
    names = {d.name for d in floor.desktops(State.READY)}
    version = newer(floor)
    row = begin(floor, version)
    floor.until(lambda: over(row), "the push is over")
    assert row.state == S.DONE
    assert {d.name for d in floor.desktops(State.READY)} == names
    assert on(floor, version) == 8
    assert not Operation.objects.filter(kind=Operation.Kind.DELETE).exists()
    assert Operation.objects.filter(kind=Operation.Kind.RECYCLE).count() == 8
    floor.assert_tidy()


def test_never_more_than_a_batch_is_away_at_once(floor: Plant) -> None:
    version = newer(floor)
    row = begin(floor, version)
    fewest = 8
    for _ in range(40):
        floor.reconcile()
        fewest = min(fewest, floor.count(State.READY))
        floor.step()
        if over(row):
            break
    assert row.state == S.DONE
    assert fewest == 6


# --- desktops in use --------------------------------------------------------------------------------------------------


def test_a_desktop_in_use_is_not_touched_and_goes_over_when_it_was_given_back(office: Plant) -> None:
    desktop = taken(office)
    version = newer(office)
    row = begin(office, version)
    office.until(lambda: on(office, version) >= 2, "the free ones went over")
    office.step()
    assert not over(row)
    desktop.refresh_from_db()
    assert (desktop.state, desktop.copy.version) == (State.ASSIGNED, office.version)
    brokering.release_desktop(actor=office.alice, desktop_id=desktop.pk)
    office.until(lambda: over(row), "the push is over")
    desktop.refresh_from_db()
    assert (row.state, desktop.copy.version) == (S.DONE, version)


def past(row: Push, minutes: int = 60) -> None:
    """Deadline and notices lie so far back."""
    then = timezone.now() - timedelta(minutes=minutes)
    Push.objects.filter(pk=row.pk).update(deadline_at=then)
    PushTold.objects.filter(push=row).update(at=then)


@pytest.mark.parametrize("kind", ["floating", "dedicated"])
def test_at_the_deadline_who_was_told_is_turned_out_once(office: Plant, kind: str) -> None:
    Pool.objects.update(kind=kind)
    desktop = taken(office)
    version = newer(office)
    soon = timezone.now() + timedelta(minutes=10)
    row = begin(office, version, users="deadline", deadline_at=soon, notice_min=10)
    office.until(lambda: on(office, version) >= 2, "the free ones went over")
    notice = Notice.objects.get(user=office.alice, kind="session_push")
    assert notice.facts["desktop"] == desktop.name
    desktop.refresh_from_db()
    assert desktop.state == State.ASSIGNED
    past(row)
    office.until(lambda: over(row), "the push is over")
    assert row.state == S.DONE
    assert Notice.objects.filter(user=office.alice, kind="session_push").count() == 1
    assert AuditEntry.objects.filter(action="desktop.reclaim", object_id=str(desktop.pk)).count() == 1
    mine = Assignment.objects.filter(user=office.alice, until=None)
    if kind == "floating":
        assert not mine.exists()
        assert Notice.objects.filter(user=office.alice, kind="desktop_pushed").count() == 1
    else:
        office.until(mine.exists, "Alice has a desktop again")
        assert mine.get().desktop.copy.version == version
        assert Notice.objects.filter(user=office.alice, kind="desktop_replaced").count() == 1


def test_nobody_is_turned_out_who_was_not_told_in_time(office: Plant) -> None:
    desktop = taken(office)
    version = newer(office)
    soon = timezone.now() + timedelta(minutes=20)
    row = begin(office, version, users="deadline", deadline_at=soon, notice_min=15)
    office.until(lambda: on(office, version) >= 2, "the free ones went over")
    assert not Notice.objects.exists()
    Push.objects.update(deadline_at=timezone.now() - timedelta(minutes=1))
    for _ in range(3):
        office.step()
    desktop.refresh_from_db()
    assert desktop.state == State.ASSIGNED
    assert PushTold.objects.get(push=row).assignment.user == office.alice


# --- a bad version ----------------------------------------------------------------------------------------------------


def test_after_so_many_failures_in_a_row_it_stops_says_so_and_the_pool_lives(floor: Plant) -> None:
    version = newer(floor)
    floor.world().faults.set("fail_clone")
    row = begin(floor, version)
    for _ in range(30):
        Operation.objects.filter(state=Operation.State.QUEUED).update(not_before=None)
        floor.step()
        if over(row):
            break
    floor.world().faults.clear()
    assert row.state == S.STOPPED
    assert row.reason.startswith("3 desktops in a row failed on Debian v2, the last one office-0")
    assert len({one["desktop"] for one in row.failures}) >= 3
    assert floor.count(State.READY) >= 4
    assert floor.pool.members.get().copy.version == floor.version
    assert Notice.objects.get(user=floor.dana).kind == "push_stopped"
    assert Event.objects.get(kind="pool.push_stopped").level == "error"
    floor.until(lambda: floor.count(State.READY) == 8, "the pool is whole again")
    assert on(floor, version) == 0


def test_failures_with_a_good_one_in_between_do_not_stop_it(house: Any) -> None:
    row = Push(failures=[], good_at=None)
    now = timezone.now()
    row.failures = [
        {"desktop": str(uuid4()), "name": "a", "at": (now - timedelta(minutes=n)).isoformat(), "words": ""}
        for n in (9, 7, 5, 3)
    ]
    assert pushes.failures_in_a_row(row) == 4
    row.good_at = now - timedelta(minutes=4)
    assert pushes.failures_in_a_row(row) == 1


# --- cancelled and taken back -----------------------------------------------------------------------------------------


def test_cancelled_half_way_nothing_more_goes_over_and_what_went_stays(floor: Plant) -> None:
    version = newer(floor)
    row = begin(floor, version)
    floor.until(lambda: on(floor, version) >= 2, "some went over")
    pushes.cancel(actor=floor.dana, push_id=row.pk)
    floor.until(lambda: floor.count(State.READY) == 8, "all are ready")
    went = on(floor, version)
    assert 2 <= went < 8
    for _ in range(4):
        floor.step()
    assert on(floor, version) == went
    assert floor.count(State.READY) == 8
    with pytest.raises(Clash):
        pushes.cancel(actor=floor.dana, push_id=row.pk)
    desktop = taken(floor)
    brokering.release_desktop(actor=floor.alice, desktop_id=desktop.pk)
    desktop.refresh_from_db()
    assert desktop.copy.version == floor.version


def test_a_roll_back_brings_back_the_version_before_in_one_act(office: Plant) -> None:
    version = newer(office)
    row = begin(office, version)
    office.until(lambda: over(row), "the push is over")
    assert row.before == office.version
    key = uuid4()
    back = pushes.roll_back(actor=office.dana, push_id=row.pk, key=key)
    again = pushes.roll_back(actor=office.dana, push_id=row.pk, key=key)
    assert back.pk == again.pk == key
    assert Push.objects.count() == 2
    office.until(lambda: over(back), "the roll back is over")
    assert on(office, office.version) == 2
    with pytest.raises(Clash, match="was pushed since"):
        pushes.roll_back(actor=office.dana, push_id=row.pk)


def test_what_went_over_before_it_stopped_is_rolled_back_too(floor: Plant) -> None:
    version = newer(floor)
    row = begin(floor, version)
    floor.until(lambda: on(floor, version) >= 2, "some went over")
    back = pushes.roll_back(actor=floor.dana, push_id=row.pk)
    row.refresh_from_db()
    assert (row.state, row.reason) == (S.CANCELLED, "Debian v1 took its place.")
    floor.until(lambda: over(back), "the roll back is over")
    assert (back.state, on(floor, version), on(floor, floor.version)) == (S.DONE, 0, 8)


# --- asked for --------------------------------------------------------------------------------------------------------


def test_it_begins_at_its_time_and_not_before(office: Plant) -> None:
    version = newer(office)
    row = begin(office, version, starts_at=timezone.now() + timedelta(hours=2))
    office.step()
    assert office.pool.members.get().copy.version == office.version
    with pytest.raises(Clash, match="is being pushed to Office"):
        templates.remove_version(actor=office.dana, version_id=version.pk)
    Push.objects.update(starts_at=timezone.now())
    office.until(lambda: over(row), "the push is over")
    assert row.state == S.DONE


def test_one_whose_copy_went_away_meanwhile_says_so_and_changes_nothing(office: Plant) -> None:
    version = newer(office)
    row = begin(office, version, starts_at=timezone.now() + timedelta(hours=2))
    templates.remove_copy(actor=office.dana, copy_id=version.copies.get().pk)
    Push.objects.update(starts_at=timezone.now())
    office.step()
    row.refresh_from_db()
    assert (row.state, row.reason) == (S.STOPPED, "Debian v2 does not lie on instant-1 by now.")
    assert office.count(State.READY) == 2


def test_a_member_that_was_given_another_version_by_hand_ends_it(office: Plant) -> None:
    version = newer(office)
    office.ask(office.alice)
    row = begin(office, version)
    member = office.pool.members.get()
    old = office.version.copies.get()
    pools.change_member(actor=office.dana, member_id=member.pk, copy_id=old.pk)
    office.reconcile()
    row.refresh_from_db()
    assert (row.state, row.reason) == (S.CANCELLED, "instant-1 builds from Debian v1 by now.")


def test_a_version_that_lies_not_everywhere_and_one_that_changes_nothing_are_refused(office: Plant) -> None:
    nowhere = templates.add_version(actor=office.dana, template_id=office.version.template_id)
    with pytest.raises(Invalid) as fault:
        begin(office, nowhere)
    assert fault.value.fields["version_id"].startswith("Debian v2 does not lie on instant-1, where Office builds.")
    with pytest.raises(Clash, match="All of Office is on Debian v1 already"):
        begin(office, office.version)
    with pytest.raises(Forbidden):
        pushes.push(actor=office.alice, pool_id=office.pool.pk, version_id=office.version.pk)
    assert not Push.objects.exists()


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"starts_at": timedelta(days=-1)}, "starts_at"),
        ({"users": "deadline"}, "deadline_at"),
        ({"users": "leave", "deadline_at": timedelta(hours=1)}, "deadline_at"),
        ({"users": "deadline", "deadline_at": timedelta(minutes=5), "notice_min": 30}, "deadline_at"),
        ({"users": "never"}, "users"),
        ({"stops_after": 0}, "stops_after"),
        ({"notice_min": 10**6}, "notice_min"),
    ],
)
def test_what_contradicts_itself_is_refused_by_its_field(house: Any, wish: dict[str, Any], field: str) -> None:
    now = timezone.now()
    wish = {name: now + value if isinstance(value, timedelta) else value for name, value in wish.items()}
    version = TemplateVersion.objects.create(template=house.copy.version.template, number=2)
    with pytest.raises(Invalid) as fault:
        pushes.push(actor=house.dana, pool_id=house.pool.pk, version_id=version.pk, **wish)
    assert field in fault.value.fields


# --- whoever dies -----------------------------------------------------------------------------------------------------

BOUNDARIES = (
    (pools, "take_copy"), (pushes, "_note_outcomes"), (pushes, "_tell_users"), (pushes, "_end"),
    (pushes, "_queue_again"), (brokering, "reclaim_left"), (brokering, "order_recycle"),
)  # fmt: skip


@pytest.mark.parametrize("place", BOUNDARIES, ids=[name for _, name in BOUNDARIES])
def test_a_reconciler_that_dies_at_any_boundary_has_done_nothing_twice(
    office: Plant, place: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies right after each act, once; the next one goes on from what was committed."""

    class Dies(BaseException):
        pass

    Pool.objects.update(kind="dedicated")
    desktop = taken(office)
    version = newer(office)
    soon = timezone.now() + timedelta(minutes=10)
    row = begin(
        office, version, users="deadline", starts_at=timezone.now(), deadline_at=soon, notice_min=10, stops_after=9
    )
    module, name = place
    act: Callable[..., Any] = getattr(module, name)
    deaths: list[str] = []

    def dies(*arguments: Any, **named: Any) -> Any:
        result = act(*arguments, **named)
        if not deaths:
            deaths.append(name)
            raise Dies
        return result

    monkeypatch.setattr(module, name, dies)
    for _ in range(40):
        office.pauses_pass()
        try:
            office.step()
        except Dies:
            continue
        if PushTold.objects.exists() and office.count(State.READY) >= 2:
            past(row)
        if over(row):
            break
    assert deaths == [name]
    assert row.state == S.DONE
    assert Notice.objects.filter(kind="session_push").count() == 1
    assert Notice.objects.filter(kind="desktop_replaced").count() == 1
    assert Request.objects.filter(user=office.alice).exclude(state="ended").count() == 1
    assert AuditEntry.objects.filter(action="desktop.reclaim", object_id=str(desktop.pk)).count() == 1
    done = Operation.objects.filter(kind=Operation.Kind.RECYCLE, state="done").values_list("desktop", flat=True)
    assert len(done) == len(set(done)), "no desktop was rebuilt twice"
    office.until(lambda: office.count(State.READY) >= 2, "two are ready")
    assert all(d.copy.version == version for d in office.desktops(State.READY, State.ASSIGNED))
    office.assert_tidy()
    reconcile.run(office.pool.pk)
