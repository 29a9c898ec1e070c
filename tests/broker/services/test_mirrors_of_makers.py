"""From each maker's wire to the promise: what a simulated platform replicates by itself is watched by a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from broker.models import Machine, ReplicationPolicy, ReplicationSource
from broker.services import hypervisors, inventory, replication_policies
from broker.services.replication_policies import ChoiceWish
from lab import mirrors
from lab.mirrors import Course
from lab.world import World
from tests.broker.plant import Plant
from tests.connectors.contract import clone, made
from tests.connectors.hypercore.worlds import cluster_world
from tests.connectors.hyperv.worlds import host_world
from tests.connectors.nutanix.worlds import prism_world

EVERY_S = 600.0


@contextmanager
def hyperv(folder: Path) -> Iterator[tuple[Any, World]]:
    with host_world(folder) as world:
        yield world, world.world


@contextmanager
def nutanix(folder: Path) -> Iterator[tuple[Any, World]]:
    with prism_world(folder) as world:
        yield world, world.lab


@contextmanager
def hypercore(folder: Path) -> Iterator[tuple[Any, World]]:
    with cluster_world(folder) as world:
        yield world, world.lab


def look(source: ReplicationSource) -> ReplicationSource:
    ReplicationSource.objects.update(mirrors_at=None)
    inventory.take(source.hypervisor_id)
    source.refresh_from_db()
    return source


@pytest.mark.parametrize("maker", [hyperv, nutanix, hypercore])
def test_a_promise_is_measured_by_what_the_platform_replicates(plant: Plant, tmp_path: Path, maker: Any) -> None:
    folder = tmp_path / "world"
    folder.mkdir()
    with maker(folder) as (world, lab):
        machine = made(world, world.connector(), clone(world)).machine_id
        lab.clock.advance(10)  # some list a new machine late
        lab.clock.speed = 0
        with lab:
            mirrors.begin(lab, machine, "elsewhere", every_s=EVERY_S, first_s=30.0)
        values = {name: str(value) for name, value in dataclasses.asdict(world.settings).items()}
        there = hypervisors.register_hypervisor(actor=plant.dana, name="north", kind=maker.__name__, values=values)
        inventory.take(there.pk)
        wish = ChoiceWish(kind="machine", machine_id=Machine.objects.get(platform_id=machine).pk)
        policy: ReplicationPolicy = replication_policies.create_policy(
            actor=plant.dana, name="Of the makers", engine="platform", rpo_s=3600, choices=[wish]
        )
        lab.clock.advance(EVERY_S + 100)

        source = look(policy.sources.get())
        newest = source.newest_at
        assert newest is not None
        assert timedelta(seconds=95) < timezone.now() - newest < timedelta(seconds=130)
        assert [(mirror["to"], mirror["state"]) for mirror in source.mirrors or ()] == [("elsewhere", "healthy")]
        assert source.fault == ""

        with lab:
            mirrors.turn(lab, machine, Course.BROKEN)
        lab.clock.advance(2 * 3600)
        source = look(source)
        assert source.newest_at == newest, "no answer takes back what has arrived"
        assert "elsewhere" in source.fault
