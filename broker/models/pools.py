"""Pools and their members: what shall exist, where it may be built."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import F, Q, Value

from broker.domain.resources import ResourceClass, Share
from broker.models.hypervisors import Hypervisor
from broker.models.networks import LogicalNetwork
from broker.models.templates import TemplateCopy


class Pool(models.Model):
    class Kind(models.TextChoices):
        FLOATING = "floating", "Floating"
        """A desktop is anybody's; after release it is recycled."""
        DEDICATED = "dedicated", "Dedicated"
        """A desktop stays its user's until released."""

    class Preparation(models.TextChoices):
        AGENT = "agent", "Wait until the guest's agent answers"
        NONE = "none", "Ready as soon as the machine stands"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True)
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.FLOATING)
    network = models.ForeignKey(LogicalNetwork, models.PROTECT, null=True, blank=True, related_name="pools")
    """None: as the templates have them."""
    naming = models.CharField(max_length=60)
    """Pattern with one run of `#` for the number, such as `office-###`."""
    minimum = models.PositiveIntegerField(default=0)
    spare = models.PositiveIntegerField(default=1)
    """Desktops kept ready beyond those in use."""
    maximum = models.PositiveIntegerField(default=10)
    maximum_per_host = models.PositiveIntegerField(null=True, blank=True)
    """At most so many of its desktops on one host; None: no such limit."""
    vcpus = models.PositiveIntegerField(null=True, blank=True)
    memory_mib = models.PositiveIntegerField(null=True, blank=True)
    is_linked = models.BooleanField(default=True)
    preparation = models.CharField(max_length=10, choices=Preparation, default=Preparation.AGENT)
    prepare_timeout_s = models.PositiveIntegerField(default=900)
    gives_seed = models.BooleanField(default=True)
    """Whether each machine is handed a cloud-init seed with its name."""
    starts_powered_off = models.BooleanField(default=True)
    """Whether a ready desktop that is switched off may be given out, with a start order."""
    resource_class = models.CharField(
        max_length=10,
        choices=[(c.value, c.value.capitalize()) for c in ResourceClass],
        default=ResourceClass.NORMAL,
        db_default=ResourceClass.NORMAL.value,
    )
    """Decides the five numbers that follow, unless they are its own."""
    priority = models.PositiveSmallIntegerField(default=50)
    """Smaller goes first in every queue."""
    weight = models.PositiveSmallIntegerField(default=100, db_default=100)
    """What its machines weigh against others on a host that is short of CPU or memory: 100 is normal."""
    cpu_reservation_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    """Of each machine's own vCPUs, kept free for it."""
    cpu_limit_percent = models.PositiveSmallIntegerField(default=100, db_default=100)
    memory_reservation_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    is_enabled = models.BooleanField(default=True)
    """Off: nothing new is built and nothing is given out; what is in use stays."""
    closed_words = models.CharField(max_length=300, blank=True, default="", db_default="")
    """What users are told while it is off: why, and until when."""
    delete_budget_per_hour = models.PositiveIntegerField(default=30)
    hold_reason = models.TextField(blank=True)
    """Why the reconciler stopped and asks (delete budget spent); empty if it did not."""
    resumed_at = models.DateTimeField(null=True)
    """When an administrator last let it go on: deletions before that are not held against its budget."""
    last_number = models.PositiveIntegerField(default=0)
    next_reconcile_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(minimum__lte=F("maximum")), name="pool_minimum_within_maximum"),
            models.CheckConstraint(
                condition=Q(
                    weight__range=(1, 10_000),
                    cpu_limit_percent__range=(1, 100),
                    cpu_reservation_percent__lte=F("cpu_limit_percent"),
                    memory_reservation_percent__lte=100,
                ),
                name="pool_share_in_range",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def share(self) -> Share:
        """What its machines shall have of their hosts."""
        return Share(self.weight, self.cpu_reservation_percent, self.cpu_limit_percent, self.memory_reservation_percent)


class PoolMember(models.Model):
    """Where a pool may build: a hypervisor with a copy of the template."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pool = models.ForeignKey(Pool, models.CASCADE, related_name="members")
    hypervisor = models.ForeignKey(Hypervisor, models.PROTECT, related_name="members")
    copy = models.ForeignKey(TemplateCopy, models.PROTECT, related_name="members")
    weight = models.PositiveIntegerField(default=100)
    minimum = models.PositiveIntegerField(default=0, db_default=0)
    """Desktops of the pool that shall always stand here, beyond what the pool wants in all."""
    maximum = models.PositiveIntegerField(null=True, blank=True)
    storage = models.CharField(max_length=200, blank=True, default="", db_default="")
    """Platform id of the storage that clones go to; empty: where the copy lies."""
    hosts = models.JSONField(default=list, db_default=Value([], models.JSONField()))
    """Platform ids of the hosts that may be built on; empty: all."""
    networks = models.JSONField(default=list)
    """Platform ids of networks, one a NIC; empty: the pool's network, or as the template has them."""
    is_enabled = models.BooleanField(default=True)
    hold_until = models.DateTimeField(null=True)
    """After failed builds: nothing is built here before this."""
    hold_reason = models.TextField(blank=True)
    failures = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-weight"]
        constraints = [
            models.UniqueConstraint(fields=["pool", "hypervisor"], name="member_once"),
            models.CheckConstraint(
                condition=Q(maximum=None) | Q(minimum__lte=F("maximum")), name="member_minimum_within_maximum"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pool} on {self.hypervisor}"
