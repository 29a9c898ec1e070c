"""From a vault to a desktop on another maker's platform: a real KVM host, and Prism Central in the lab.

The administrator makes a vault and a policy for two desktops and one of their disks, sees runs and the promise kept,
has a recovery point tested, and moves a desktop to AHV; its user opens it there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from lab import platform as lab
from lab.clock import Clock
from lab.platform import Platform
from lab.screens import GuestScreens
from tests.journeys import scripts
from tests.journeys.browsers import PASSWORD, Album, Person
from tests.journeys.scripts import Script
from tests.support.guests import run_in_guest
from tests.support.kvm_hosts import KvmHost
from tests.support.stack import Stack

SPEED = 10.0
"""Virtual seconds a second."""
RUN_S = 180
MOVED_S = 420
LETTER = "a letter of hers"

pytestmark = pytest.mark.timeout(1500)


@dataclass
class House:
    installation: Stack
    dana: Script
    host: KvmHost
    prism: Platform
    kvm: str
    ahv: str
    """Ids of the hypervisors."""
    pool: str

    def desktop_of(self, user: str) -> Any:
        (found,) = [one for one in self.dana.items(f"/desktops?pool={self.pool}") if one["user"] == user]
        return found


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("lab")
    with GuestScreens([]) as screens:
        stood = lab.stand_up(lab.site("nutanix", folder, Clock(SPEED), screens_port=screens.port))
        screens.worlds = [stood.world]
        stood.start()
        yield stood
        stood.stop()


@pytest.fixture(scope="module")
def house(installation: Stack, hosts: list[KvmHost], prism: Platform) -> House:
    """Alice and Bob have a desktop each, on KVM; their pool may build on AHV too."""
    dana, host = Script(installation, "dana"), hosts[0]
    installation.start("mover")
    host.start_ssh()
    by_ssh = {
        "transport": "ssh", "address": host.address, "user": "root", "ssh_key": host.ssh_key.read_text(),
        "known_hosts": host.known_hosts.read_text(), "screen_listen": "0.0.0.0",  # noqa: S104 - in its own namespace
    }  # fmt: skip
    kvm = dana.post("/hypervisors", {"name": host.name, "kind": "kvm", "settings": by_ssh})["id"]
    one = prism.registration
    wish = {"name": one.name, "kind": one.kind, "settings": {**one.settings, **one.secrets}}
    ahv = dana.post("/hypervisors", wish)["id"]
    people = scripts.MAKE_PEOPLE.format(group=scripts.GROUP, names=["alice", "bob"], password=PASSWORD)
    installation.manage("shell", "-c", people)
    template = dana.post("/templates", {"name": "Tiny Linux", "os": "Linux"})["id"]
    version = dana.post("/versions", {"template": template})["id"]
    here = scripts.link_copy(dana, version, kvm)
    there = scripts.link_copy(dana, version, ahv, image=one.template, is_probed=False)
    pool = dana.post(
        "/pools",
        {
            "name": "Office", "naming": "office-###", "kind": "dedicated", "members": [{"copy_id": here}],
            "spare": 0, "maximum": 4,
        },
    )["id"]  # fmt: skip
    dana.post("/entitlements", {"pool": pool, "group": scripts.GROUP})
    for user in ("alice", "bob"):
        Script(installation, user).gets_a_desktop(pool)
    dana.post(f"/pools/{pool}/members", {"copy_id": there})
    return House(installation, dana, host, prism, kvm, ahv, pool)


def test_desktops_are_replicated_tested_and_moved_to_another_maker(
    house: House, enter: Callable[[str], Person], album: Album, tmp_path: Path
) -> None:
    dana = enter("dana")
    dana.sign_in("/console/")
    alices = house.desktop_of("alice")
    in_guest(house, alices, "/bin/sh", "-c", f"echo '{LETTER}' > /mnt/letter && sync")
    makes_a_vault(dana, album, tmp_path)
    makes_a_policy(dana, album, house)
    sees_the_promise_kept(dana, album)
    has_a_point_tested(dana, album, house, alices)
    moves_a_desktop(dana, album, house, alices)
    opens_it_there(house, enter, album, alices)


def in_guest(house: House, desktop: Any, *command: str) -> str:
    conn = house.host.connect()
    try:
        return run_in_guest(conn.lookupByUUIDString(desktop["machine_id"]), *command)
    finally:
        conn.close()


def makes_a_vault(dana: Person, album: Album, folder: Path) -> None:
    place = folder / "vault"
    place.mkdir()
    dana.visit("Replication")
    album.take(dana.page, "nothing replicated yet", "wide", "phone")
    dana.page.get_by_role("link", name="Vaults", exact=True).click()
    dana.link("Add a vault").first.click()
    dana.field("Name").fill("Cellar")
    dana.field("Folder").fill(str(place))
    dana.button("Make a key").click()
    dana.sees("Keep this key")
    album.take(dana.page, "a vaults key", "wide", "phone", "dark")
    dana.field("I have kept the key in a safe place").check()
    dana.button("Add it").click()
    dana.sees("Cellar")
    album.take(dana.page, "vaults", "wide", "phone")


def makes_a_policy(dana: Person, album: Album, house: House) -> None:
    dana.visit("Replication")
    dana.page.locator(".page__head").get_by_role("link", name="Create a policy").click()
    dana.field("Name").fill("Office, hourly")
    album.take(dana.page, "a policy", "wide", "phone")
    dana.button("Go on to the machines").click()
    dana.page.get_by_role("navigation", name="What kind").get_by_role("link", name="Desktop").click()
    for user in ("alice", "bob"):
        dana.page.locator("tr", has_text=house.desktop_of(user)["name"]).get_by_role("checkbox").check()
    dana.field("Only these disks").fill("vda")
    album.take(dana.page, "desktops are chosen", "wide", "phone")
    dana.button("Add them").click()
    dana.link(re.compile("^Done")).click()


def sees_the_promise_kept(dana: Person, album: Album) -> None:
    """The first runs begin at once; the page moves by itself."""
    dana.mark()
    kept = dana.page.locator(".chip", has_text="RPO kept")
    expect(kept).to_have_count(3, timeout=RUN_S * 1000)  # the policy's, and one of each desktop
    assert dana.was_not_loaded_again()
    dana.sees("only vda")
    album.take(dana.page, "the promise is kept", "wide", "phone", "dark")
    dana.visit("Replication")
    dana.page.get_by_role("link", name="Runs", exact=True).click()
    expect(dana.page.locator("tbody tr")).to_have_count(2)
    album.take(dana.page, "runs", "wide", "phone")


def has_a_point_tested(dana: Person, album: Album, house: House, desktop: Any) -> None:
    dana.visit("Replication")
    dana.link("Recovery points").click()
    dana.page.locator("tr", has_text=desktop["name"]).get_by_role("link").first.click()
    dana.link("Test it").click()
    # The tiny guest's kernel lies on its host: a machine of its disk alone would not start. A simulated guest does.
    dana.page.locator("select[name=hypervisor]").select_option(house.ahv)
    dana.button("Test it").click()
    expect(dana.page.get_by_text("The test's machine is gone.")).to_be_visible(timeout=MOVED_S * 1000)
    dana.sees("The guest answers")
    dana.sees("Digest of this report")
    album.take(dana.page, "a passed test", "wide", "phone", "dark")
    with house.prism.world as world:
        assert not [one.name for one in world.machines.values() if "-test-" in one.name]


def moves_a_desktop(dana: Person, album: Album, house: House, desktop: Any) -> None:
    dana.go(f"/console/desktops/{desktop['id']}/move/")
    album.take(dana.page, "a move is asked for", "wide", "phone")
    dana.button("Move it").click()
    expect(dana.page.get_by_text("Its user goes on there.")).to_be_visible(timeout=MOVED_S * 1000)
    album.take(dana.page, "a desktop has moved", "wide", "phone", "dark")
    moved = house.desktop_of("alice")
    assert (moved["id"], moved["hypervisor"]) == (desktop["id"], house.ahv)
    conn = house.host.connect()
    try:
        left = conn.lookupByUUIDString(desktop["machine_id"])
        assert not left.isActive(), "it stays where it was, off"
    finally:
        conn.close()
    with house.prism.world as world:
        (machine,) = [one for one in world.machines.values() if one.name == desktop["name"]]
        disk = machine.disks[0]
    content = house.prism.world.read(disk, 0, 64 << 20)
    assert LETTER.encode() in content, "with all that lay on it"


def opens_it_there(house: House, enter: Callable[[str], Person], album: Album, desktop: Any) -> None:
    alice = enter("alice")
    alice.sign_in("/")
    album.take(alice.page, "home after the move", "wide", "phone")
    alice.go(f"/desktops/{desktop['id']}/open/")
    alice.waits_for_the_screen()
    album.take(alice.page, "the screen on another maker", whole=False)
