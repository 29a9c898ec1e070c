"""Logical networks: their counterparts, who may change them, and what pools make of them."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import (
    AuditEntry,
    Hypervisor,
    LogicalNetwork,
    Network,
    NetworkMapping,
    Operation,
    PoolMember,
    Request,
)
from broker.selectors import pools as pool_selectors
from broker.services import networks, nudges, pools, reconcile
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from tests.broker.plant import Plant
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def listed(hypervisor: Hypervisor, name: str = "vlan-20", *, is_isolated: bool = False) -> Network:
    return Network.objects.create(
        hypervisor=hypervisor, platform_id=f"id-{name}", name=name, is_isolated=is_isolated, seen_at=timezone.now()
    )


def office(house: Estate) -> LogicalNetwork:
    return networks.create_network(
        actor=house.dana, name="Office", counterparts={house.hypervisor.pk: listed(house.hypervisor).pk}
    )


def test_a_network_has_one_counterpart_on_each_hypervisor_and_changes_are_told(house: Estate, hints: object) -> None:
    network = office(house)
    other = listed(house.hypervisor, "vlan-30")
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, network_id=network.pk)
    with hints() as sent:  # type: ignore[operator]
        networks.change_network(
            actor=house.dana, network_id=network.pk, name="Offices", counterparts={house.hypervisor.pk: other.pk}
        )
    assert [m.network for m in network.mappings.all()] == [other]
    assert sent == [(nudges.RECONCILE, str(house.pool.pk))]
    changes = AuditEntry.objects.get(action="network.change").changes
    assert changes == {"name": ["Office", "Offices"], "on kvm-01": ["vlan-20", "vlan-30"]}
    networks.change_network(
        actor=house.dana, network_id=network.pk, name="Offices", counterparts={house.hypervisor.pk: None}
    )
    assert not network.mappings.exists()


def test_a_counterpart_is_a_network_of_its_hypervisor(house: Estate) -> None:
    other = Hypervisor.objects.create(name="kvm-02", kind="kvm")
    for network_id in (listed(other).pk, uuid4()):
        with pytest.raises(Invalid) as refused:
            networks.create_network(actor=house.dana, name="Office", counterparts={house.hypervisor.pk: network_id})
        assert set(refused.value.fields) == {"counterparts"}
    assert not NetworkMapping.objects.exists()


def test_a_name_is_taken_once(house: Estate) -> None:
    office(house)
    with pytest.raises(Invalid) as refused:
        networks.create_network(actor=house.dana, name="office")
    assert set(refused.value.fields) == {"name"}


def test_a_network_that_a_pool_is_on_is_not_deleted(house: Estate) -> None:
    network = office(house)
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, network_id=network.pk)
    with pytest.raises(Clash, match="Office is the network of Office"):
        networks.delete_network(actor=house.dana, network_id=network.pk)
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, network_id=None)
    networks.delete_network(actor=house.dana, network_id=network.pk)
    assert not LogicalNetwork.objects.exists()
    assert Network.objects.exists()


def test_an_unknown_network_is_refused_to_a_pool_and_missing_by_itself(house: Estate) -> None:
    with pytest.raises(Invalid) as refused:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, network_id=uuid4())
    assert refused.value.fields == {"network_id": "There is no such network."}
    with pytest.raises(Missing):
        networks.delete_network(actor=house.dana, network_id=uuid4())


@pytest.mark.parametrize("person", ["alice", "bob", "charlie"])
def test_only_administrators_have_a_say(house: Estate, person: str) -> None:
    network, actor = office(house), getattr(house, person)
    for verb in (
        lambda: networks.create_network(actor=actor, name="x"),
        lambda: networks.change_network(actor=actor, network_id=network.pk, name="x"),
        lambda: networks.delete_network(actor=actor, network_id=network.pk),
    ):
        with pytest.raises(Forbidden):
            verb()


def test_machines_are_built_on_the_counterpart_and_nowhere_that_has_none(plant: Plant) -> None:
    plant.add_hypervisor("one")
    plant.add_hypervisor("two")
    row = Network.objects.get(hypervisor__name="one")
    network = networks.create_network(actor=plant.dana, name="Office", counterparts={row.hypervisor_id: row.pk})
    plant.add_pool(spare=4, network_id=network.pk)
    plant.fill(4)
    assert {d.hypervisor_id for d in plant.desktops()} == {row.hypervisor_id}
    assert {tuple(o.parameters["networks"]) for o in Operation.objects.filter(kind="clone")} == {("network-1",)}
    reasons = [words for candidate in plant.desktops()[0].why for words in candidate["reasons"]]
    assert "Network Office has no counterpart on two." in reasons


def test_a_members_own_networks_go_before_the_pools(plant: Plant) -> None:
    plant.add_hypervisor()
    network = networks.create_network(actor=plant.dana, name="Office")
    plant.add_pool(spare=1, network_id=network.pk)
    member = PoolMember.objects.get()
    pools.change_member(actor=plant.dana, member_id=member.pk, networks=["network-1"])
    plant.fill(1)
    assert Operation.objects.get(kind="clone").parameters["networks"] == ["network-1"]


def test_a_counterpart_lost_between_plan_and_order_builds_nothing_on_the_templates_network(plant: Plant) -> None:
    plant.add_hypervisor()
    row = Network.objects.get()
    network = networks.create_network(actor=plant.dana, name="Exams", counterparts={row.hypervisor_id: row.pk})
    plant.add_pool(spare=1, network_id=network.pk)
    plant.reconcile()
    Operation.objects.filter(kind="clone").delete()
    NetworkMapping.objects.all().delete()
    plant.ask(plant.alice)
    reconcile.run(plant.pool.pk)
    assert not Operation.objects.filter(kind="clone").exists()
    assert plant.desktops(State.FAILED)[0].failure == "Network Exams has no counterpart on instant-1."
    plant.reconcile()
    assert "network Exams has no counterpart on instant-1" in Request.objects.get().reason


def test_where_a_platform_cannot_keep_a_network_apart_the_pool_says_so(house: Estate) -> None:
    network = office(house)
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, network_id=network.pk)

    def warning() -> str:
        pool = pool_selectors.pools_with_members().get(pk=house.pool.pk)
        return pool_selectors.member_standings(pool)[0].network_warning

    assert warning() == ""
    LogicalNetwork.objects.update(wants_isolation=True)
    assert warning() == "kvm-01 does not keep network Office apart."
    Network.objects.update(is_isolated=True)
    assert warning() == ""
    NetworkMapping.objects.all().delete()
    assert warning() == "Network Office has no counterpart on kvm-01."


def test_inventory_tells_which_networks_a_platform_keeps_apart(plant: Plant) -> None:
    plant.add_hypervisor()
    assert not Network.objects.get().is_isolated
    plant.world().rows("UPDATE network SET is_isolated = 1")
    plant.look()
    assert Network.objects.get().is_isolated
