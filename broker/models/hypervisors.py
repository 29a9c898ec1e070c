"""Registered hypervisors and what inventory last saw of them."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from broker.domain.budgets import Slowdown


class Hypervisor(models.Model):
    """A registered endpoint."""

    class Status(models.TextChoices):
        NEW = "new", "Not reached yet"
        UP = "up", "Up"
        DOWN = "down", "Down"
        REFUSED = "refused", "Sign-in refused"
        """Credentials or certificate rejected: nothing is sent until an administrator changes something."""
        DOUBT = "doubt", "In doubt"
        """Too many machines vanished at once: nothing is built, deleted or counted as gone until confirmed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=40)
    settings = models.JSONField(default=dict)
    """The connector's settings that are not secret."""
    secrets = models.BinaryField(default=bytes, editable=False)
    """The secret ones, encrypted; see `broker/hypervisors/sealing.py`."""
    status = models.CharField(max_length=10, choices=Status, default=Status.NEW)
    status_reason = models.TextField(blank=True)
    """In words: what failed, on what, what to do."""
    status_since = models.DateTimeField(null=True)
    product = models.CharField(max_length=200, blank=True)
    takes = models.JSONField(default=list)
    """Names of the orders that work here with this account."""
    warnings = models.JSONField(default=list)
    is_draining = models.BooleanField(default=False)
    build_budget = models.PositiveIntegerField(default=8)
    """Builds, recycles and deletes in flight at once."""
    power_budget = models.PositiveIntegerField(default=20)
    """All other changing operations in flight at once."""
    halvings = models.PositiveSmallIntegerField(default=0, db_default=0)
    """How often both budgets were halved since it said that it is busy, as it was at `halved_at`; see
    `broker/domain/budgets.py`."""
    halved_at = models.DateTimeField(null=True)
    memory_ratio = models.FloatField(default=1.0)
    """How much memory may be promised for each MiB a host has."""
    vcpu_ratio = models.FloatField(default=8.0)
    pump_epoch = models.BigIntegerField(default=0)
    """Raised whenever a pump takes over; every write of a pump says `WHERE pump_epoch = mine`."""
    pump_expires_at = models.DateTimeField(null=True)
    retry_at = models.DateTimeField(null=True)
    """While down: not asked again before this."""
    failures = models.PositiveIntegerField(default=0)
    """Lost connections in a row: the exponent of the back-off."""
    inventory_epoch = models.BigIntegerField(default=0)
    inventory_expires_at = models.DateTimeField(null=True)
    next_inventory_at = models.DateTimeField(null=True)
    complete_at = models.DateTimeField(null=True)
    """When the last complete listing began."""
    doubt = models.JSONField(default=list)
    """Ids of the machines whose absence is not believed."""
    absence_confirmed_at = models.DateTimeField(null=True)
    """An administrator's word that what a listing began before this did not show is really gone."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def slowdown(self) -> Slowdown:
        return Slowdown(self.halvings, self.halved_at)

    @property
    def is_usable(self) -> bool:
        """Whether orders may be sent at all (a hypervisor that is down is still asked, at `retry_at`)."""
        return self.status not in {self.Status.REFUSED, self.Status.DOUBT}


class Lease(models.Model):
    """Who may do one thing at a time, beside the pump's and the inventory's own leases (on the hypervisor's row)."""

    name = models.CharField(primary_key=True, max_length=100)
    epoch = models.BigIntegerField(default=0)
    expires_at = models.DateTimeField()


class Host(models.Model):
    """A physical host as inventory saw it, and what has been promised on it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="hosts")
    platform_id = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    vcpus = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    is_up = models.BooleanField(default=True)
    is_draining = models.BooleanField(default=False)
    used_vcpus = models.PositiveIntegerField(default=0)
    used_memory_mib = models.PositiveIntegerField(default=0)
    """What listed machines hold (running ones, and all of ours)."""
    reserved_vcpus = models.IntegerField(default=0)
    reserved_memory_mib = models.IntegerField(default=0)
    """Promised to planned desktops that no listing has shown yet."""
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["hypervisor", "platform_id"], name="host_once"),
            models.CheckConstraint(
                condition=Q(reserved_memory_mib__gte=0, reserved_vcpus__gte=0), name="host_reserved_positive"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Storage(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="storages")
    platform_id = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    capacity_mib = models.BigIntegerField()
    free_mib = models.BigIntegerField()
    is_up = models.BooleanField(default=True)
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["hypervisor", "platform_id"], name="storage_once")]

    def __str__(self) -> str:
        return self.name


class MachineTag(models.Model):
    """A word that administrators put on a machine, of whatever maker's platform, to speak of several at once."""

    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="tags", db_index=False)
    platform_id = models.CharField(max_length=200)
    """Of the machine: it need not be listed just now."""
    tag = models.CharField(max_length=50)

    class Meta:
        ordering = ["tag", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["hypervisor", "platform_id", "tag"], name="machine_tag_once"),
        ]
        indexes = [models.Index(fields=["tag"], name="machines_by_tag")]

    def __str__(self) -> str:
        return self.tag


class Network(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="networks")
    platform_id = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=60, blank=True)
    is_isolated = models.BooleanField(default=False, db_default=False)
    """The platform itself keeps it apart."""
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["hypervisor", "platform_id"], name="network_once")]

    def __str__(self) -> str:
        return self.name


class Machine(models.Model):
    """The platform's machine as inventory last saw it: ours, another installation's, or nobody's."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="machines")
    platform_id = models.CharField(max_length=200)
    name = models.CharField(max_length=300)
    power = models.CharField(max_length=12)
    vcpus = models.PositiveIntegerField(default=0)
    memory_mib = models.PositiveIntegerField(default=0)
    host = models.ForeignKey(Host, models.SET_NULL, null=True, related_name="machines")
    stamp_installation = models.CharField(max_length=64, blank=True)
    stamp_key = models.CharField(max_length=64, blank=True)
    agent = models.CharField(max_length=12, blank=True)
    addresses = models.JSONField(default=list)
    cannot = models.JSONField(default=dict)
    is_template = models.BooleanField(default=False)
    """Listed as something that can be cloned from."""
    template_disk_mib = models.PositiveIntegerField(default=0)
    template_storage = models.CharField(max_length=200, blank=True)
    template_cannot = models.TextField(blank=True)
    seen_at = models.DateTimeField()
    """When the reading that showed it began."""
    absences = models.PositiveSmallIntegerField(default=0)
    """Complete listings in a row that did not show it."""
    is_forgotten = models.BooleanField(default=False)
    """An administrator said on the drift page: leave it alone and do not mention it again."""

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["hypervisor", "platform_id"], name="machine_once")]
        indexes = [models.Index(fields=["hypervisor", "absences"], name="machine_absent", condition=~Q(absences=0))]

    def __str__(self) -> str:
        return self.name
