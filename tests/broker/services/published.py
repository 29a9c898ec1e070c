"""A template whose second version lies on one of three instant hypervisors, and a pool over all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from django.utils import timezone

from broker.domain.publication import Step
from broker.models import Machine, PoolMember, Publication, ReplicationRun, TemplateCopy, TemplateVersion
from broker.services import moving, publication_steps, publications, templates, vaults
from broker.services.publications import Target
from tests.broker.plant import Plant
from tests.doubles.instant import disks
from tests.doubles.instant.world import World

HERE, THERE, ELSEWHERE = "instant-1", "instant-2", "instant-3"


class Press:
    """Version 1 lies everywhere and serves the pool; version 2 was built `HERE`."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self.plant = plant
        for name in (HERE, THERE, ELSEWHERE):
            plant.add_hypervisor(name)
        self.pool = plant.add_pool(spare=0)
        self.image = self.world(HERE).add_template("second")
        disks.write(self.world(HERE), self.image, 54_321, b"what is new in version 2")
        plant.look(HERE)
        self.version: TemplateVersion = templates.add_version(
            actor=plant.dana, template_id=plant.version.template_id, note="new"
        )
        machine = Machine.objects.get(platform_id=self.image)
        self.built = templates.link_copy(actor=plant.dana, version_id=self.version.pk, machine_id=machine.pk)
        folder.mkdir()
        self.vault = vaults.create_vault(actor=plant.dana, name="Cellar", kind="folder", location={"path": str(folder)})

    def world(self, name: str) -> World:
        return self.plant.worlds[name]

    def target(self, name: str) -> Target:
        there = self.plant.hypervisor(name)
        return Target(hypervisor_id=there.pk, storage_id=there.storages.get().pk)

    def publish(self, *names: str) -> list[Publication]:
        """To these; without names to all members that lack it. In the order of the hypervisors' names."""
        targets = [self.target(name) for name in names] or None
        made = publications.publish(
            actor=self.plant.dana, version_id=self.version.pk, vault_id=self.vault.pk, targets=targets
        )
        return sorted(made, key=lambda row: row.hypervisor.name)

    def turn(self) -> None:
        """Everybody works once."""
        for pk in publication_steps.running():
            publication_steps.advance(pk)
        while moving.work():
            pass
        ReplicationRun.objects.filter(state="queued").update(not_before=None)
        self.plant.pauses_pass()
        for name in (HERE, THERE, ELSEWHERE):
            self.plant.look(name)

    def until(self, row: Publication, holds: Callable[[Publication], bool], what: str) -> Publication:
        for _ in range(30):
            for pk in publication_steps.running():
                publication_steps.advance(pk)
            row.refresh_from_db()
            if holds(row):
                return row
            self.turn()
            row.refresh_from_db()
            if holds(row):
                return row
        raise AssertionError(f"It never came to pass that {what}: {row.step} {row.report}")

    def end(self, row: Publication) -> Publication:
        return self.until(row, lambda one: one.state != "running", "it is over")

    def at(self, row: Publication, step: Step) -> Publication:
        """It stands there, and what it waits for is ordered and not begun."""
        for _ in range(30):
            publication_steps.advance(row.pk)
            row.refresh_from_db()
            if row.step == step:
                return row
            moving.work()
        raise AssertionError(f"It never stood at {step}: {row.step} {row.report}")

    def copy_at(self, name: str) -> TemplateCopy | None:
        found: TemplateCopy | None = TemplateCopy.objects.filter(version=self.version, hypervisor__name=name).first()
        return found

    def member_at(self, name: str) -> PoolMember:
        member: PoolMember = PoolMember.objects.select_related("copy__version").get(hypervisor__name=name)
        return member

    def landed(self, name: str) -> list[str]:
        """Ids of templates that a landing made there."""
        rows = self.world(name).rows("SELECT id FROM template WHERE content = 'landed'")
        return [str(row[0]) for row in rows]

    def has_died(self) -> None:
        """Leases of movers that are at work have run out."""
        past = timezone.now() - timedelta(seconds=1)
        ReplicationRun.objects.filter(state="running").update(mover_expires_at=past)
