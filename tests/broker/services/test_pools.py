"""Pools and members: what may be set, what is refused, what the reconciler is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import time
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from broker.domain import planning, resources
from broker.domain.lifecycle import State
from broker.domain.resources import ResourceClass
from broker.models import (
    AuditEntry,
    Desktop,
    Host,
    Hypervisor,
    Network,
    Operation,
    Pool,
    PoolMember,
    Request,
    Storage,
    TemplateCopy,
)
from broker.services import brokering, nudges, pools, reconcile
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from broker.services.pools import MemberWish
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def create(house: Estate, **changed: Any) -> Pool:
    wish: dict[str, Any] = {
        "actor": house.dana, "name": "Design", "naming": "design-###", "minimum": 1, "spare": 2, "maximum": 20,
        "members": [MemberWish(house.copy.pk, weight=50, maximum=5)],
    }  # fmt: skip
    return pools.create_pool(**(wish | changed))


def second_copy(house: Estate) -> TemplateCopy:
    other = Hypervisor.objects.create(name="kvm-02", kind="kvm")
    return TemplateCopy.objects.create(
        version=house.copy.version, hypervisor=other, platform_id="golden", name="golden", vcpus=1, memory_mib=512
    )


def test_a_pool_stands_with_its_members_and_the_reconciler_is_told(house: Estate, hints: Callable[[], Any]) -> None:
    with hints() as sent:
        pool = create(house)
    member = pool.members.get()
    assert (member.hypervisor, member.copy, member.weight, member.maximum) == (house.hypervisor, house.copy, 50, 5)
    assert sent == [(nudges.RECONCILE, str(pool.pk))]
    assert pool.next_reconcile_at is not None
    changes = AuditEntry.objects.get(action="pool.create").changes
    assert changes["maximum"] == [None, 20]
    assert AuditEntry.objects.filter(action="pool.add_member").count() == 1


@pytest.mark.parametrize(
    ("wish", "fields"),
    [
        ({"name": "office"}, {"name"}),
        ({"name": "a\nb"}, {"name"}),
        ({"name": "x" * 300}, {"name"}),
        ({"naming": "design"}, {"naming"}),
        ({"naming": "../#"}, {"naming"}),
        ({"naming": "de sign-#"}, {"naming"}),
        ({"naming": "büro-##"}, {"naming"}),
        ({"naming": "d-#"}, {"naming"}),
        ({"naming": "OFFICE-###"}, {"naming"}),
        ({"naming": f"{'x' * 60}-###"}, {"naming"}),
        ({"kind": "floaty"}, {"kind"}),
        ({"preparation": "prayer"}, {"preparation"}),
        ({"minimum": 21}, {"minimum"}),
        ({"spare": 21}, {"spare"}),
        ({"minimum": -1}, {"minimum"}),
        ({"maximum": 10**12}, {"maximum", "naming"}),
        ({"vcpus": 0}, {"vcpus"}),
        ({"memory_mib": 1}, {"memory_mib"}),
        ({"priority": 0}, {"priority"}),
        ({"resource_class": "royal"}, {"resource_class"}),
        ({"resource_class": "own", "weight": 0}, {"weight"}),
        ({"resource_class": "own", "cpu_limit_percent": 101}, {"cpu_limit_percent"}),
        ({"cpu_limit_percent": 40, "cpu_reservation_percent": 50}, {"cpu_reservation_percent"}),
        ({"resource_class": "high", "weight": 5}, {"weight"}),
        ({"members": [MemberWish(uuid4())]}, {"copy"}),
    ],
)
def test_wrong_input_is_told_field_by_field_and_nothing_is_made(
    house: Estate, wish: dict[str, Any], fields: set[str]
) -> None:
    with pytest.raises(Invalid) as refused:
        create(house, **wish)
    assert set(refused.value.fields) == fields
    assert Pool.objects.count() == 1


def test_two_members_on_one_hypervisor_are_one_too_many(house: Estate) -> None:
    with pytest.raises(Invalid) as refused:
        create(house, members=[MemberWish(house.copy.pk), MemberWish(house.copy.pk)])
    assert "already a member" in refused.value.fields["copy"]
    with pytest.raises(Invalid):
        pools.add_member(actor=house.dana, pool_id=house.pool.pk, copy_id=house.copy.pk)


def test_a_network_must_be_one_that_the_inventory_knows(house: Estate) -> None:
    Network.objects.create(hypervisor=house.hypervisor, platform_id="net-1", name="default", seen_at=timezone.now())
    member = house.pool.members.get()
    changed = pools.change_member(actor=house.dana, member_id=member.pk, networks=["net-1"])
    assert changed.networks == ["net-1"]
    with pytest.raises(Invalid) as refused:
        pools.change_member(actor=house.dana, member_id=member.pk, networks=["net-2"])
    assert "'net-2'" in refused.value.fields["networks"]


def test_a_change_names_before_and_after_and_leaves_the_rest(house: Estate, hints: Callable[[], Any]) -> None:
    with hints() as sent:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, spare=3)
    assert AuditEntry.objects.get().changes == {"spare": [1, 3]}
    assert sent == [(nudges.RECONCILE, str(house.pool.pk))]
    house.pool.refresh_from_db()
    assert (house.pool.name, house.pool.spare) == ("Office", 3)


def test_a_change_of_nothing_is_no_change(house: Estate, hints: Callable[[], Any]) -> None:
    with hints() as sent:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, name="Office")
    assert not AuditEntry.objects.exists()
    assert not sent


def test_the_maximum_never_falls_below_what_is_kept(house: Estate) -> None:
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, minimum=4, maximum=8)
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, maximum=3)
    assert set(refused.value.fields) == {"minimum"}


def test_a_class_decides_priority_and_share_and_own_numbers_do_it_without_one(house: Estate) -> None:
    pool = create(house, resource_class="high")
    assert (pool.priority, pool.share) == (30, resources.MEANINGS[ResourceClass.HIGH].share)
    pool = pools.change_pool(actor=house.dana, pool_id=pool.pk, weight=300)
    assert (pool.resource_class, pool.priority, pool.weight) == ("own", 30, 300)
    pool = pools.change_pool(actor=house.dana, pool_id=pool.pk, resource_class="normal")
    assert (pool.priority, pool.share) == (50, resources.AS_BUILT)
    entries = AuditEntry.objects.filter(action="pool.change").order_by("pk")
    assert [entry.changes["resource_class"] for entry in entries] == [["high", "own"], ["own", "normal"]]


def test_a_change_of_something_else_leaves_the_class(house: Estate) -> None:
    pool = create(house, resource_class="low")
    pool = pools.change_pool(actor=house.dana, pool_id=pool.pk, spare=3)
    assert (pool.resource_class, pool.priority) == ("low", 70)


def test_a_pool_is_opened_and_closed(house: Estate) -> None:
    assert not pools.enable_pool(actor=house.dana, pool_id=house.pool.pk, on=False).is_enabled
    with pytest.raises(Clash, match="closed"):
        brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert pools.enable_pool(actor=house.dana, pool_id=house.pool.pk, on=True).is_enabled


def test_the_words_of_a_closing_are_over_with_it(house: Estate) -> None:
    pool = pools.enable_pool(actor=house.dana, pool_id=house.pool.pk, on=False, words="  Until 14:00. ")
    assert pool.closed_words == "Until 14:00."
    assert pools.change_pool(actor=house.dana, pool_id=pool.pk, is_enabled=True).closed_words == ""
    with pytest.raises(Invalid) as refused:
        pools.enable_pool(actor=house.dana, pool_id=pool.pk, on=False, words="two\nlines")
    assert set(refused.value.fields) == {"closed_words"}


def test_resuming_clears_the_holds_of_pool_and_members(house: Estate) -> None:
    Pool.objects.update(hold_reason="30 deleted this hour.")
    PoolMember.objects.update(hold_reason="Storage full.", hold_until=timezone.now(), failures=4)
    pools.resume_pool(actor=house.dana, pool_id=house.pool.pk)
    member = PoolMember.objects.get()
    assert (Pool.objects.get().hold_reason, member.hold_reason, member.hold_until, member.failures) == ("", "", None, 0)
    assert AuditEntry.objects.get().changes["hold_reason"] == ["30 deleted this hour.", ""]


def test_members_come_and_go(house: Estate, hints: Callable[[], Any]) -> None:
    copy = second_copy(house)
    with hints() as sent:
        member = pools.add_member(actor=house.dana, pool_id=house.pool.pk, copy_id=copy.pk, weight=10)
        pools.change_member(actor=house.dana, member_id=member.pk, weight=20, is_enabled=False)
        pools.remove_member(actor=house.dana, member_id=member.pk)
    assert sent == [(nudges.RECONCILE, str(house.pool.pk))] * 3
    assert AuditEntry.objects.get(action="pool.change_member").changes == {
        "weight": [10, 20], "is_enabled": [True, False],
    }  # fmt: skip
    assert house.pool.members.count() == 1


def test_a_member_has_a_minimum_a_storage_and_hosts_that_the_inventory_knows(house: Estate) -> None:
    now = timezone.now()
    Storage.objects.create(
        hypervisor=house.hypervisor, platform_id="fast", name="Fast", capacity_mib=9, free_mib=9, seen_at=now
    )
    Host.objects.create(hypervisor=house.hypervisor, platform_id="h-1", name="h", vcpus=1, memory_mib=9, seen_at=now)
    member = house.pool.members.get()
    changed = pools.change_member(actor=house.dana, member_id=member.pk, minimum=2, storage="fast", hosts=["h-1"])
    assert (changed.minimum, changed.storage, changed.hosts) == (2, "fast", ["h-1"])
    with pytest.raises(Invalid) as refused:
        pools.change_member(actor=house.dana, member_id=member.pk, storage="slow", hosts=["h-1", "h-2"], maximum=1)
    assert refused.value.fields == {
        "storage": "kvm-01 has no storage 'slow'.",
        "hosts": "kvm-01 has no host 'h-2'.",
        "member_minimum": "Not more than its maximum (1).",
    }


def test_members_may_not_ask_for_more_together_than_the_pool_may_have(house: Estate) -> None:
    member = house.pool.members.get()
    pools.change_member(actor=house.dana, member_id=member.pk, minimum=7)
    for verb in (
        lambda: pools.change_member(actor=house.dana, member_id=member.pk, minimum=11),
        lambda: pools.add_member(actor=house.dana, pool_id=house.pool.pk, copy_id=second_copy(house).pk, minimum=4),
        lambda: pools.change_pool(actor=house.dana, pool_id=house.pool.pk, maximum=6),
        lambda: create(house, maximum=5, members=[MemberWish(house.copy.pk, minimum=6)]),
    ):
        with pytest.raises(Invalid) as refused:
            verb()
        assert any("The members' minimums make" in words for words in refused.value.fields.values())


def test_a_members_copy_stays_on_its_hypervisor(house: Estate) -> None:
    copy = second_copy(house)
    with pytest.raises(Invalid) as refused:
        pools.change_member(actor=house.dana, member_id=house.pool.members.get().pk, copy_id=copy.pk)
    assert "does not lie on kvm-01" in refused.value.fields["copy"]


def test_a_pool_in_use_is_not_deleted_and_says_what_to_do(house: Estate) -> None:
    with pytest.raises(Clash, match=r"live desktops \(1\)"):
        pools.delete_pool(actor=house.dana, pool_id=house.pool.pk)
    pool = house.open_pool("Empty")
    Request.objects.create(pool=pool, user=house.bob, created_at=timezone.now())
    with pytest.raises(Clash, match=r"open requests \(1\)"):
        pools.delete_pool(actor=house.dana, pool_id=pool.pk)


def test_a_pool_goes_with_its_history(house: Estate) -> None:
    brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
    Operation.objects.update(state="done")
    Desktop.objects.update(state=State.GONE)
    pools.delete_pool(actor=house.dana, pool_id=house.pool.pk)
    assert not Pool.objects.exists()
    assert not Request.objects.exists()
    assert AuditEntry.objects.filter(action="pool.delete", object_name="Office").exists()


@pytest.mark.parametrize("person", ["alice", "bob", "charlie"])
def test_only_administrators_have_a_say(house: Estate, person: str) -> None:
    actor, pool, member = getattr(house, person), house.pool, house.pool.members.get()
    for verb in (
        lambda: create(house, actor=actor),
        lambda: pools.change_pool(actor=actor, pool_id=pool.pk, spare=0),
        lambda: pools.enable_pool(actor=actor, pool_id=pool.pk, on=False),
        lambda: pools.resume_pool(actor=actor, pool_id=pool.pk),
        lambda: pools.delete_pool(actor=actor, pool_id=pool.pk),
        lambda: pools.add_member(actor=actor, pool_id=pool.pk, copy_id=house.copy.pk),
        lambda: pools.change_member(actor=actor, member_id=member.pk, weight=1),
        lambda: pools.remove_member(actor=actor, member_id=member.pk),
    ):
        with pytest.raises(Forbidden):
            verb()


def test_an_unknown_pool_is_missing(house: Estate) -> None:
    with pytest.raises(Missing):
        pools.change_pool(actor=house.dana, pool_id=uuid4(), spare=0)


def test_the_numbers_of_the_peak_hours_hold_while_they_last(house: Estate) -> None:
    peak = {"peak_weekdays": "1234567", "peak_begins": time(0), "peak_ends": time(0), "peak_zone": "UTC"}
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, spare=0, spare_percent=None, peak_spare=4, **peak)  # type: ignore[arg-type]
    reconcile.run(house.pool.pk)
    house.pool.refresh_from_db()
    assert planned_for(house) == 4
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, peak_weekdays="", spare_percent=600)
    assert planned_for(house) == 6, "of one in use"


def planned_for(house: Estate) -> int:
    """Free desktops that the reconciler wants now."""
    work = reconcile.Work(house.pool.pk, timezone.now())
    work.pool = Pool.objects.get(pk=house.pool.pk)
    facts = work._pool_facts([])
    return planning.wanted(facts, assigned=1) - 1


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"peak_weekdays": "12"}, "peak_begins"),
        ({"peak_weekdays": "21", "peak_begins": time(7), "peak_ends": time(8), "peak_zone": "UTC"}, "peak_weekdays"),
        ({"peak_weekdays": "1", "peak_begins": time(7), "peak_ends": time(8), "peak_zone": "Mars"}, "peak_zone"),
        ({"spare_percent": 0}, "spare_percent"),
    ],
)
def test_peak_hours_are_whole_or_not_there(house: Estate, wish: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as fault:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, **wish)
    assert field in fault.value.fields
