"""Pools and their members: what shall exist, where it may be built."""

from __future__ import annotations

import uuid
from datetime import datetime

from django.db import models
from django.db.models import F, Q, Value

from broker.domain.leases import Terms
from broker.domain.resources import ResourceClass, Share
from broker.domain.scaling import Holding, Peak, Target, holding
from broker.domain.seating import SEATS_LIMIT
from broker.domain.sessions import Timers
from broker.models.hypervisors import Hypervisor
from broker.models.networks import LogicalNetwork
from broker.models.templates import TemplateCopy


class Pool(models.Model):
    class Kind(models.TextChoices):
        FLOATING = "floating", "Floating"
        """A desktop is anybody's; after release it is recycled."""
        DEDICATED = "dedicated", "Dedicated"
        """A desktop stays its user's until released."""
        SHARED = "shared", "Shared"
        """A desktop is a session host: several users are on it at once, each with a seat."""

    class Preparation(models.TextChoices):
        AGENT = "agent", "Wait until the guest's agent answers"
        RDP = "rdp", "Wait until the guest's remote desktop (RDP) answers"
        """After its agent. The worker asks it, so workers must reach the guests as relays do."""
        NONE = "none", "Ready as soon as the machine stands"

    class Approval(models.TextChoices):
        NONE = "none", "Nobody: a request is served at once"
        OWNERS = "owners", "The pool's owners"

    class Asks(models.TextChoices):
        NO = "no", "Not asked"
        OPTIONAL = "optional", "May be given"
        REQUIRED = "required", "Must be given"

    class Protocol(models.TextChoices):
        VNC = "vnc", "Screen of the machine (VNC)"
        """What its hypervisor shows: from the first moment of a start, with whatever runs in the guest."""
        RDP = "rdp", "Remote desktop of the guest (RDP)"
        """What the guest's own RDP server shows, at the guest's address."""

    class GuestAccount(models.TextChoices):
        ASK = "ask", "Its user types it"
        """It stays in the browser's page and goes to the guest alone."""
        POOL = "pool", "The pool's own account"
        """Handed to the guest by the relay; no browser ever holds its password."""
        LOCAL = "local", "A local account of the guest"
        """Likewise, with a password for each assignment, where the platform can set it; elsewhere its user types it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True)
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.FLOATING)
    seats = models.PositiveSmallIntegerField(default=8, db_default=8)
    """Shared: how many users a session host takes at once."""
    freshens_when_empty = models.BooleanField(default=True, db_default=True)
    """Shared: whether a session host gets a fresh disk when the last of its users has left, before it takes anybody
    again."""
    network = models.ForeignKey(LogicalNetwork, models.PROTECT, null=True, blank=True, related_name="pools")
    """None: as the templates have them."""
    naming = models.CharField(max_length=60)
    """Pattern with one run of `#` for the number, such as `office-###`."""
    minimum = models.PositiveIntegerField(default=0)
    spare = models.PositiveIntegerField(default=1)
    """Desktops kept ready beyond those in use."""
    spare_percent = models.PositiveIntegerField(null=True, blank=True)
    """So many for a hundred in use, at least `spare`; None: `spare` alone."""
    peak_weekdays = models.CharField(max_length=7, blank=True, default="", db_default="")
    """Days of the peak hours, as a schedule has them; empty: there are none."""
    peak_begins = models.TimeField(null=True, blank=True)
    peak_ends = models.TimeField(null=True, blank=True)
    """Not after `peak_begins`: on the next day."""
    peak_zone = models.CharField(max_length=60, blank=True, default="", db_default="")
    """On whose clock."""
    peak_minimum = models.PositiveIntegerField(default=0, db_default=0)
    """In peak hours instead of `minimum`; likewise below."""
    peak_spare = models.PositiveIntegerField(default=1, db_default=1)
    peak_spare_percent = models.PositiveIntegerField(null=True, blank=True)
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
    approval = models.CharField(max_length=10, choices=Approval, default=Approval.NONE, db_default=Approval.NONE.value)
    """Who says yes to a request before it is served."""
    trusted_group = models.ForeignKey("auth.Group", models.SET_NULL, null=True, blank=True, related_name="+")
    """Requests of its members are approved at once."""
    asks_why = models.CharField(max_length=10, choices=Asks, default=Asks.NO, db_default=Asks.NO.value)
    """Whether a request must give a reason."""
    asks_how_long = models.BooleanField(default=False, db_default=False)
    """Whether a request may ask for less than the longest lease."""
    lease_h = models.PositiveIntegerField(null=True, blank=True)
    """For how long a desktop is handed out, at most; None: until it is released."""
    renewals = models.PositiveSmallIntegerField(default=0, db_default=0)
    """How often its user may renew a lease."""
    renewal_h = models.PositiveIntegerField(null=True, blank=True)
    """By how much; None: by a whole lease."""
    notice_h = models.PositiveIntegerField(default=24, db_default=24)
    """How long before the end its user is told."""
    grace_h = models.PositiveIntegerField(default=0, db_default=0)
    """How long after the end a desktop still waits for its user."""
    reclaims = models.BooleanField(default=False, db_default=False)
    """Whether a dedicated desktop is reclaimed when its lease and the grace are over; floating ones always are."""
    idle_min = models.PositiveIntegerField(null=True, blank=True)
    """Minutes without a key or the mouse until a session is disconnected; None: never."""
    disconnected_min = models.PositiveIntegerField(null=True, blank=True)
    """Minutes without a stream until a session is logged off; None: never."""
    longest_min = models.PositiveIntegerField(null=True, blank=True)
    """Minutes after which a session is logged off whatever is done in it; None: never."""
    protocol = models.CharField(max_length=10, choices=Protocol, default=Protocol.VNC, db_default=Protocol.VNC.value)
    """How its desktops are shown in the browser."""
    rdp_port = models.PositiveIntegerField(default=3389, db_default=3389)
    asks_32_bpp = models.BooleanField(default=True, db_default=True)
    """RDP: the relay asks the guest for 32 bits a pixel, whatever the browser asked for."""
    has_clipboard = models.BooleanField(default=True, db_default=True)
    """Off: the relay lets no clipboard through."""
    native_clients = models.BooleanField(default=False, db_default=False)
    """Whether its users may open its desktops in programs of their own, through the relay's doors for these. What
    they do with clipboard and drives is then told to the program and not enforced: the relay sees none of it."""
    guest_account = models.CharField(
        max_length=10, choices=GuestAccount, default=GuestAccount.ASK, db_default=GuestAccount.ASK.value
    )
    """RDP: as whom its guests let people in."""
    guest_user = models.CharField(max_length=200, blank=True, default="", db_default="")
    """Of the pool's account; `DOMAIN\\name` or `name@domain` for one of a domain."""
    guest_secret = models.BinaryField(default=bytes, db_default=Value(b"", models.BinaryField()))
    """Its password, encrypted."""
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
            models.CheckConstraint(
                condition=Q(asks_how_long=False) | Q(lease_h__isnull=False), name="pool_asks_within_a_lease"
            ),
            models.CheckConstraint(
                condition=Q(peak_weekdays="")
                | (Q(peak_begins__isnull=False, peak_ends__isnull=False) & ~Q(peak_zone="")),
                name="pool_peak_is_whole",
            ),
            models.CheckConstraint(condition=Q(lease_h=None) | Q(lease_h__gte=1), name="pool_lease_lasts"),
            models.CheckConstraint(condition=Q(seats__range=(1, SEATS_LIMIT)), name="pool_seats_in_range"),
            models.CheckConstraint(
                condition=(Q(idle_min=None) | Q(idle_min__gte=1))
                & (Q(disconnected_min=None) | Q(disconnected_min__gte=1))
                & (Q(longest_min=None) | Q(longest_min__gte=1)),
                name="pool_timers_run",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_dedicated(self) -> bool:
        """Whether a desktop stays its user's when nobody is logged on."""
        return self.kind == Pool.Kind.DEDICATED

    @property
    def is_shared(self) -> bool:
        """Whether several users are on a desktop at once."""
        return self.kind == Pool.Kind.SHARED

    @property
    def share(self) -> Share:
        """What its machines shall have of their hosts."""
        return Share(self.weight, self.cpu_reservation_percent, self.cpu_limit_percent, self.memory_reservation_percent)

    @property
    def peak(self) -> Peak | None:
        """None: it has no peak hours."""
        if not self.peak_weekdays or self.peak_begins is None or self.peak_ends is None:
            return None
        target = Target(self.peak_minimum, self.peak_spare, self.peak_spare_percent)
        return Peak(self.peak_begins, self.peak_ends, self.peak_weekdays, self.peak_zone, target)

    def holding(self, now: datetime) -> Holding:
        """How many it keeps now, and until when."""
        return holding(Target(self.minimum, self.spare, self.spare_percent), self.peak, now)

    @property
    def terms(self) -> Terms:
        """How long its desktops are handed out, and what happens then."""
        return Terms(
            lease_h=self.lease_h,
            renewals=self.renewals,
            renewal_h=self.renewal_h,
            notice_h=self.notice_h,
            grace_h=self.grace_h,
            reclaims=self.reclaims or not self.is_dedicated,
        )

    @property
    def timers(self) -> Timers:
        """What ends sessions on its desktops."""
        return Timers(self.idle_min, self.disconnected_min, self.longest_min)


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
