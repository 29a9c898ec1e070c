"""A template travels to another maker's platform, by API, in a real installation: web, worker, beat and mover.

It lies on a vCenter alone. Published to a Hyper-V host with a pool that is to build there too, it becomes a template of
that host's own, and the pool builds desktops of the same bytes on both.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from lab import platform as lab
from lab.clock import Clock
from lab.platform import Platform
from lab.screens import GuestScreens
from tests.journeys import scripts
from tests.journeys.browsers import PASSWORD
from tests.journeys.scripts import Script
from tests.support.redis import private_redis
from tests.support.scratch import scratch_directory
from tests.support.stack import Stack, database, stack

SPEED = 30.0
"""Virtual seconds a second."""
HERE, THERE = "esxi", "hyperv"
PUBLISHED_S = 120
BUILT_S = 120

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def installation(postgres_url: str) -> Iterator[Stack]:
    with (
        scratch_directory("published") as folder,
        private_redis() as server,
        database(postgres_url, f"journey_{uuid4().hex[:12]}") as url,
        stack(folder, url, server, extra={"DJANGO_SUPERUSER_PASSWORD": PASSWORD}) as made,
    ):
        made.manage("createsuperuser", "--noinput", "--username", "dana", "--email", "dana@example.org")
        made.start_all()
        made.start("mover")
        yield made


@pytest.fixture(scope="module")
def platforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Platform]]:
    folder, clock = tmp_path_factory.mktemp("lab"), Clock(SPEED)
    with GuestScreens([]) as screens:
        stood = {kind: lab.stand_up(lab.site(kind, folder, clock, screens_port=screens.port)) for kind in (HERE, THERE)}
        screens.worlds = [platform.world for platform in stood.values()]
        for platform in stood.values():
            platform.start()
        yield stood
        for platform in stood.values():
            platform.stop()


def write(platform: Platform) -> list[tuple[int, bytes]]:
    """What tells the golden image from any other: pieces at its beginning, in its midst and at its end."""
    dice = random.Random(7)
    with platform.world as world:
        golden = world.machines[platform.registration.template]
        # A vCenter clones what its template's snapshot holds, and the template holds the same.
        disks = [*golden.disks, *(disk for point in golden.snapshots.values() for disk in point.disks)]
        size = world.disks[disks[0]].capacity
        pieces = [(at, dice.randbytes(70_000)) for at in (0, size // 2 + 513, size - 70_000)]
        for disk in disks:
            for at, data in pieces:
                world.write(disk, at, data)
    return pieces


def holds(platform: Platform, machine_id: str, pieces: list[tuple[int, bytes]]) -> bool:
    with platform.world as world:
        (disk,) = world.machines[machine_id].disks
        return all(world.read(disk, at, len(data)) == data for at, data in pieces)


def test_a_pool_builds_on_two_makers_from_a_template_that_lay_on_one(
    installation: Stack, platforms: dict[str, Platform], tmp_path: Path
) -> None:
    dana = Script(installation, "dana")
    pieces = write(platforms[HERE])
    hypervisors = {}
    for kind, platform in platforms.items():
        one = platform.registration
        wish = {"name": one.name, "kind": one.kind, "settings": {**one.settings, **one.secrets}}
        hypervisors[kind] = dana.post("/hypervisors", wish)["id"]
    template = dana.post("/templates", {"name": "Everywhere", "os": "Linux"})["id"]
    version = dana.post("/versions", {"template": template})["id"]
    image = platforms[HERE].registration.template
    here = scripts.link_copy(dana, version, hypervisors[HERE], image=image, is_probed=False)
    pool = dana.post(
        "/pools",
        {
            "name": "Office", "naming": "office-###", "members": [{"copy_id": here, "maximum": 2}], "spare": 4,
            "maximum": 4, "preparation": "none",
        },
    )["id"]  # fmt: skip
    place = tmp_path / "vault"
    place.mkdir()
    location = {"path": str(place)}
    vault = dana.post("/replication/vaults", {"name": "Cellar", "kind": "folder", "location": location})["id"]
    dana.wait_for(f"/hypervisors/{hypervisors[THERE]}", lambda found: found["status"] == "up", scripts.REACHED_S)
    storages = dana.items(f"/hypervisors/{hypervisors[THERE]}/storages")
    storage = max(storages, key=lambda one: one["free_mib"])["id"]
    target = {"hypervisor_id": hypervisors[THERE], "storage_id": storage, "pool_id": pool}
    asked = dana.post(f"/templates/{template}/publish", {"vault_id": vault, "targets": [target]}, status=202)
    (made,) = asked["publications"]
    done = dana.wait_for(f"/publications/{made['id']}", lambda found: found["state"] != "running", PUBLISHED_S)
    assert (done["state"], done["error"]) == ("done", "")
    assert holds(platforms[THERE], done["machine_id"], pieces)

    dana.wait_for(f"/pools/{pool}", lambda found: found["desktops"].get("ready", 0) == 4, BUILT_S)
    kinds = {id: kind for kind, id in hypervisors.items()}
    desktops = dana.items(f"/desktops?pool={pool}&state=ready")
    assert sorted(kinds[one["hypervisor"]] for one in desktops) == [HERE, HERE, THERE, THERE]
    for one in desktops:
        assert holds(platforms[kinds[one["hypervisor"]]], one["machine_id"], pieces)
    assert dana.ask("POST", f"/templates/{template}/publish", {"vault_id": vault})[0] == 409, "nothing is missing"
