"""One pool over hypervisors of five makers: a real KVM host, and the lab's platforms, which speak their makers' wires.

The pool fills everywhere, users get desktops of different makers and see their screens; one platform is cut off in the
middle of builds and comes back; on another the account loses its right to see two hundred machines. Nothing is lost,
doubled, rebuilt or deleted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import platform as lab
from lab.clock import Clock
from lab.nouns import Machine
from lab.platform import Platform
from lab.screens import GuestScreens
from tests.journeys import scripts
from tests.journeys.browsers import PASSWORD, Album, Person
from tests.journeys.pictures import wait_until_same
from tests.journeys.scripts import Script
from tests.support import kvm_estate
from tests.support.guests import screenshot
from tests.support.kvm_hosts import KvmHost
from tests.support.stack import Stack, wait_until

DESKTOPS = 50
ARCHIVED = 200
SPEED = 10.0
"""Virtual seconds a second."""
NOTICED_S = 90
FILLED_S = 420

pytestmark = pytest.mark.timeout(1200)


@dataclass
class House:
    """All platforms, registered, and a pool over them."""

    installation: Stack
    dana: Script
    host: KvmHost
    platforms: dict[str, Platform]
    hypervisors: dict[str, str]
    """Kind -> id of the hypervisor."""
    pool: str

    def by_kind(self, **filters: str) -> dict[str, list[Any]]:
        """Kind -> the pool's desktops."""
        kinds = {hypervisor: kind for kind, hypervisor in self.hypervisors.items()}
        wanted = "&".join(f"{name}={value}" for name, value in {"pool": self.pool, **filters}.items())
        found: dict[str, list[Any]] = {kind: [] for kind in self.hypervisors}
        for desktop in self.dana.items(f"/desktops?{wanted}"):
            found[kinds[desktop["hypervisor"]]].append(desktop)
        return found

    def counts(self, **filters: str) -> dict[str, int]:
        return {kind: len(desktops) for kind, desktops in self.by_kind(**filters).items()}

    def names(self, kind: str) -> list[str]:
        """Of the machines that stand at the platform, but for templates and what was there before."""
        if kind == "kvm":
            conn = self.host.connect()
            try:
                return sorted(one.name() for one in conn.listAllDomains() if one.name() != self.host.template_name)
            finally:
                conn.close()
        with self.platforms[kind].world as world:
            return sorted(machine.name for machine in made(world.machines.values()))

    def wait_until_ready(self, count: int) -> None:
        pool = f"/pools/{self.pool}"
        self.dana.wait_for(pool, lambda found: found["desktops"].get("ready", 0) == count, FILLED_S)

    def ready_away_from(self, kind: str) -> int:
        return sum(count for other, count in self.counts(state="ready").items() if other != kind)

    def names_of(self, state: str) -> list[str]:
        return sorted(one["name"] for desktops in self.by_kind(state=state).values() for one in desktops)

    def settle(self) -> None:
        """Nothing is on its way, and no machine is superfluous."""

        def is_settled() -> bool:
            pool = self.dana.get(f"/pools/{self.pool}")
            busy = {"planned", "building", "preparing", "recycling", "retiring"} & pool["desktops"].keys()
            return not busy and pool["desktops"].get("ready", 0) == pool["spare"]

        wait_until(is_settled, FILLED_S, "the pool is settled", self.installation.log_tail, pause_s=1)

    def assert_nothing_lost_or_doubled(self) -> None:
        for kind, desktops in self.by_kind().items():
            assert sorted(desktop["name"] for desktop in desktops) == self.names(kind), kind


def made(machines: Any) -> Iterator[Machine]:
    return (machine for machine in machines if not machine.is_template and machine.folder != "archive")


@pytest.fixture(scope="module")
def platforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Platform]]:
    folder, clock = tmp_path_factory.mktemp("lab"), Clock(SPEED)
    with GuestScreens([]) as screens:
        stood = {kind: lab.stand_up(lab.site(kind, folder, clock, screens_port=screens.port)) for kind in lab.KINDS}
        screens.worlds = [platform.world for platform in stood.values()]
        with stood["esxi"].world as world:
            golden = next(machine for machine in world.machines.values() if machine.is_template)
            for number in range(ARCHIVED):
                world.clone(golden.id, name=f"archive-{number:03}", folder="archive", memory_mib=512)
        for platform in stood.values():
            platform.start()
        yield stood
        for platform in stood.values():
            platform.stop()


