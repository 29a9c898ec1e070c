"""A broker that replicates machines of instant hypervisors into a vault, step by step in the test's own process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from django.utils import timezone

from broker.models import Machine, RecoveryPoint, ReplicationPolicy, ReplicationRun, ReplicationSource
from broker.services import moving, replication_policies, replication_runs, vaults
from broker.services.replication_policies import ChoiceWish
from disks.vault.points import RecoveryPoint as Stored
from disks.vault.vault import Vault as Opened
from tests.broker.plant import Plant
from tests.doubles.instant import disks
from tests.doubles.instant.world import World


class Replicas:
    """Two machines beside the pool, a vault in a folder, a policy for the first of them."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self.plant, self.folder = plant, folder
        folder.mkdir()
        plant.add_hypervisor()
        self.machines = [self.world.add_foreign_machine(name) for name in ("alpha", "beta")]
        for number, machine in enumerate(self.machines, 1):
            disks.write(self.world, machine, 0, bytes([number]) * 200_000)
        plant.look()
        self.vault = vaults.create_vault(actor=plant.dana, name="Cellar", kind="folder", location={"path": str(folder)})

    @property
    def world(self) -> World:
        return self.plant.worlds["instant-1"]

    def row(self, number: int = 0) -> Machine:
        return Machine.objects.get(platform_id=self.machines[number])

    def policy(self, *numbers: int, **fields: Any) -> ReplicationPolicy:
        values: dict[str, Any] = {"name": "Nightly", "vault_id": self.vault.pk, "interval_s": 3600, "rpo_s": 7200}
        wishes = [ChoiceWish(kind="machine", machine_id=self.row(number).pk) for number in numbers or (0,)]
        return replication_policies.create_policy(actor=self.plant.dana, choices=wishes, **(values | fields))

    def source(self, number: int = 0) -> ReplicationSource:
        return ReplicationSource.objects.get(platform_id=self.machines[number])

    def run(self, policy: ReplicationPolicy) -> ReplicationRun:
        """One run of its only source, to its end."""
        run = replication_runs.run_now(actor=self.plant.dana, policy_id=policy.pk)[0]
        self.work()
        run.refresh_from_db()
        return run

    def work(self) -> None:
        """A mover takes all that waits."""
        while moving.work():
            pass

    def pauses_pass(self) -> None:
        ReplicationRun.objects.filter(state="queued").update(not_before=None)

    def write(self, offset: int, data: bytes, number: int = 0) -> None:
        disks.write(self.world, self.machines[number], offset, data)

    def now(self, number: int = 0) -> bytes:
        return disks.read(self.world, self.machines[number])

    def on_platform(self, number: int = 0) -> list[str]:
        return disks.points(self.world, self.machines[number])

    def opened(self) -> Opened:
        return vaults.open_vault(self.vault)

    def stored(self, point: RecoveryPoint) -> bytes:
        """The bytes of its only disk, out of the vault."""
        with vaults.opened(self.vault) as vault:
            there: Stored = vault.point(str(point.pk))
            source = vault.open_disk(there, disks.ONLY)
            return source.read(0, source.size)

    def expire(self, run: ReplicationRun) -> None:
        """Its mover has died, and its lease has run out."""
        ReplicationRun.objects.filter(pk=run.pk).update(mover_expires_at=timezone.now() - timedelta(seconds=1))
