"""An estate of any number of desktops with its people and its past, made in seconds by the database itself.

Most desktops are assigned; some are ready, some on their way, failed, missing or gone; each has had owners, operations,
events and audit entries. People and history grow with it; the pools and hypervisors are as many at every size, so that
desktops are all that two sizes differ by.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import connection, models
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.hypervisors.gate import installation_id
from broker.models import (
    Assignment,
    AuditEntry,
    Desktop,
    Entitlement,
    Event,
    Host,
    Hypervisor,
    Machine,
    Operation,
    Pool,
    PoolMember,
    Request,
    Storage,
    Template,
    TemplateCopy,
    TemplateVersion,
)
from tests.bench.figures import say

POOLS, HYPERVISORS, HOSTS_A_HYPERVISOR = 100, 50, 10
GROUPS, GROUPS_A_PERSON = 10, 3

STATE = """CASE WHEN n % 100 < 78 THEN 'assigned' WHEN n % 100 < 88 THEN 'ready' WHEN n % 100 < 90 THEN 'building'
  WHEN n % 100 < 91 THEN 'preparing' WHEN n % 100 < 92 THEN 'recycling' WHEN n % 100 < 93 THEN 'failed'
  WHEN n % 100 < 94 THEN 'missing' ELSE 'gone' END"""


def insert_like(sample: models.Model, rows: str, **different: str) -> int:
    """Insert a row like the saved `sample` for each of `rows` (what follows an SQL FROM); returns how many.

    `different` gives, by column, SQL over `rows` for what is not as in the sample. Primary keys are made anew.
    """
    meta = sample._meta
    key = str(meta.pk.column)
    columns = {str(f.column) for f in meta.concrete_fields if not isinstance(f, models.AutoField)}
    if isinstance(meta.pk, models.UUIDField):
        different.setdefault(key, "gen_random_uuid()")
    unknown = different.keys() - columns
    if unknown:
        raise LookupError(f"{meta.label} has no column {unknown}.")
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(different.get(name, f's."{name}"') for name in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f'INSERT INTO "{meta.db_table}" ({names}) SELECT {values}'
            f' FROM (SELECT * FROM "{meta.db_table}" WHERE "{key}" = \'{sample.pk}\') s, {rows}'
        )
        return int(cursor.rowcount)


def _sql(statement: str, params: list[Any] | None = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)


@dataclass(frozen=True, slots=True)
class Estate:
    """What was made, for benches to ask about."""

    hypervisor: Hypervisor
    copy: TemplateCopy
    """On that hypervisor: for pools of a bench's own."""
    everybody: Group
    """Every person is in it."""


def build(size: int) -> Estate:
    """Make an estate of `size` desktops in an empty, migrated database."""
    say(f"making an estate of {size} desktops")
    estate = _bones()
    _people(size, estate.everybody)
    _pools(size)
    _desktops(size)
    _history()
    _sql("ANALYZE")
    return estate