@pytest.fixture(scope="module")
def house(installation: Stack, hosts: list[KvmHost], platforms: dict[str, Platform]) -> House:
    dana = Script(installation, "dana")
    host = hosts[0]
    wishes: dict[str, dict[str, Any]] = {
        "kvm": {"name": host.name, "kind": "kvm", "settings": kvm_estate.tls_settings(host)}
    }
    for kind, platform in platforms.items():
        one = platform.registration
        wishes[kind] = {"name": one.name, "kind": kind, "settings": {**one.settings, **one.secrets}}
    hypervisors = {kind: dana.post("/hypervisors", wish)["id"] for kind, wish in wishes.items()}
    names = [f"user{number}" for number in range(DESKTOPS)]
    installation.manage("shell", "-c", scripts.MAKE_PEOPLE.format(group=scripts.GROUP, names=names, password=PASSWORD))
    template = dana.post("/templates", {"name": "Everywhere", "os": "Linux"})["id"]
    version = dana.post("/versions", {"template": template})["id"]
    images = {kind: platform.registration.template for kind, platform in platforms.items()}
    copies = [
        scripts.link_copy(dana, version, hypervisor, image=images.get(kind, ""), is_probed=kind == "kvm")
        for kind, hypervisor in hypervisors.items()
    ]
    members = [{"copy_id": copy} for copy in copies]
    wish = {"name": "All makers", "naming": "maker-###", "members": members, "spare": DESKTOPS, "maximum": 120}
    pool = dana.post("/pools", wish)["id"]
    dana.post("/entitlements", {"pool": pool, "group": scripts.GROUP})
    return House(installation, dana, host, platforms, hypervisors, pool)


def test_one_pool_over_five_makers(house: House, enter: Callable[[str], Person], album: Album) -> None:
    house.wait_until_ready(DESKTOPS)
    shares = house.counts()
    assert sum(shares.values()) == DESKTOPS
    assert all(share >= 2 for share in shares.values()), shares
    house.assert_nothing_lost_or_doubled()
    reads_why_each_stands_where_it_stands(house, enter, album)
    users_see_desktops_of_every_maker(house, enter, album)
    a_platform_is_cut_off_in_mid_build_and_comes_back(house)
    rights_are_taken_away_and_nothing_happens(house, enter, album)


def reads_why_each_stands_where_it_stands(house: House, enter: Callable[[str], Person], album: Album) -> None:
    dana = enter("dana")
    dana.sign_in("/console/")
    for kind, desktops in house.by_kind().items():
        dana.go(f"/console/desktops/{desktops[0]['id']}/")
        dana.sees("Why here?")
        dana.sees("weight 100")
        album.take(dana.page, f"why on {kind}")
    dana.go(f"/console/pools/{house.pool}/")
    album.take(dana.page, "the pool", "wide", "phone", "dark")


def users_see_desktops_of_every_maker(house: House, enter: Callable[[str], Person], album: Album) -> None:
    """People ask until somebody has a desktop of each maker; those open theirs and are heard."""
    for kind, (name, desktop) in give_desktops(house).items():
        person = enter(name)
        person.sign_in("/")
        person.go(f"/desktops/{desktop['id']}/open/")
        person.waits_for_the_screen()
        if kind == "kvm":
            shows_what_libvirt_sees(house, person, desktop["machine_id"])
        else:
            is_heard(house, kind, person, desktop["name"])
        album.take(person.page, f"screen on {kind}", whole=False)


def shows_what_libvirt_sees(house: House, person: Person, machine: str) -> None:
    conn = house.host.connect()
    try:
        domain = conn.lookupByUUIDString(machine)
        wait_until_same(person.canvas, lambda: screenshot(domain))
    finally:
        conn.close()


def is_heard(house: House, kind: str, person: Person, desktop: str) -> None:
    nonce = secrets.token_hex(4)
    person.page.locator("#viewer-screen canvas").click()
    person.presses(nonce)
    wait_until(lambda: nonce in typed(house, kind, desktop), 60, f"{desktop} heard {person.name}")


