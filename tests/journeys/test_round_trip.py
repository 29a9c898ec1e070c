"""Once around all makers and home: a Debian server leaves a real KVM host, stands on each of the lab's platforms in
turn, and comes back to the host. Its disk is the same, byte for byte, at every station; at home it boots from it, and
its agent reads what it wrote before it left.

Each step goes through the vault as an administrator would have it: a policy, its recovery point, a machine made of it.
A real mover carries the bytes: over SSH, by each maker's wire, and from a Samba share for HyperCore's exports.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

from lab import platform as lab
from lab.platform import Platform
from tests.journeys.scripts import Script
from tests.support import lab_estate
from tests.support.guests import run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost
from tests.support.samba import private_samba
from tests.support.scratch import scratch_directory
from tests.support.server_guest import BOOT_LIMIT_S, start_server
from tests.support.stack import Stack, wait_until

SPEED = 5.0
"""Virtual seconds a second. An import into vSphere ends when nobody has spoken of it for 300 virtual seconds, and the
broker speaks of it every 30 real ones."""
LISTED_S = 180
"""Five platforms are registered at once."""
CARRIED_S = 600
"""One way of the disk, out of a platform or into one, on a busy machine."""
PIECE = 8 << 20
LETTER = "/var/lib/letter"
LETTER_MIB = 4

pytestmark = pytest.mark.timeout(3600)


@dataclass
class Trip:
    """Where the server can stand, all registered, and a vault between."""

    dana: Script
    host: KvmHost
    platforms: dict[str, Platform]
    hypervisors: dict[str, str]
    """Kind -> id of the hypervisor."""
    vault: str

    def copies(self, kind: str, platform_id: str) -> str:
        """The first recovery point of the machine there, by a policy of its own."""
        path = f"/hypervisors/{self.hypervisors[kind]}/machines?limit=500"
        listed = self.dana.wait_for(path, lambda found: bool(row_of(found, platform_id)), LISTED_S)
        choice = {"kind": "machine", "machine_id": row_of(listed, platform_id)}
        # Paused, so that the clock does not begin the run before it is asked for.
        policy = self.dana.post(
            "/replication/policies",
            {
                "name": f"From {kind}", "vault_id": self.vault, "interval_s": 86_400, "rpo_s": 172_800,
                "choices": [choice], "is_enabled": False,
            },
        )["id"]  # fmt: skip
        (run,) = self.dana.post(f"/replication/policies/{policy}/run", status=202)["items"]
        point: str = self.ended(run["id"])["recovery_point"]
        return point

    def brings_up(self, point: str, kind: str, name: str) -> str:
        """A machine made of the point there, on the first storage and network; its id on the platform."""
        there = f"/hypervisors/{self.hypervisors[kind]}"
        wish = {
            "hypervisor_id": self.hypervisors[kind],
            "storage_id": self.dana.items(f"{there}/storages")[0]["id"],
            "network_ids": [self.dana.items(f"{there}/networks")[0]["id"]],
            "name": name,
        }
        run = self.dana.post(f"/replication/recovery-points/{point}/materialise", wish, status=202)
        landed: str = self.ended(run["id"])["platform_id"]
        return landed

    def ended(self, run: str) -> Any:
        found = self.dana.wait_for(f"/replication/runs/{run}", lambda seen: bool(seen["finished_at"]), CARRIED_S)
        assert found["state"] == "done", f"{found['kind']} of {found['subject']}: {found['error']}"
        return found


def row_of(listed: Any, platform_id: str) -> str:
    return next((one["id"] for one in listed["items"] if one["platform_id"] == platform_id), "")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The disks of four platforms and the vault lie here: too much to be left behind."""
    with scratch_directory("trip") as made:
        yield made


@pytest.fixture(scope="module")
def platforms(folder: Path) -> Iterator[dict[str, Platform]]:
    with lab_estate.platforms(folder, speed=SPEED) as stood:
        yield stood


