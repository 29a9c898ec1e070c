"""What is replicated where, how often, what became of it, and the recovery points there are."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from broker.models.desktops import Desktop
from broker.models.hypervisors import Hypervisor
from broker.models.pools import Pool
from broker.models.templates import Template


class Vault(models.Model):
    """Where recovery points are kept: a store of chunks that any installation may read with the key."""

    class Kind(models.TextChoices):
        FOLDER = "folder", "Folder or mounted share"
        S3 = "s3", "S3 bucket"

    class Status(models.TextChoices):
        NEW = "new", "Not opened yet"
        UP = "up", "Up"
        DOWN = "down", "Down"
        REFUSED = "refused", "Refused"
        """A wrong key, or no vault there: nothing is tried until an administrator changes something."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=10, choices=Kind)
    location = models.JSONField(default=dict)
    """Folder: `{"path"}`. S3: `{"bucket", "endpoint", "region", "prefix", "access_key"}`."""
    secrets = models.BinaryField(default=bytes, editable=False)
    """The vault's key and what signs in to S3, encrypted; see `broker/hypervisors/sealing.py`."""
    is_encrypted = models.BooleanField(default=False)
    status = models.CharField(max_length=10, choices=Status, default=Status.NEW)
    status_reason = models.TextField(blank=True)
    status_since = models.DateTimeField(null=True)
    next_collection_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ReplicationPolicy(models.Model):
    """A promise: these machines, into this vault, so often, kept so long, checked so.

    Where the platform itself replicates them, the policy only watches: it has no vault and no schedule, and what is
    kept and how it is checked is the platform's.
    """

    class Engine(models.TextChoices):
        VAULT = "vault", "Copied by Deskyard into a vault"
        PLATFORM = "platform", "Replicated by the platform itself"

    class Verification(models.TextChoices):
        DIGEST = "digest", "Digests, as it is written"
        READ_BACK = "read_back", "Read back after each run"
        BOOT = "boot", "Brought up and started"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    engine = models.CharField(max_length=10, choices=Engine, default=Engine.VAULT, db_default=Engine.VAULT)
    """Who copies; never changed."""
    vault = models.ForeignKey(Vault, models.PROTECT, null=True, related_name="policies")
    """None: the platform replicates."""
    interval_s = models.PositiveIntegerField(null=True)
    """From 60; None: by `cron`."""
    cron = models.CharField(max_length=100, blank=True)
    """Five fields, on the clock of `zone`."""
    zone = models.CharField(max_length=60, default="UTC")
    """IANA name, such as Europe/Berlin: of the cron expression, of retention's days, and of the window."""
    rpo_s = models.PositiveIntegerField()
    """The newest recovery point of each machine is promised to be no older."""
    keep_last = models.PositiveSmallIntegerField(default=3)
    keep_hourly = models.PositiveSmallIntegerField(default=0)
    keep_daily = models.PositiveSmallIntegerField(default=7)
    keep_weekly = models.PositiveSmallIntegerField(default=0)
    keep_monthly = models.PositiveSmallIntegerField(default=0)
    verification = models.CharField(max_length=10, choices=Verification, default=Verification.DIGEST)
    bytes_a_second = models.PositiveBigIntegerField(null=True)
    """At most so fast within the window; None: as fast as it goes."""
    target = models.ForeignKey(Hypervisor, models.SET_NULL, null=True, related_name="+")
    """Where its machines are brought up: to stand by, and to be tried."""
    target_storage = models.CharField(max_length=200, blank=True)
    """Platform id, on `target`."""
    keeps_standby = models.BooleanField(default=False, db_default=False)
    """A machine waits on the target for each source, powered off, as the newest point has it."""
    standby_every_s = models.PositiveIntegerField(default=86_400, db_default=86_400)
    """How often at most a standby is made anew, where it cannot be brought up to date by what changed."""
    window_from = models.TimeField(null=True)
    window_to = models.TimeField(null=True)
    """When the limit holds; None: always."""
    is_enabled = models.BooleanField(default=True)
    is_own = models.BooleanField(default=False, db_default=False)
    """The broker's, always paused, by which desktops move and templates travel through the vault that no policy of
    people's takes there. Shown to nobody, changed by nobody, gone with its vault."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        verbose_name = "replication policy"
        constraints = [
            models.CheckConstraint(
                condition=Q(engine="platform", interval_s=None, cron="")
                | Q(engine="vault", interval_s__gte=60, cron="")
                | (Q(engine="vault", interval_s=None) & ~Q(cron="")),
                name="policy_runs_by_interval_or_cron",
            ),
            models.CheckConstraint(
                condition=Q(engine="vault", vault__isnull=False) | Q(engine="platform", vault=None),
                name="policy_copies_into_a_vault",
            ),
            models.CheckConstraint(condition=Q(keep_last__gte=1), name="policy_keeps_one"),
            models.UniqueConstraint(fields=["vault"], condition=Q(is_own=True), name="policy_one_own_a_vault"),
        ]

    def __str__(self) -> str:
        return self.name


class ReplicationChoice(models.Model):
    """What an administrator has put into a policy: a machine, or what stands for machines that come and go."""

    class Kind(models.TextChoices):
        MACHINE = "machine", "Machine"
        DESKTOP = "desktop", "Desktop"
        TEMPLATE = "template", "Template"
        """The machines of its newest version."""
        POOL = "pool", "Pool"
        """All assigned desktops of a pool of dedicated ones."""
        TAG = "tag", "Tag"
        """All machines that bear it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    policy = models.ForeignKey(ReplicationPolicy, models.CASCADE, related_name="choices", db_index=False)
    kind = models.CharField(max_length=10, choices=Kind)
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, null=True, related_name="+")
    platform_id = models.CharField(max_length=200, blank=True)
    """With `hypervisor`: the machine."""
    desktop = models.ForeignKey(Desktop, models.CASCADE, null=True, related_name="+")
    template = models.ForeignKey(Template, models.CASCADE, null=True, related_name="+")
    pool = models.ForeignKey(Pool, models.CASCADE, null=True, related_name="+")
    tag = models.CharField(max_length=50, blank=True)
    disks = models.JSONField(default=list)
    """Names of the disks; empty: all that a machine has when it is read."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind="machine", hypervisor__isnull=False, desktop=None, template=None, pool=None)
                & ~Q(platform_id="")
                | Q(kind="desktop", desktop__isnull=False, hypervisor=None, template=None, pool=None)
                | Q(kind="template", template__isnull=False, hypervisor=None, desktop=None, pool=None)
                | Q(kind="pool", pool__isnull=False, hypervisor=None, desktop=None, template=None)
                | Q(kind="tag", hypervisor=None, desktop=None, template=None, pool=None) & ~Q(tag=""),
                name="choice_names_one_thing",
            ),
            models.UniqueConstraint(
                fields=["policy", "hypervisor", "platform_id"],
                condition=Q(kind="machine"),
                name="choice_machine_once",
            ),
            models.UniqueConstraint(
                fields=["policy", "desktop"], condition=Q(kind="desktop"), name="choice_desktop_once"
            ),
            models.UniqueConstraint(
                fields=["policy", "template"], condition=Q(kind="template"), name="choice_template_once"
            ),
            models.UniqueConstraint(fields=["policy", "pool"], condition=Q(kind="pool"), name="choice_pool_once"),
            models.UniqueConstraint(fields=["policy", "tag"], condition=Q(kind="tag"), name="choice_tag_once"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.desktop or self.template or self.pool or self.tag or self.platform_id}"


class ReplicationSource(models.Model):
    """A machine that a policy's choices come to, and which of its disks."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    policy = models.ForeignKey(ReplicationPolicy, models.CASCADE, related_name="sources", db_index=False)
    hypervisor = models.ForeignKey(Hypervisor, models.PROTECT, related_name="replicated")
    platform_id = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    """The machine's, when it was last seen."""
    disks = models.JSONField(default=list)
    """Names of the disks; empty: all that the machine has when it is read."""
    is_chosen = models.BooleanField(default=True)
    """False: no choice comes to it any more. It is not replicated, and its recovery points stay."""
    offset_s = models.PositiveIntegerField(default=0)
    """Where in the policy's interval it runs, so that not all run at once; drawn once."""
    bookmark = models.JSONField(null=True)
    """What the platform needs to tell what has changed since the common point; the connector's own."""
    common = models.ForeignKey("RecoveryPoint", models.SET_NULL, null=True, related_name="+")
    """The point to which the bookmark belongs."""
    next_run_at = models.DateTimeField(null=True)
    """Who moves it from its old value writes the run; None while nothing is to run."""
    newest_at = models.DateTimeField(null=True)
    """When the reading of the newest usable point began, or the state was current that the platform's newest replica
    holds."""
    breaks_at = models.DateTimeField(null=True)
    """When the promise is broken unless a newer point has come by then; None while nothing is promised."""
    fault = models.TextField(blank=True)
    """Why the last run brought no point, or what is wrong with the platform's replication, in words; empty if nothing
    is."""
    whole = models.TextField(blank=True)
    """Why the last run had to read everything; empty if it read what had changed."""
    took_s = models.FloatField(null=True)
    """How long the last good run took: no smaller RPO is to be had."""
    mirrors = models.JSONField(null=True)
    """What the platform keeps of it elsewhere, as it told last: a list of `{"to", "state", "newest_at", "interval_s",
    "fault", "can_fail_over"}`. None: it has not been asked; of policies that watch alone."""
    mirrors_at = models.DateTimeField(null=True)
    """When the platform was asked for that last, whatever it answered."""
    tried_at = models.DateTimeField(null=True)
    """When a recovery point of it was started last, to see whether it lives."""
    trial_fault = models.TextField(blank=True)
    """Why the last one did not, in words; empty if it did."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(fields=["policy", "hypervisor", "platform_id"], name="source_once_a_policy"),
        ]
        indexes = [
            models.Index(fields=["next_run_at"], condition=Q(next_run_at__isnull=False), name="source_due"),
            models.Index(fields=["breaks_at"], condition=Q(breaks_at__isnull=False), name="source_breaking"),
        ]

    def __str__(self) -> str:
        return self.name


class ReplicationRun(models.Model):
    """Work for a mover: the row is the job, and whoever holds its lease carries it out."""

    class Kind(models.TextChoices):
        REPLICATE = "replicate", "Replicate"
        """A source's newest state comes into the vault."""
        MATERIALISE = "materialise", "Bring up"
        """A recovery point becomes a machine."""
        VERIFY = "verify", "Verify"
        """A recovery point is read back."""
        COLLECT = "collect", "Collect"
        """What no recovery point needs any more leaves the vault."""
        RELEASE = "release", "Clean up"
        """What a run could not take away from a platform."""
        STANDBY = "standby", "Standby"
        """The machine that waits for a source becomes its newest point."""
        MIRROR = "mirror", "Replica"
        """One step of a failover that the platform carries out itself."""

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=12, choices=Kind)
    source = models.ForeignKey(ReplicationSource, models.CASCADE, null=True, related_name="runs", db_index=False)
    point = models.ForeignKey("RecoveryPoint", models.SET_NULL, null=True, related_name="runs")
    """Replicate: the point that came of it. Materialise, verify: what is read."""
    vault = models.ForeignKey(Vault, models.CASCADE, null=True, related_name="runs")
    hypervisor = models.ForeignKey(Hypervisor, models.SET_NULL, null=True, related_name="runs")
    """Where the machine is, or is to be."""
    platform_id = models.CharField(max_length=200, blank=True)
    """The machine that is replicated; of one that was brought up once it is there."""
    subject = models.CharField(max_length=200)
    """The machine's name, for people."""
    wish = models.JSONField(default=dict)
    """Materialise: `{"name", "storage", "host", "networks", "booted_on", "is_template"}`. Release: `{"clear"}`, the key
    of a landing; else points of the machine. Mirror: `{"act", "stamp_key"}`."""
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    rank = models.SmallIntegerField(default=0)
    """What a person waits for goes first: the smallest rank, then the oldest."""
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    """None: the broker itself."""
    attempt = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(null=True)
    mover_epoch = models.BigIntegerField(default=0)
    """Raised whenever a mover takes over; every write of a mover says `WHERE mover_epoch = mine`."""
    mover_expires_at = models.DateTimeField(null=True)
    is_to_end = models.BooleanField(default=False)
    """Somebody wants it cancelled."""
    step = models.CharField(max_length=200, blank=True)
    total_bytes = models.BigIntegerField(null=True)
    done_bytes = models.BigIntegerField(default=0)
    """How far into the disks, of `total_bytes`."""
    read_bytes = models.BigIntegerField(default=0)
    new_bytes = models.BigIntegerField(default=0)
    """What the vault had to take up for it."""
    whole = models.TextField(blank=True)
    """Why everything had to be read and not only what changed; empty if only that was."""
    findings = models.JSONField(default=list)
    """Sentences: what could not be kept of a machine's configuration, what a verification found."""
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name = "run"
        constraints = [
            models.UniqueConstraint(
                fields=["hypervisor", "platform_id"],
                condition=Q(kind__in=["replicate", "release"], state__in=["queued", "running"]) & ~Q(platform_id=""),
                name="run_one_a_machine",
            ),
            models.UniqueConstraint(
                fields=["vault"],
                condition=Q(kind="collect", state__in=["queued", "running"]),
                name="run_one_collection_a_vault",
            ),
            models.UniqueConstraint(
                fields=["point"],
                condition=Q(kind="verify", state__in=["queued", "running"]),
                name="run_one_verification_a_point",
            ),
            models.UniqueConstraint(
                fields=["source"],
                condition=Q(kind="standby", state__in=["queued", "running"]),
                name="run_one_standby_a_source",
            ),
        ]
        indexes = [
            models.Index(fields=["source", "-created_at"], name="run_by_source"),
            models.Index(fields=["-created_at", "-id"], name="run_newest"),
            models.Index(fields=["rank", "created_at"], condition=Q(state="queued"), name="run_queue"),
            models.Index(fields=["mover_expires_at"], condition=Q(state="running"), name="run_held"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.subject}"


class RecoveryPoint(models.Model):
    """A committed copy of a machine's disks as they were at one moment."""

    class State(models.TextChoices):
        USABLE = "usable", "Usable"
        BROKEN = "broken", "Broken"
        """Something of it cannot be read back; the next run heals what it can."""
        DELETING = "deleting", "Being deleted"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    """Also its name in the vault."""
    vault = models.ForeignKey(Vault, models.PROTECT, related_name="points", db_index=False)
    source = models.ForeignKey(ReplicationSource, models.SET_NULL, null=True, related_name="points", db_index=False)
    machine_name = models.CharField(max_length=200)
    hypervisor_name = models.CharField(max_length=200, blank=True)
    """Where it stood."""
    taken_at = models.DateTimeField()
    """When the state was current that it holds."""
    committed_at = models.DateTimeField()
    consistency = models.CharField(max_length=10)
    """"guest": its file systems were frozen; "crash": as after a power cut; "off"."""
    size_bytes = models.BigIntegerField()
    new_bytes = models.BigIntegerField()
    configuration = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=State, default=State.USABLE)
    fault = models.TextField(blank=True)
    verified_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-taken_at", "-id"]
        verbose_name = "recovery point"
        indexes = [
            models.Index(fields=["source", "-taken_at"], name="point_by_source"),
            models.Index(fields=["vault", "-taken_at"], name="point_by_vault"),
            models.Index(fields=["-taken_at", "-id"], name="point_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.machine_name} {self.taken_at:%Y-%m-%d %H:%M}"


class RpoBreach(models.Model):
    """A time in which a source's newest point was older than its policy promises."""

    source = models.ForeignKey(ReplicationSource, models.CASCADE, related_name="breaches", db_index=False)
    since = models.DateTimeField()
    until = models.DateTimeField(null=True)
    """None while it lasts."""
    reason = models.TextField(blank=True)

    class Meta:
        ordering = ["-since"]
        constraints = [
            models.UniqueConstraint(fields=["source"], condition=Q(until=None), name="breach_one_open"),
            models.CheckConstraint(condition=Q(until=None) | Q(until__gte=F("since")), name="breach_ends_later"),
        ]
        indexes = [models.Index(fields=["source", "-since"], name="breach_by_source")]

    def __str__(self) -> str:
        return f"{self.source} since {self.since:%Y-%m-%d %H:%M}"
