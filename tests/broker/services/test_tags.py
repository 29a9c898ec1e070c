"""Tags on machines, and policies that replicate whatever bears one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broker.models import AuditEntry, Machine, MachineTag, ReplicationPolicy
from broker.services import replication_policies, replication_promises, tags
from broker.services.errors import Clash, Forbidden, Invalid
from broker.services.replication_policies import ChoiceWish
from tests.broker.services.replicas import Replicas


def put(replicas: Replicas, *numbers: int, tag: str = "tier 1") -> int:
    return tags.put(actor=replicas.plant.dana, machine_ids=[replicas.row(number).pk for number in numbers], tag=tag)


def by_tag(replicas: Replicas, tag: str = "tier 1") -> ReplicationPolicy:
    return replication_policies.create_policy(
        actor=replicas.plant.dana, name="By tag", vault_id=replicas.vault.pk, interval_s=3600, rpo_s=7200,
        choices=[ChoiceWish(kind="tag", tag=tag)],
    )  # fmt: skip


def chosen(policy: ReplicationPolicy) -> Sequence[str]:
    return sorted(policy.sources.filter(is_chosen=True).values_list("name", flat=True))


def test_a_policy_over_a_tag_takes_up_what_bears_it_now_and_later(replicas: Replicas) -> None:
    assert put(replicas, 0) == 1
    policy = by_tag(replicas)
    assert chosen(policy) == ["alpha"]
    assert put(replicas, 0, 1) == 1, "one bore it already"
    assert chosen(policy) == ["alpha", "beta"]
    tags.take(actor=replicas.plant.dana, machine_ids=[replicas.row(0).pk], tag="tier 1")
    assert chosen(policy) == ["beta"]
    assert AuditEntry.objects.filter(action="tag.take").count() == 1


def test_another_tag_is_another_word(replicas: Replicas) -> None:
    put(replicas, 0)
    policy = by_tag(replicas)
    put(replicas, 1, tag="tier 2")
    assert chosen(policy) == ["alpha"]
    with pytest.raises(Clash, match="has it already"):
        replication_policies.add_choice(
            actor=replicas.plant.dana, policy_id=policy.pk, wish=ChoiceWish(kind="tag", tag="tier 1")
        )


def test_a_machine_that_is_not_listed_just_now_stays_chosen(replicas: Replicas) -> None:
    put(replicas, 0)
    policy = by_tag(replicas)
    Machine.objects.filter(platform_id=replicas.machines[0]).delete()
    replication_promises.watch()
    assert len(chosen(policy)) == 1


@pytest.mark.parametrize("tag", ["", "a, b", "x" * 51, "two\nlines"])
def test_what_is_no_tag_is_refused(tag: str, replicas: Replicas) -> None:
    with pytest.raises(Invalid) as refused:
        put(replicas, 0, tag=tag)
    assert set(refused.value.fields) == {"tag"}
    assert not MachineTag.objects.exists()


def test_desktops_and_machines_that_are_gone_are_not_tagged(replicas: Replicas) -> None:
    with pytest.raises(Invalid, match="Nothing was tagged"):
        put(replicas)
    gone = replicas.row(0).pk
    Machine.objects.filter(pk=gone).delete()
    with pytest.raises(Invalid) as refused:
        tags.put(actor=replicas.plant.dana, machine_ids=[gone, replicas.row(1).pk], tag="tier 1")
    assert "not listed any more" in refused.value.fields["choice"]


def test_a_policy_over_a_tag_that_nothing_bears_is_refused(replicas: Replicas) -> None:
    with pytest.raises(Invalid) as refused:
        by_tag(replicas)
    assert refused.value.fields == {"tag": "No machine bears the tag tier 1."}


def test_only_administrators_tag(replicas: Replicas) -> None:
    for act in (tags.put, tags.take):
        with pytest.raises(Forbidden):
            act(actor=replicas.plant.alice, machine_ids=[replicas.row(0).pk], tag="tier 1")
