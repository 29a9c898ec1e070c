"""The lab's platforms registered with a stack, as an administrator would, but by services; and a pool over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.models import Desktop, Hypervisor, Machine, Operation, Pool
from broker.models.operations import UNFINISHED
from broker.services import hypervisors, pools, templates
from lab import platform as lab
from lab.clock import Clock
from lab.esxi.platform import stand_up_host
from lab.nouns import Machine as Simulated
from lab.platform import Platform
from lab.screens import GuestScreens
from tests.support import kvm_estate
from tests.support.stack import wait_until

REACHED_S = 90
ESXI_HOST = "esxi-host"
FIVE = (*lab.KINDS, ESXI_HOST)
"""One platform of each maker, and an ESXi host that stands alone: without CloneVM machines come about otherwise."""


@contextmanager
def platforms(
    folder: Path, *, names: Sequence[str] = lab.KINDS, speed: float = 10.0, seed: int = 1, size: int = 1
) -> Iterator[dict[str, Platform]]:
    """Platforms by name, running in this process, each `size` times as large as in the demo.

    Virtual time passes `speed` times as fast as ours.
    """
    clock = Clock(speed)
    with GuestScreens([]) as screens:
        stood = {}
        for place, name in enumerate(names):
            (folder / name).mkdir(exist_ok=True)
            site = lab.Site(name, folder / name, clock, seed, f"127.{64 + place}.0.0/16", screens.port)
            stood[name] = stand_up_host(site) if name == ESXI_HOST else lab.stand_up(site)
            _enlarge(stood[name], size)
        screens.worlds = [platform.world for platform in stood.values()]
        try:
            for platform in stood.values():
                platform.start()
            yield stood
        finally:
            for platform in stood.values():
                platform.stop()


def _enlarge(platform: Platform, times: int) -> None:
    with platform.world as world:
        for host in world.hosts.values():
            host.vcpus, host.memory_mib = host.vcpus * times, host.memory_mib * times
        for storage in world.storages.values():
            storage.capacity_mib *= times


def register(stood: Mapping[str, Platform], tell: Callable[[], str], **fields: Any) -> dict[str, Hypervisor]:
    """Name -> hypervisor, up and listed."""
    made = {
        name: hypervisors.register_hypervisor(
            actor=kvm_estate.administrator(),
            name=platform.registration.name,
            kind=platform.registration.kind,
            values={**platform.registration.settings, **platform.registration.secrets},
        )
        for name, platform in stood.items()
    }
    if fields:
        Hypervisor.objects.filter(pk__in=[one.pk for one in made.values()]).update(**fields)
    golden = [platform.registration.template for platform in stood.values()]
    templates_ = Machine.objects.filter(platform_id__in=golden, hypervisor__in=made.values())
    wait_until(
        lambda: templates_.values("hypervisor").distinct().count() == len(made), REACHED_S, "all are listed", tell
    )
    return made


def pool_over(stood: Mapping[str, Platform], made: Mapping[str, Hypervisor], **fields: Any) -> Pool:
    """A pool with a member on each."""
    actor = kvm_estate.administrator()
    template = templates.create_template(actor=actor, name="Everywhere")
    version = templates.add_version(actor=actor, template_id=template.pk)
    members = []
    for name, hypervisor in made.items():
        golden = Machine.objects.get(hypervisor=hypervisor, platform_id=stood[name].registration.template)
        copy = templates.link_copy(actor=actor, version_id=version.pk, machine_id=golden.pk)
        members.append(pools.MemberWish(copy_id=copy.pk))
    return pools.create_pool(
        actor=actor, members=members, **{"name": "All makers", "naming": "maker-####", "is_linked": True, **fields}
    )


def simulated(platform: Platform) -> list[Simulated]:
    """The machines that were made by orders: all that came after the golden image."""
    with platform.world as world:
        golden = world.machines[platform.registration.template]
        return [machine for machine in world.machines.values() if machine.number > golden.number]


def assert_nothing_lost_or_doubled(stood: Mapping[str, Platform], made: Mapping[str, Hypervisor]) -> None:
    """Machines = desktops on every platform; nobody shares; nothing is in flight; every failure has its reason."""
    for kind, hypervisor in made.items():
        live = Desktop.objects.filter(hypervisor=hypervisor).exclude(state="gone")
        thought = Counter(live.exclude(machine_id="").values_list("name", flat=True))
        standing = Counter(machine.name for machine in simulated(stood[kind]))
        assert thought == standing, f"{kind}: only thought {thought - standing}, only standing {standing - thought}"
        assert not live.filter(machine_id="", state__in=["ready", "assigned"]).exists()
    held = Desktop.objects.filter(assignments__until=None, assignments__isnull=False)
    assert held.count() == held.distinct().count()
    assert not Operation.objects.filter(state__in=UNFINISHED).exists()
    assert not Operation.objects.filter(state="failed", error="").exists()