@pytest.fixture(scope="module")
def trip(installation: Stack, hosts: list[KvmHost], platforms: dict[str, Platform], folder: Path) -> Iterator[Trip]:
    dana, host = Script(installation, "dana"), hosts[0]
    installation.start("mover")
    with private_samba() as samba:
        settings: dict[str, dict[str, str]] = {"kvm": by_ssh(host)}
        for kind, platform in platforms.items():
            settings[kind] = {**platform.registration.settings, **platform.registration.secrets}
        share = {"share": samba.address, "share_user": samba.user, "share_password": samba.password}
        settings["hypercore"] |= share
        hypervisors = {
            kind: dana.post("/hypervisors", {"name": f"The {kind}", "kind": kind, "settings": entered})["id"]
            for kind, entered in settings.items()
        }
        for hypervisor in hypervisors.values():
            dana.wait_for(f"/hypervisors/{hypervisor}", lambda found: found["complete_at"] is not None, LISTED_S)
        (folder / "vault").mkdir()
        wish = {"name": "Cellar", "kind": "folder", "location": {"path": str(folder / "vault")}}
        vault = dana.post("/replication/vaults", wish)["id"]
        yield Trip(dana, host, platforms, hypervisors, vault)


def by_ssh(host: KvmHost) -> dict[str, str]:
    host.start_ssh()
    return {
        "transport": "ssh",
        "address": host.address,
        "user": "root",
        "ssh_key": host.ssh_key.read_text(),
        "known_hosts": host.known_hosts.read_text(),
    }


def test_a_server_comes_home_from_all_makers_as_it_left(trip: Trip, server_image: Path, tmp_path: Path) -> None:
    conn = trip.host.connect()
    try:
        source = start_server(trip.host, conn, server_image, "server")
        wait_for_agent(source, limit_s=BOOT_LIMIT_S)
        letter = writes_a_letter(source)
        goes_down(source)
        left = image_of(trip.host, source)
        digest = digest_of_image(left, tmp_path)

        where, machine = "kvm", source.UUIDString()
        for kind in lab.KINDS:
            machine = trip.brings_up(trip.copies(where, machine), kind, f"server-on-{kind}")
            assert digest_on(trip.platforms[kind], f"server-on-{kind}") == digest, f"another disk on {kind}"
            where = kind
        home = conn.lookupByUUIDString(trip.brings_up(trip.copies(where, machine), "kvm", "server-at-home"))

        qemu_img("compare", left, image_of(trip.host, home))
        home.create()
        wait_for_agent(home, limit_s=BOOT_LIMIT_S)
        assert digest_in_guest(home) == letter
    finally:
        conn.close()


def writes_a_letter(guest: Any) -> str:
    """Of random bytes; its SHA-256, as the guest has it."""
    script = f"dd if=/dev/urandom of={LETTER} bs=1M count={LETTER_MIB} && sync"
    run_in_guest(guest, "/bin/sh", "-c", script)
    return digest_in_guest(guest)


def digest_in_guest(guest: Any) -> str:
    return run_in_guest(guest, "/usr/bin/sha256sum", LETTER).split()[0]


def goes_down(guest: Any) -> None:
    """By its own will, so that nothing it knows is missing on its disk."""
    guest.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
    wait_until(lambda: not guest.isActive(), BOOT_LIMIT_S, "the server is down")


def image_of(host: KvmHost, machine: Any) -> Path:
    """Its only disk, as seen from outside the host."""
    root = etree.fromstring(machine.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    (source,) = root.iterfind("devices/disk/source")
    return host.images / Path(source.get("file", "")).name


def digest_of_image(image: Path, folder: Path) -> str:
    """SHA-256 of what a guest reads from the disk from beginning to end."""
    raw = folder / "disk.raw"
    qemu_img("convert", "-O", "raw", image, raw)
    with raw.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    raw.unlink()
    return digest


def digest_on(platform: Platform, name: str) -> str:
    """The same of the only disk of the lab's machine of that name."""
    with platform.world as world:
        (machine,) = [one for one in world.machines.values() if one.name == name]
        (disk,) = machine.disks
        capacity = world.disks[disk].capacity
    digest = hashlib.sha256()
    for offset in range(0, capacity, PIECE):
        digest.update(platform.world.read(disk, offset, min(PIECE, capacity - offset)))
    return digest.hexdigest()


def qemu_img(*arguments: str | Path) -> None:
    done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
