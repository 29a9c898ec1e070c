"""A desktop that can be moved: a dedicated pool over two instant hypervisors, and a vault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from broker.domain.failover import Step
from broker.domain.lifecycle import State
from broker.models import Desktop, Failover, ReplicationPolicy, ReplicationRun
from broker.services import failover_steps, failovers, moving, replication_policies, replication_runs, vaults
from broker.services.failovers import Target
from broker.services.replication_policies import ChoiceWish
from tests.broker.plant import Plant
from tests.doubles.instant import disks
from tests.doubles.instant.world import World

HERE, THERE = "instant-1", "instant-2"


class House:
    """A dedicated pool over two hypervisors; Alice has a desktop, with a file of hers on it."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self.plant = plant
        for name in (HERE, THERE):
            plant.add_hypervisor(name)
        self.pool = plant.add_pool(kind="dedicated")
        plant.fill()
        plant.ask(plant.alice)
        self.desktop = Desktop.objects.get(state=State.ASSIGNED)
        self.here = self.desktop.hypervisor.name
        self.there = THERE if self.here == HERE else HERE
        disks.write(self.world(self.here), self.desktop.machine_id, 12_345, b"a letter of Alice's")
        folder.mkdir()
        self.vault = vaults.create_vault(actor=plant.dana, name="Cellar", kind="folder", location={"path": str(folder)})

    def world(self, name: str) -> World:
        return self.plant.worlds[name]

    @property
    def target(self) -> Target:
        there = self.plant.hypervisor(self.there)
        return Target(hypervisor_id=there.pk, storage_id=there.storages.get().pk)

    def replicate(self) -> ReplicationPolicy:
        policy = replication_policies.create_policy(
            actor=self.plant.dana,
            name="Hourly",
            vault_id=self.vault.pk,
            interval_s=3600,
            rpo_s=7200,
            choices=[ChoiceWish(kind="desktop", desktop_id=self.desktop.pk)],
        )
        replication_runs.run_now(actor=self.plant.dana, policy_id=policy.pk)
        while moving.work():
            pass
        return policy

    def move(self) -> Failover:
        return failovers.begin_move(
            actor=self.plant.dana, desktop_id=self.desktop.pk, vault_id=self.vault.pk, target=self.target
        )

    def emergency(self, *, even_if_up: bool = False) -> Failover:
        return failovers.begin_emergency(
            actor=self.plant.dana, desktop_id=self.desktop.pk, target=self.target, even_if_up=even_if_up
        )

    def until(self, failover: Failover, holds: Callable[[Failover], bool], what: str) -> Failover:
        """Everybody works until it holds."""
        for _ in range(30):
            for pk in failover_steps.running():
                failover_steps.advance(pk)
            failover.refresh_from_db()
            if holds(failover):
                return failover
            while moving.work():
                pass
            ReplicationRun.objects.filter(state="queued").update(not_before=None)
            self.plant.pauses_pass()
            for name in (HERE, THERE):
                self.plant.pump(name)
                self.plant.look(name)
        raise AssertionError(f"It never came to pass that {what}: {failover.step} {failover.report}")

    def end(self, failover: Failover) -> Failover:
        return self.until(failover, lambda row: row.state != "running", "it is over")

    def at(self, failover: Failover, step: Step) -> Failover:
        return self.until(failover, lambda row: row.step == step, f"it stands at {step}")

    def bytes_of(self, name: str, machine_id: str) -> bytes:
        return disks.read(self.world(name), machine_id)