def typed(house: House, kind: str, name: str) -> str:
    with house.platforms[kind].world as world:
        return next(machine.guest.typed for machine in world.machines.values() if machine.name == name)


GIVE = """
import json
from django.contrib.auth.models import User
from broker.services import brokering
found = {{}}
for user in User.objects.filter(username__startswith="user").order_by("pk"):
    request, _ = brokering.request_desktop(user=user, pool_id={pool!r})
    if request.desktop is not None:
        found.setdefault(request.desktop.hypervisor.kind, [user.username, str(request.desktop.pk)])
    if len(found) == {makers}:
        break
print(json.dumps(found))
"""


def give_desktops(house: House) -> dict[str, tuple[str, Any]]:
    """Kind -> a user who has got a desktop there, and the desktop, once its guest answers."""
    printed = house.installation.manage("shell", "-c", GIVE.format(pool=house.pool, makers=len(house.hypervisors)))
    found = json.loads(printed.splitlines()[-1])
    assert found.keys() == house.hypervisors.keys(), "no maker is left out"
    return {
        kind: (name, house.dana.wait_for(f"/desktops/{desktop}", lambda it: bool(it["is_answering"])))
        for kind, (name, desktop) in found.items()
    }


def a_platform_is_cut_off_in_mid_build_and_comes_back(house: House) -> None:
    house.wait_until_ready(DESKTOPS)
    lost = house.platforms["nutanix"]
    before, ready = house.names_of("assigned"), house.ready_away_from("nutanix")
    house.dana.ask("PATCH", f"/pools/{house.pool}", {"spare": DESKTOPS + 10, "maximum": 160})
    building = "/operations?kind=clone&state=running"
    house.dana.wait_for(building, lambda found: found["total"] > 0, NOTICED_S)
    lost.cut_off()
    hypervisor = f"/hypervisors/{house.hypervisors['nutanix']}"
    house.dana.wait_for(hypervisor, lambda found: found["status"] == "down", NOTICED_S)
    wait_until(lambda: house.ready_away_from("nutanix") >= ready + 5, FILLED_S, "the others build on", pause_s=1)
    lost.start()
    house.dana.wait_for(hypervisor, lambda found: found["status"] == "up", NOTICED_S)
    house.settle()
    assert house.names_of("assigned") == before, "nobody lost a desktop"
    house.assert_nothing_lost_or_doubled()


def rights_are_taken_away_and_nothing_happens(house: House, enter: Callable[[str], Person], album: Album) -> None:
    platform, hypervisor = house.platforms["esxi"], house.hypervisors["esxi"]
    machines = f"/hypervisors/{hypervisor}/machines"
    house.dana.wait_for(machines, lambda found: found["total"] >= ARCHIVED + len(house.names("esxi")), NOTICED_S)
    standing, ready = house.names("esxi"), house.ready_away_from("esxi")
    with platform.world as world:
        world.hide(*{machine.folder for machine in world.machines.values()})
    seen = house.dana.wait_for(f"/hypervisors/{hypervisor}", lambda found: found["status"] == "doubt", NOTICED_S)
    assert str(len(standing)) in seen["status_reason"]
    house.dana.ask("PATCH", f"/pools/{house.pool}", {"spare": DESKTOPS + 14})
    wait_until(lambda: house.ready_away_from("esxi") >= ready + 4, FILLED_S, "the others build on", pause_s=1)
    assert house.names("esxi") == standing, "nothing is built or deleted where there is doubt"
    assert house.dana.get(machines)["total"] >= ARCHIVED + len(standing), "nor is anything taken for gone"
    dana = enter("dana")
    dana.sign_in(f"/console/hypervisors/{hypervisor}/")
    dana.sees("In doubt")
    album.take(dana.page, "in doubt", "wide", "phone")
    with platform.world as world:
        world.hide()
    house.dana.wait_for(f"/hypervisors/{hypervisor}", lambda found: found["status"] == "up", NOTICED_S)
    house.settle()
    house.assert_nothing_lost_or_doubled()
