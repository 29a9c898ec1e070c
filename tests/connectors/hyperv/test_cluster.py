"""Orders on a cluster: each node knows only its own machines, and one that is away must not be taken for an answer."""

from __future__ import annotations

import dataclasses

import pytest

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    MachineMade,
    MachineRef,
    PowerAction,
    RecycleMachine,
    SetPower,
    Stage,
    Stamp,
)
from connectors.errors import HostDown, NotFound, Unreachable
from tests.connectors.contract import OURS, clone, do, finish, listing, made, new_key, ref, refuse, submit
from tests.connectors.hyperv.worlds import HypervWorld


def on(cluster: HypervWorld, host: str, **changed: object) -> CloneMachine:
    return dataclasses.replace(clone(cluster), host=host, **changed)  # type: ignore[arg-type]


def where(cluster: HypervWorld, machine: MachineMade) -> str:
    return cluster.machine(machine.machine_id).host


def move(cluster: HypervWorld, machine: str, host: str) -> None:
    """Live migration: the machine keeps its id."""
    with cluster.world:
        cluster.world.machine(machine).host = host


@pytest.mark.parametrize("linked", [True, False])
def test_a_clone_is_made_on_the_node_that_was_chosen_wherever_its_template_lies(
    linked: bool, cluster: HypervWorld
) -> None:
    home = cluster.machine(cluster.template).host
    for host in ("HV1", "HV2", "HV3"):
        machine = made(cluster, cluster.connector(), on(cluster, host, linked=linked))
        assert (where(cluster, machine), machine.host) == (host, host)
    assert cluster.machine(cluster.template).host == home


def test_a_clone_without_a_host_is_made_where_its_template_lies(cluster: HypervWorld) -> None:
    machine = made(cluster, cluster.connector(), clone(cluster))
    assert where(cluster, machine) == cluster.machine(cluster.template).host


def test_a_host_that_is_none_of_the_nodes_is_not_found(cluster: HypervWorld) -> None:
    error = refuse(cluster, cluster.connector(), on(cluster, "HV9"))
    assert isinstance(error, NotFound)
    assert "HV9" in error.message
    assert not cluster.machines()


def test_a_lost_clone_is_found_on_the_node_that_made_it(cluster: HypervWorld) -> None:
    order = on(cluster, "HV2")
    machine = made(cluster, cluster.connector(), order)
    move(cluster, machine.machine_id, "HV3")
    again = made(cluster, cluster.connector(), dataclasses.replace(order, attempt=2))
    assert again.machine_id == machine.machine_id
    assert len(cluster.machines()) == 1


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_node_on_which_an_earlier_attempt_has_its_turn_is_asked_again(attempt: int, cluster: HypervWorld) -> None:
    connector = cluster.connector()
    home = made(cluster, connector, clone(cluster)).host
    order = dataclasses.replace(clone(cluster), attempt=attempt)
    # First "is it here?" of a second attempt, then "is its template here?": neither was answered.
    turns = {(server.host.id, order.key) for server in cluster.servers if attempt == 1 or server.host.id != home}
    cluster.estate.turns |= turns
    outcome = submit(connector, [order])[order.key]
    assert (outcome.stage, outcome.step) == (Stage.RUNNING, "Waiting for an earlier attempt")
    cluster.estate.turns -= turns
    done = finish(cluster, connector, order, outcome)
    assert isinstance(done.result, MachineMade)
    assert (done.result.host, len(cluster.machines())) == (home, 2)


def test_a_machine_that_has_moved_is_found_again(cluster: HypervWorld) -> None:
    connector = cluster.connector()
    machine = made(cluster, connector, on(cluster, "HV1"))
    move(cluster, machine.machine_id, "HV3")
    do(cluster, connector, SetPower(key=new_key(), machine=ref(cluster, machine), action=PowerAction.ON))
    assert cluster.machine(machine.machine_id).power == "on"


