"""Desktops: the broker's own object. *Machine* always means the platform's."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import F, Q

from broker.domain.lifecycle import State
from broker.models.hypervisors import Host, Hypervisor
from broker.models.pools import Pool, PoolMember
from broker.models.templates import TemplateCopy


class Desktop(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63)
    # Without indexes of their own: every move of a desktop writes them all, and live ones are found by those below.
    pool = models.ForeignKey(Pool, models.PROTECT, related_name="desktops", db_index=False)
    member = models.ForeignKey(PoolMember, models.SET_NULL, null=True, related_name="desktops", db_index=False)
    hypervisor = models.ForeignKey(Hypervisor, models.PROTECT, related_name="desktops", db_index=False)
    copy = models.ForeignKey(TemplateCopy, models.PROTECT, related_name="desktops", db_index=False)
    """The copy whose disk it hangs from."""
    state = models.CharField(max_length=10, choices=[(s.value, s.value) for s in State], default=State.PLANNED)
    state_since = models.DateTimeField()
    epoch = models.PositiveIntegerField(default=1)
    """Raised at every claim and release; operations, tickets and sessions carry it and die when it differs."""
    clean_epoch = models.PositiveIntegerField(default=0)
    """The epoch for which there is evidence of a fresh disk."""
    machine_id = models.CharField(max_length=200, blank=True)
    stamp_key = models.CharField(max_length=64, blank=True)
    """Key of the order that made the machine."""
    disks = models.JSONField(default=list)
    """Ids of its own disks: the evidence of the last build or recycle."""
    vcpus = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    applied_share = models.CharField(max_length=30, blank=True, default="", db_default="")
    """The share of its host that its machine was last given, as `resources.Share.stored`; empty: as it was built."""
    power = models.CharField(max_length=12, default="unknown")
    is_answering = models.BooleanField(default=False)
    """The guest itself answered at the last look."""
    addresses = models.JSONField(default=list)
    observed_at = models.DateTimeField(null=True)
    """When the reading began that the observed fields come from."""
    learned_at = models.DateTimeField(null=True)
    """When an operation last learned something newer than any reading; older readings do not overwrite it."""
    target_host = models.ForeignKey(Host, models.SET_NULL, null=True, related_name="planned_desktops", db_index=False)
    reserved_memory_mib = models.PositiveIntegerField(default=0)
    reserved_vcpus = models.PositiveIntegerField(default=0)
    """What is still reserved for it on `target_host`; 0 once a listing has shown the machine."""
    why = models.JSONField(default=list)
    """Placement, candidate by candidate: [{"target", "chosen", "reasons": [words]}]."""
    is_in_maintenance = models.BooleanField(default=False)
    is_moving = models.BooleanField(default=False, db_default=False)
    """A failover is at work on it: nobody switches its power, opens its screen or gives it back meanwhile."""
    is_resting = models.BooleanField(default=False, db_default=False)
    """A schedule shut it down and nothing has switched it on since: while it is off, that is no fault, and whoever asks
    gets it with a start order."""
    is_emptying = models.BooleanField(default=False, db_default=False)
    """A session host that is not needed: nobody new gets a seat on it, and those who have one stay until they leave."""
    rdp_epoch = models.PositiveIntegerField(default=0, db_default=0)
    """The epoch for which the guest's RDP server has answered, where the pool waits for that."""
    rdp_asked_at = models.DateTimeField(null=True)
    """When it was last asked."""
    failure = models.TextField(blank=True)
    """Why it failed, in words."""
    attempts = models.PositiveSmallIntegerField(default=0)
    """Failed tries at the order its state needs."""
    created_at = models.DateTimeField(auto_now_add=True)
    ready_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(state=State.READY) | Q(clean_epoch=F("epoch")), name="desktop_ready_is_clean"
            ),
            models.UniqueConstraint(fields=["name"], condition=~Q(state=State.GONE), name="desktop_name_once"),
            models.UniqueConstraint(
                fields=["hypervisor", "machine_id"],
                condition=~Q(state=State.GONE) & ~Q(machine_id=""),
                name="desktop_machine_once",
            ),
        ]
        indexes = [
            models.Index(
                fields=["pool", "-is_answering", "ready_at", "id"],
                condition=Q(state=State.READY, is_in_maintenance=False),
                name="desktop_claimable",
            ),
            models.Index(fields=["pool", "state"], condition=~Q(state=State.GONE), name="desktop_live_by_pool"),
            models.Index(fields=["hypervisor", "state"], condition=~Q(state=State.GONE), name="desktop_live_by_hv"),
            models.Index(fields=["-created_at", "-id"], name="desktop_newest"),
            models.Index(fields=["target_host"], condition=Q(reserved_memory_mib__gt=0), name="desktop_reserving"),
        ]

    def __str__(self) -> str:
        return self.name
