"""Where desktops are built, and why not elsewhere."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.placement import Target, Wish, explain_none, place, place_many

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)
WISH = Wish()


def target(name: str = "kvm-a", **facts: Any) -> Target:
    values: dict[str, Any] = {
        "member_id": f"member-{name}",
        "hypervisor_id": f"hypervisor-{name}",
        "hypervisor": name,
        "host_id": f"host-{name}",
        "host": name,
        "vcpus": 8,
        "memory_mib": 4096,
        "copy_vcpus": 1,
        "copy_memory_mib": 512,
    }
    return Target(**values | facts)


def reasons(facts: Target, wish: Wish = WISH) -> str:
    placement = place(wish, [facts], NOW)
    assert placement.target is None
    return " ".join(placement.reasons[0].reasons)


def test_a_host_without_memory_says_so_with_figures() -> None:
    assert reasons(target(used_memory_mib=3796)) == (
        "Host kvm-a: 512 MiB wanted, 300 MiB free of 4096 (3796 in use or promised)."
    )


def test_memory_may_be_promised_up_to_the_ratio() -> None:
    assert place(WISH, [target(used_memory_mib=4096, memory_ratio=1.5)], NOW).target
    assert "of 6144" in reasons(target(used_memory_mib=6000, memory_ratio=1.5))


def test_a_host_without_vcpus_says_so_with_figures() -> None:
    assert (
        reasons(target(used_vcpus=63), Wish(vcpus=2))
        == "Host kvm-a: 2 vCPUs wanted, 1 free of 64 (63 in use or promised)."
    )


def test_a_pools_own_size_goes_before_the_copys() -> None:
    assert "4000 MiB wanted" in reasons(target(used_memory_mib=100), Wish(memory_mib=4000))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"hypervisor_status": "down", "hypervisor_reason": "no answer in 10 s"}, "kvm-a is down (no answer in 10 s)."),
        ({"hypervisor_status": "new"}, "has not been reached yet"),
        ({"hypervisor_status": "refused"}, "refuses the sign-in"),
        ({"hypervisor_status": "doubt"}, "in doubt"),
        ({"hypervisor_draining": True}, "Hypervisor kvm-a is being emptied."),
        ({"host_up": False}, "Host kvm-a is down."),
        ({"host_draining": True}, "Host kvm-a is being emptied."),
        ({"member_enabled": False}, "switched off"),
        ({"member_hold_until": NOW + timedelta(seconds=1), "member_hold_reason": "3 builds failed"}, "3 builds failed"),
        ({"member_maximum": 5, "member_desktops": 5}, "may have 5 desktops on kvm-a and has 5"),
        ({"storage_id": "s", "storage": "pool", "storage_up": False}, "Storage pool is not available."),
        (
            {"storage_id": "s", "storage": "pool", "storage_free_mib": 99, "copy_disk_mib": 1000},
            "Storage pool: 100 MiB wanted for the disk, 99 MiB free.",
        ),
        ({"host_allowed": False}, "Host kvm-a is not among those chosen for the pool on kvm-a."),
        (
            {"copy": "golden", "copy_cannot": "It is switched on."},
            "Template golden on kvm-a cannot be cloned: It is switched on.",
        ),
        (
            {"copy": "golden", "copy_storage": "slow", "copy_storage_up": False},
            "Storage slow, where template golden lies, is not available.",
        ),
        ({"storage": "fast", "storage_missing": True}, "kvm-a has no storage fast: choose another one"),
    ],
)
def test_every_filter_refuses_in_words(facts: dict[str, Any], words: str) -> None:
    assert words in reasons(target(**facts))


def test_a_hold_that_is_over_holds_nothing() -> None:
    assert place(WISH, [target(member_hold_until=NOW)], NOW).target


def test_a_full_copy_needs_the_whole_disk() -> None:
    facts = target(storage_id="s", storage="pool", storage_free_mib=999, copy_disk_mib=1000)
    assert place(Wish(is_linked=True), [facts], NOW).target
    assert "1000 MiB wanted" in reasons(facts, Wish(is_linked=False))


def test_all_that_is_wrong_is_said_not_the_first_thing_only() -> None:
    assert len(place(WISH, [target(host_up=False, used_memory_mib=4096, used_vcpus=64)], NOW).reasons[0].reasons) == 3


def test_the_emptier_host_is_chosen() -> None:
    placement = place(WISH, [target("a", used_memory_mib=2048), target("b")], NOW)
    assert placement.target is not None
    assert placement.target.host == "b"
    assert [candidate.chosen for candidate in placement.reasons] == [True, False]


def test_desktops_of_a_pool_are_spread() -> None:
    placement = place(WISH, [target("a", host_desktops=2), target("b")], NOW)
    assert placement.target is not None
    assert placement.target.host == "b"


def test_a_place_beside_the_template_is_preferred_and_the_other_says_why_it_counts_less() -> None:
    far = target("a", storage="fast", copy_storage="slow")
    placement = place(WISH, [far, target("b")], NOW)
    assert placement.target is not None
    assert placement.target.host == "b"
    assert "clones to fast while its template lies on slow" in placement.reasons[1].reasons[0]
    assert place(WISH, [far], NOW).target


def test_a_hypervisor_on_which_the_network_is_nothing_is_refused_in_words() -> None:
    wish = Wish(network="Office")
    assert reasons(target("esx-01", lacks_network=True), wish) == "Network Office has no counterpart on esx-01."
    assert place(wish, [target()], NOW).target
    assert place(WISH, [target(lacks_network=True)], NOW).target


def test_no_more_of_a_pool_stand_on_one_host_than_it_may_have_there() -> None:
    wish = Wish(maximum_per_host=2)
    placements = place_many(wish, 9, [target("a", host_desktops=1), target("b")], NOW)
    assert [p.target.host for p in placements if p.target] == ["b", "a", "b"]
    assert "host a: the pool may have 2 desktops on one host and has 2 there" in explain_none(placements[-1])


def test_a_heavier_member_gets_its_share() -> None:
    targets = [
        target("a", weight=100, memory_mib=2**20, vcpus=1000),
        target("b", weight=300, memory_mib=2**20, vcpus=1000),
    ]
    placed = [p.target.host for p in place_many(WISH, 40, targets, NOW) if p.target]
    assert 28 <= placed.count("b") <= 32


def test_many_are_placed_from_one_reading_and_the_last_says_why_no_more() -> None:
    targets = [target("a", memory_mib=1024), target("b", memory_mib=1536)]
    placements = place_many(WISH, 10, targets, NOW)
    assert [bool(p.target) for p in placements] == [True] * 5 + [False]
    assert sorted(p.target.host for p in placements if p.target) == ["a", "a", "b", "b", "b"]
    assert "0 MiB free of 1024 (1024 in use or promised)" in explain_none(placements[-1])


def test_hosts_that_share_a_storage_share_its_room() -> None:
    shared = {"storage_id": "nfs", "storage": "nfs", "storage_free_mib": 300, "copy_disk_mib": 1000}
    placements = place_many(WISH, 9, [target("a", **shared), target("b", **shared)], NOW)
    assert sum(p.target is not None for p in placements) == 3


def test_a_members_maximum_counts_over_all_its_hosts() -> None:
    one = target("a", member_id="m", member_maximum=3)
    two = replace(one, host_id="other", host="other")
    assert sum(p.target is not None for p in place_many(WISH, 9, [one, two], NOW)) == 3


def test_none_is_explained_in_one_sentence_to_the_user() -> None:
    words = explain_none(place(WISH, [target("a", hypervisor_status="down"), target("b", used_memory_mib=4000)], NOW))
    assert words == (
        "No desktop is available: hypervisor a is down; host b: 512 MiB wanted, 96 MiB free of 4096 "
        "(4000 in use or promised)."
    )
    assert "no hypervisor to build on" in explain_none(place(WISH, [], NOW))
    assert explain_none(place(WISH, [target()], NOW)) == ""


def test_the_reasons_are_stored_as_plain_json() -> None:
    stored = place(WISH, [target("a"), target("b", host_up=False)], NOW).stored()
    assert [set(entry) for entry in stored] == [{"target", "chosen", "score", "reasons"}] * 2
    assert stored[1]["reasons"] == ["Host b is down."]


targets = st.lists(
    st.builds(
        target,
        name=st.sampled_from(["a", "b", "c", "d", "e"]),
        vcpus=st.integers(1, 16),
        memory_mib=st.integers(256, 8192),
        used_vcpus=st.integers(0, 64),
        used_memory_mib=st.integers(0, 8192),
        memory_ratio=st.sampled_from([0.8, 1.0, 1.5]),
        weight=st.integers(0, 300),
        host_up=st.booleans(),
        host_allowed=st.sampled_from([True, True, False]),
        copy_storage=st.sampled_from(["", "elsewhere"]),
        member_maximum=st.none() | st.integers(0, 5),
        member_desktops=st.integers(0, 5),
        host_desktops=st.integers(0, 5),
        storage_id=st.sampled_from(["", "s", "t"]),
        storage_free_mib=st.just(500),
        copy_disk_mib=st.integers(0, 2000),
    ),
    max_size=5,
    unique_by=lambda t: t.host_id,
)


@given(targets, st.integers(0, 12), st.integers(128, 2048), st.none() | st.integers(1, 4))
def test_no_host_is_ever_promised_more_than_it_has(
    found: list[Target], count: int, memory_mib: int, per_host: int | None
) -> None:
    wish = Wish(memory_mib=memory_mib, maximum_per_host=per_host)
    placements = place_many(wish, count, found, NOW)
    chosen = [(p.target, p.needs) for p in placements if p.target and p.needs]
    for facts in found:
        here = [needs for place_, needs in chosen if place_.host_id == facts.host_id]
        if here:
            assert facts.host_up
            assert facts.host_allowed
            assert per_host is None or facts.host_desktops + len(here) <= per_host
            assert facts.used_memory_mib + sum(n.memory_mib for n in here) <= facts.memory_limit_mib
            assert facts.used_vcpus + sum(n.vcpus for n in here) <= facts.vcpu_limit
            assert facts.member_maximum is None or facts.member_desktops + len(here) <= facts.member_maximum
    for storage in ("s", "t"):
        assert sum(n.disk_mib for t, n in chosen if t.storage_id == storage) <= 500


@given(targets)
def test_every_target_is_judged_once_and_every_refusal_has_words(found: list[Target]) -> None:
    placement = place(WISH, found, NOW)
    assert sorted(c.target.host_id for c in placement.reasons) == sorted(t.host_id for t in found)
    assert all(c.reasons for c in placement.reasons)
    assert sum(c.chosen for c in placement.reasons) == (placement.target is not None)
    assert (placement.target is None) == bool(explain_none(placement))
    assert place(WISH, list(reversed(found)), NOW).target == placement.target