def test_a_recycled_machine_stays_on_its_node(cluster: HypervWorld) -> None:
    connector = cluster.connector()
    for host in ("HV1", "HV2", "HV3"):
        machine = made(cluster, connector, on(cluster, host))
        order = RecycleMachine(
            key=new_key(), machine=ref(cluster, machine), name=machine.name, template=cluster.template, power_on=False
        )
        fresh = made(cluster, cluster.connector(), order)
        assert where(cluster, fresh) == host
        assert machine.machine_id not in cluster.machines()
        again = made(cluster, cluster.connector(), dataclasses.replace(order, attempt=2))
        assert again.machine_id == fresh.machine_id


def test_a_template_that_no_node_has_is_not_found(cluster: HypervWorld) -> None:
    order = on(cluster, "HV2", template=new_key())
    error = refuse(cluster, cluster.connector(), order)
    assert isinstance(error, NotFound)
    assert "template" in error.message


def test_a_machine_is_not_gone_while_a_node_is_away(cluster: HypervWorld) -> None:
    connector = cluster.connector()
    machine = ref(cluster, made(cluster, connector, on(cluster, "HV2")))
    cluster.servers[1].cut_off()
    for asker in (connector, cluster.connector()):
        for order in (
            DeleteMachine(key=new_key(), machine=machine),
            SetPower(key=new_key(), machine=machine, action=PowerAction.ON),
            DeleteMachine(key=new_key(), machine=MachineRef("", Stamp(OURS, new_key()))),
        ):
            assert isinstance(refuse(cluster, asker, order), HostDown), type(order).__name__
    assert machine.id in cluster.machines()


def test_a_cluster_of_which_no_node_answers_is_lost_and_not_busy(cluster: HypervWorld) -> None:
    """An order that failed would be taken for an answer: down and up again with every one of them."""
    connector = cluster.connector()
    machine = ref(cluster, made(cluster, connector, on(cluster, "HV2")))
    for server in cluster.servers:
        server.cut_off()
    for asker in (connector, cluster.connector()):
        for order in (on(cluster, "HV1"), SetPower(key=new_key(), machine=machine, action=PowerAction.ON)):
            with pytest.raises(Unreachable):
                submit(asker, [order])


def test_a_node_that_is_away_keeps_nobody_else_waiting(cluster: HypervWorld) -> None:
    connector = cluster.connector()
    listing(connector)
    cluster.servers[1].think_s = 30
    slow, quick = on(cluster, "HV2"), on(cluster, cluster.machine(cluster.template).host)
    if quick.host == "HV2":
        quick = dataclasses.replace(quick, host="HV3")
    outcomes = submit(connector, [slow, quick])
    assert outcomes[slow.key].stage is Stage.RUNNING
    assert finish(cluster, connector, quick, outcomes[quick.key]).stage is Stage.DONE


def test_one_powershell_a_host_and_round(cluster: HypervWorld) -> None:
    connector = cluster.connector()
    listing(connector)
    home = cluster.machine(cluster.template).host
    machines = [made(cluster, connector, on(cluster, host)) for host in ("HV1", "HV2", "HV3") for _ in range(4)]
    before = cluster.starts
    orders = [SetPower(key=new_key(), machine=ref(cluster, it), action=PowerAction.ON) for it in machines]
    submit(connector, orders)
    assert cluster.starts <= before + 3
    assert home in {"HV1", "HV2", "HV3"}


def test_a_copy_goes_on_without_its_templates_node(cluster: HypervWorld) -> None:
    home = cluster.machine(cluster.template).host
    other = "HV2" if home != "HV2" else "HV3"
    cluster.world.clock.speed = 0
    order = on(cluster, other, linked=False)
    outcome = submit(cluster.connector(), [order])[order.key]
    assert outcome.step == "Copying the disks"
    cluster.servers[["HV1", "HV2", "HV3"].index(home)].cut_off()
    cluster.world.clock.speed = 60
    assert finish(cluster, cluster.connector(), order, outcome).stage is Stage.DONE


def test_clones_beside_their_template_ask_the_other_nodes_once_in_a_while(cluster: HypervWorld) -> None:
    connector = cluster.connector()
    made(cluster, connector, on(cluster, "HV1"))
    made(cluster, connector, on(cluster, "HV2"))
    made(cluster, connector, on(cluster, "HV3"))
    before = cluster.starts
    orders = [on(cluster, host) for host in ("HV1", "HV2", "HV3") for _ in range(5)]
    submit(connector, orders)
    assert cluster.starts <= before + 3
