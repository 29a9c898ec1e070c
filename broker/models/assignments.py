"""Whose desktop is whose, and who has a seat on which session host. The quota, "already has one" and "no seat twice"
are constraints, not code."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q, Value

from broker.domain.leases import Lease
from broker.models.desktops import Desktop
from broker.models.pools import Pool


class Assignment(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pool = models.ForeignKey(Pool, models.PROTECT, related_name="assignments", db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="assignments")
    slot = models.PositiveSmallIntegerField(default=0)
    desktop = models.ForeignKey(Desktop, models.PROTECT, related_name="assignments")
    seat = models.PositiveSmallIntegerField(default=0, db_default=0)
    """Which of a session host's seats, from 1; 0: the desktop is this user's alone."""
    since = models.DateTimeField()
    until = models.DateTimeField(null=True)
    """None while open."""
    lease_until = models.DateTimeField(null=True)
    """When the lease ends; None: until it is released. Whoever changes it does so by compare-and-swap."""
    renewals = models.PositiveSmallIntegerField(default=0, db_default=0)
    """How often the lease was renewed."""
    told_at = models.DateTimeField(null=True)
    """When its user was told that this lease ends."""
    end_told_at = models.DateTimeField(null=True)
    """When its user was told that it has ended."""
    next_lease_at = models.DateTimeField(null=True)
    """When the clock has something to do about the lease; who moves it from its old value does it."""
    guest_user = models.CharField(max_length=200, blank=True, default="", db_default="")
    """The account in the guest whose password is this assignment's own; empty: none."""
    guest_secret = models.BinaryField(default=bytes, db_default=Value(b"", models.BinaryField()))
    """That password, sealed: drawn before the guest gets it, forgotten with the assignment's end."""
    guest_machine = models.CharField(max_length=200, blank=True, default="", db_default="")
    """Id of the machine whose guest has it; empty or another one: the guest is still to get it."""

    class Meta:
        ordering = ["-since"]
        constraints = [
            models.UniqueConstraint(fields=["desktop", "seat"], condition=Q(until=None), name="assignment_one_a_seat"),
            models.UniqueConstraint(
                fields=["pool", "user", "slot"], condition=Q(until=None), name="assignment_one_a_slot"
            ),
        ]
        indexes = [
            models.Index(fields=["user"], condition=Q(until=None), name="assignment_open_by_user"),
            models.Index(
                fields=["next_lease_at"],
                condition=Q(until=None, next_lease_at__isnull=False),
                name="assignment_lease_due",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.desktop} to {self.user}"

    @property
    def lease(self) -> Lease | None:
        """None: it lasts until it is released."""
        if self.lease_until is None:
            return None
        return Lease(self.since, self.lease_until, self.renewals, self.told_at, self.end_told_at)