def raze() -> None:
    """Empty the tables again, but for the installation's own id."""
    tables = [
        f'"{table}"'
        for table in connection.introspection.django_table_names(only_existing=True)
        if table not in ("broker_installation", "django_content_type", "auth_permission")
    ]
    _sql(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")


def _bones() -> Estate:
    """Hypervisors, each with hosts, a storage and a copy of the one template."""
    now = timezone.now()
    version = TemplateVersion.objects.create(template=Template.objects.create(name="office"), number=1)
    first = Hypervisor.objects.create(name="hypervisor-0", kind="instant", status="up", status_since=now)
    insert_like(first, f"generate_series(1, {HYPERVISORS - 1}) n", name="'hypervisor-' || n")
    made = list(Hypervisor.objects.order_by("created_at", "name"))
    Storage.objects.bulk_create(
        Storage(hypervisor=h, platform_id="pool", name="pool", capacity_mib=10**8, free_mib=10**8, seen_at=now)
        for h in made
    )
    Host.objects.bulk_create(
        Host(
            hypervisor=h, platform_id=f"host-{n}", name=f"{h.name}-host-{n}", vcpus=128, memory_mib=2**20, seen_at=now
        )
        for h in made
        for n in range(HOSTS_A_HYPERVISOR)
    )  # fmt: skip
    copies = TemplateCopy.objects.bulk_create(
        TemplateCopy(
            version=version, hypervisor=h, platform_id="golden", name="golden", storage="pool", vcpus=2, memory_mib=4096
        )
        for h in made
    )  # fmt: skip
    everybody = Group.objects.create(name="everybody")
    return Estate(made[0], next(c for c in copies if c.hypervisor == made[0]), everybody)


def _people(size: int, everybody: Group) -> None:
    """As many people as desktops, each in the group of all and in a few others."""
    Group.objects.bulk_create(Group(name=f"group-{n}") for n in range(GROUPS))
    first = User.objects.create(username="person-0")
    insert_like(first, f"generate_series(1, {size - 1}) n", username="'person-' || n")
    membership = User.groups.through._meta.db_table
    _sql(f'INSERT INTO "{membership}" (user_id, group_id) SELECT id, %s FROM auth_user', [everybody.pk])
    _sql(
        f'INSERT INTO "{membership}" (user_id, group_id)'
        " SELECT u.id, g.id FROM auth_user u, auth_group g"
        f" WHERE g.name IN ('group-' || u.id % {GROUPS}, 'group-' || (u.id + 1) % {GROUPS})"
    )


def _pools(size: int) -> None:
    """Pools for the groups, each with two members."""
    now = timezone.now()
    hypervisors = list(Hypervisor.objects.order_by("created_at", "name"))
    copies = {c.hypervisor_id: c for c in TemplateCopy.objects.all()}
    groups = list(Group.objects.filter(name__startswith="group-").order_by("name"))
    for number in range(POOLS):
        pool = Pool.objects.create(
            name=f"pool-{number}", naming=f"p{number}-######", maximum=size, spare=10, next_reconcile_at=now
        )
        Entitlement.objects.create(pool=pool, group=groups[number % GROUPS])
        for hypervisor in {hypervisors[number % len(hypervisors)], hypervisors[(number + 1) % len(hypervisors)]}:
            PoolMember.objects.create(pool=pool, hypervisor=hypervisor, copy=copies[hypervisor.pk])


def _desktops(size: int) -> None:
    """The desktops with their machines, owners and requests."""
    now = timezone.now()
    member = PoolMember.objects.select_related("pool", "hypervisor", "copy").first()
    assert member is not None
    sample = Desktop.objects.create(
        name="sample", pool=member.pool, member=member, hypervisor=member.hypervisor, copy=member.copy,
        state=State.GONE, state_since=now, clean_epoch=1, vcpus=2, memory_mib=4096, power="on", is_answering=True,
        addresses=["10.0.0.1"], disks=["disk-1"], observed_at=now, created_at=now, ready_at=now,
        why=[{"target": "host-1", "chosen": True, "reasons": ["most room"]}],
    )  # fmt: skip
    insert_like(
        sample,
        "(SELECT n, m.* FROM (SELECT *, row_number() OVER (ORDER BY id) - 1 AS nth FROM broker_poolmember) m"
        f" JOIN generate_series(1, {size}) n ON m.nth = n / 7 % (SELECT count(*) FROM broker_poolmember)) x",
        name="'desktop-' || x.n", pool_id="x.pool_id", member_id="x.id", hypervisor_id="x.hypervisor_id",
        copy_id="x.copy_id", state=STATE, machine_id="'machine-' || x.n", stamp_key="gen_random_uuid()::text",
        power="CASE WHEN n % 10 = 0 THEN 'off' ELSE 'on' END", is_answering="n % 10 <> 0",
        created_at="s.created_at - x.n * interval '1 minute'", ready_at="s.ready_at - x.n * interval '1 second'",
    )  # fmt: skip
    _machines(sample)
    _owners(sample)


def _machines(sample: Desktop) -> None:
    machine = Machine.objects.create(
        hypervisor=sample.hypervisor, platform_id="sample", name="sample", power="on", vcpus=2, memory_mib=4096,
        stamp_installation=installation_id(), agent="answering", addresses=["10.0.0.1"], seen_at=timezone.now(),
    )  # fmt: skip
    insert_like(
        machine,
        "broker_desktop d WHERE d.state <> 'gone'",
        hypervisor_id="d.hypervisor_id", platform_id="d.machine_id", name="d.name", stamp_key="d.stamp_key",
    )  # fmt: skip


def _owners(sample: Desktop) -> None:
    """An owner for what is assigned, and one earlier owner for every desktop."""
    now, person = timezone.now(), User.objects.order_by("pk").first()
    assert person is not None
    ended = now - timedelta(days=1)
    request = Request.objects.create(
        pool=sample.pool, user=person, desktop=sample, state="ended", created_at=ended, served_at=ended, ended_at=ended
    )
    assignment = Assignment.objects.create(
        pool=sample.pool, user=person, desktop=sample, since=ended - timedelta(days=1), until=ended
    )
    numbered = (
        "(SELECT d.*, u.id AS owner FROM (SELECT *, row_number() OVER (ORDER BY id) AS nth FROM broker_desktop) d"
        " JOIN (SELECT id, row_number() OVER (ORDER BY id) AS nth FROM auth_user) u USING (nth)) x"
    )
    whose = {"pool_id": "x.pool_id", "user_id": "x.owner", "desktop_id": "x.id"}
    for row in (request, assignment):
        insert_like(row, numbered, **whose)
    mine = f"{numbered} WHERE x.state = 'assigned'"
    insert_like(request, mine, **whose, state="'ready'", ended_at="NULL")
    insert_like(assignment, mine, **whose, until="NULL")
    _sql("UPDATE broker_desktop SET epoch = 2, clean_epoch = 1 WHERE state = 'assigned'")


def _history() -> None:
    """Three operations, five events and two audit entries a desktop."""
    now = timezone.now()
    sample = Desktop.objects.get(name="sample")
    operation = Operation.objects.create(
        kind="clone", state="done", hypervisor=sample.hypervisor, desktop=sample, epoch=1, percent=100,
        parameters={"name": "sample", "template": "golden"}, created_at=now, sent_at=now, finished_at=now,
        deadline_at=now,
    )  # fmt: skip
    event = Event.objects.create(at=now, kind="desktop.claimed", message="Assigned to person-0.", desktop=sample)
    entry = AuditEntry.objects.create(
        at=now, actor_name="person-0", action="desktop.claim", noun="desktop", object_id=str(sample.pk),
        object_name="sample",
    )  # fmt: skip
    insert_like(
        operation,
        "broker_desktop d, generate_series(1, 3) n",
        desktop_id="d.id", hypervisor_id="d.hypervisor_id",
        created_at="d.created_at + n * interval '1 second'", finished_at="d.created_at + n * interval '2 seconds'",
    )  # fmt: skip
    insert_like(
        event,
        "broker_desktop d, generate_series(1, 5) n",
        desktop_id="d.id", pool_id="d.pool_id", hypervisor_id="d.hypervisor_id",
        at="d.created_at + n * interval '1 second'",
    )  # fmt: skip
    insert_like(
        entry,
        "broker_desktop d, generate_series(1, 2) n",
        object_id="d.id::text", object_name="d.name", at="d.created_at + n * interval '1 second'",
    )  # fmt: skip


def add_pool(estate: Estate, name: str, *, ready: int) -> Pool:
    """One more pool, open to everybody, with that many ready, answering desktops; nobody has ever had any of them."""
    now = timezone.now()
    pool = Pool.objects.create(name=name, naming=f"{name}-######", maximum=ready, spare=0, next_reconcile_at=now)
    member = PoolMember.objects.create(pool=pool, hypervisor=estate.hypervisor, copy=estate.copy)
    Entitlement.objects.create(pool=pool, group=estate.everybody)
    sample = Desktop.objects.get(name="sample")
    insert_like(
        sample,
        f"generate_series(1, {ready}) n",
        name=f"'{name}-' || n", pool_id=f"'{pool.pk}'", member_id=f"'{member.pk}'",
        hypervisor_id=f"'{estate.hypervisor.pk}'",
        copy_id=f"'{estate.copy.pk}'", state="'ready'", machine_id=f"'{name}-' || n",
        ready_at="s.ready_at - n * interval '1 second'",
    )  # fmt: skip
    _sql("ANALYZE broker_desktop")
    return pool
