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
from lab.nouns import Machine as Simulated
from lab.platform import Platform
from lab.screens import GuestScreens
from tests.support import kvm_estate
from tests.support.stack import wait_until

REACHED_S = 90


@contextmanager
def platforms(
    folder: Path, *, kinds: Sequence[str] = lab.KINDS, speed: float = 10.0, seed: int = 1
) -> Iterator[dict[str, Platform]]:
    """One of each maker, running in this process; virtual time passes `speed` times as fast as ours."""
    clock = Clock(speed)
    with GuestScreens([]) as screens:
        sites = [lab.site(kind, folder, clock, seed=seed, screens_port=screens.port) for kind in kinds]
        stood = {site.name: lab.stand_up(site) for site in sites}
        screens.worlds = [platform.world for platform in stood.values()]
        try:
            for platform in stood.values():
                platform.start()
            yield stood
        finally:
            for platform in stood.values():
                platform.stop()


def register(stood: Mapping[str, Platform], tell: Callable[[], str], **fields: Any) -> dict[str, Hypervisor]:
    """Kind -> hypervisor, up and listed."""
    made = {
        kind: hypervisors.register_hypervisor(
            actor=kvm_estate.administrator(),
            name=platform.registration.name,
            kind=kind,
            values={**platform.registration.settings, **platform.registration.secrets},
        )
        for kind, platform in stood.items()
    }
    if fields:
        Hypervisor.objects.filter(pk__in=[one.pk for one in made.values()]).update(**fields)
    templates_ = Machine.objects.filter(is_template=True, hypervisor__in=made.values())
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
    for kind, hypervisor in made.items():
        golden = Machine.objects.get(hypervisor=hypervisor, platform_id=stood[kind].registration.template)
        copy = templates.link_copy(actor=actor, version_id=version.pk, machine_id=golden.pk)
        members.append(pools.MemberWish(copy_id=copy.pk))
    return pools.create_pool(
        actor=actor, members=members, **{"name": "All makers", "naming": "maker-####", "is_linked": True, **fields}
    )


def simulated(platform: Platform) -> list[Simulated]:
    """The machines that were made by orders."""
    with platform.world as world:
        return [machine for machine in world.machines.values() if not machine.is_template and not machine.folder]


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
