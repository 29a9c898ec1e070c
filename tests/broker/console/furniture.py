"""A house in which something of everything has happened, so that every page of the console has something to show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time, timedelta
from uuid import UUID, uuid4

from django.contrib.auth.models import User
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import (
    ApiToken,
    Application,
    Assignment,
    AuditEntry,
    Desktop,
    DesktopSession,
    Entitlement,
    Event,
    Failover,
    Holiday,
    HolidayCalendar,
    Host,
    Hypervisor,
    Installation,
    LogicalNetwork,
    Machine,
    Network,
    NetworkMapping,
    Operation,
    Pool,
    PoolMember,
    PoolOwner,
    PowerSchedule,
    Publication,
    Push,
    PushPlace,
    RecoveryPoint,
    ReplicationChoice,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    Request,
    RpoBreach,
    ScreenSession,
    Standby,
    Storage,
    TemplateCopy,
    TemplateVersion,
    Vault,
)
from tests.broker.portal.cast import Estate

GIB = 1024


@dataclass
class Furniture:
    """What the tests point at."""

    host: Host
    network: LogicalNetwork
    """The classroom's: it shall be kept apart, and is not."""
    image: Machine
    """Listed as a template and not yet linked."""
    left_over: Machine
    others: Machine
    unknown: Machine
    running: Operation
    queued: Operation
    failed: Operation
    failed_desktop: Desktop
    missing: Desktop
    doubtful: Hypervisor
    held_pool: Pool
    waiting: Request
    to_decide: Request
    owner: PoolOwner
    """Of the classroom."""
    token: ApiToken
    schedule: PowerSchedule
    calendar: HolidayCalendar
    vault: Vault
    policy: ReplicationPolicy
    choice: ReplicationChoice
    source: ReplicationSource
    """Its promise is broken."""
    run: ReplicationRun
    """At work."""
    point: RecoveryPoint
    elsewhere: Hypervisor
    """Can be landed on."""
    own_pool: Pool
    """Dedicated, over the first hypervisor and `elsewhere`."""
    moving: Failover
    """A move in its last copy."""
    moved: Failover
    """Whose old machine still stands, under `left_behind`."""
    left_behind: Machine
    tested: Failover
    group: UUID
    stranded: Desktop
    """Its hypervisor is down, and it has a recovery point."""
    publishing: Publication
    """Being landed."""
    session: DesktopSession
    """Alice's, on her desktop."""
    push: Push
    """Of the first version to the office: it runs, one desktop failed, and another version was there before."""
    new_version: TemplateVersion
    """Lies where the first one lies; members elsewhere lack it."""
    application: Application
    """Of the engineers' desktops, for Alice and Bob."""
    session_host: Desktop
    """Of a shared pool; Bob and Dana are on it."""


def session_host_of(house: Estate) -> Desktop:
    """Of eight seats, two are taken; another one stands empty."""
    hall = house.open_pool("Task hall", kind=Pool.Kind.SHARED, protocol=Pool.Protocol.RDP, seats=8, spare=4, maximum=4)
    made = house.make(hall, name="task-001", state=State.ASSIGNED, epoch=2, clean_epoch=1)
    house.make(hall, name="task-002")
    now = timezone.now()
    Entitlement.objects.create(pool=hall, user=house.dana)
    Entitlement.objects.create(pool=hall, group=house.staff)
    for number, user in enumerate((house.bob, house.dana), 1):
        Assignment.objects.create(pool=hall, user=user, desktop=made, seat=number, since=now - timedelta(hours=number))
        Request.objects.create(
            pool=hall, user=user, desktop=made, state=Request.State.READY, created_at=now, served_at=now
        )
    return made


def application_of(pool: Pool, house: Estate) -> Application:
    """Two: one for Alice and Bob, one for nobody yet."""
    Pool.objects.filter(pk=pool.pk).update(protocol=Pool.Protocol.RDP)
    made = Application.objects.create(
        pool=pool, name="Drawing board", description="Plans and parts, without the desktop around them.", icon="chart",
        command="/usr/bin/librecad", folder="/srv/plans",
    )  # fmt: skip
    for person in (house.alice, house.bob):
        Entitlement.objects.create(pool=pool, application=made, user=person)
    Application.objects.create(pool=pool, name="Mail", icon="mail", command="||outlook", guest="windows")
    return made


def machine(hypervisor: Hypervisor, name: str, **fields: object) -> Machine:
    values: dict[str, object] = {"power": "on", "vcpus": 1, "memory_mib": 512, "platform_id": str(uuid4())}
    return Machine.objects.create(hypervisor=hypervisor, name=name, seen_at=timezone.now(), **(values | fields))


def operation(hypervisor: Hypervisor, desktop: Desktop | None = None, **fields: object) -> Operation:
    now = timezone.now()
    values: dict[str, object] = {"kind": "power", "created_at": now, "deadline_at": now + timedelta(minutes=15)}
    return Operation.objects.create(hypervisor=hypervisor, desktop=desktop, **(values | fields))


@dataclass
class Replication:
    """A vault, a policy over two machines, and what has come of it."""

    vault: Vault
    policy: ReplicationPolicy
    choice: ReplicationChoice
    source: ReplicationSource
    other: ReplicationSource
    run: ReplicationRun
    point: RecoveryPoint


def replicated(hypervisor: Hypervisor, dana: User, desktop: Desktop) -> Replication:
    now = timezone.now()
    vault = Vault.objects.create(
        name="Cellar", kind="folder", location={"path": "/srv/vault"}, status="up", status_since=now, is_encrypted=True
    )
    Vault.objects.create(
        name="Bucket", kind="s3", location={"bucket": "copies", "endpoint": "https://s3.example.net"}, status="down",
        status_since=now, status_reason="Cannot reach s3.example.net: no answer in 10 s. Check the address.",
    )  # fmt: skip
    policy = ReplicationPolicy.objects.create(
        name="Accounting", vault=vault, interval_s=3600, rpo_s=7200, keep_hourly=24, bytes_a_second=40_000_000,
        window_from=time(8), window_to=time(18), zone="Europe/Berlin",
    )  # fmt: skip
    ReplicationPolicy.objects.create(name="Nights", vault=vault, cron="30 2 * * 1-5", rpo_s=86_400, is_enabled=False)
    alpha = machine(hypervisor, "ledger-01", memory_mib=8 * GIB)
    choice = ReplicationChoice.objects.create(
        policy=policy, kind="machine", hypervisor=hypervisor, platform_id=alpha.platform_id, disks=["vda"]
    )
    ReplicationChoice.objects.create(policy=policy, kind="desktop", desktop=desktop)
    source = ReplicationSource.objects.create(
        policy=policy, hypervisor=hypervisor, platform_id=alpha.platform_id, name="ledger-01", disks=["vda"],
        newest_at=now - timedelta(hours=3), breaks_at=now - timedelta(hours=1), next_run_at=now + timedelta(minutes=20),
        fault="The vault Cellar has no room. Make room or keep fewer points.", took_s=420,
    )  # fmt: skip
    other = ReplicationSource.objects.create(
        policy=policy, hypervisor=hypervisor, platform_id=desktop.machine_id, name=desktop.name, took_s=95,
        newest_at=now - timedelta(minutes=25), breaks_at=now + timedelta(minutes=95), next_run_at=now,
        whole="It is the first point.",
    )  # fmt: skip
    point = RecoveryPoint.objects.create(
        vault=vault, source=source, machine_name="ledger-01", hypervisor_name=hypervisor.name, consistency="guest",
        taken_at=now - timedelta(hours=3), committed_at=now - timedelta(hours=3), size_bytes=80 << 30,
        new_bytes=3 << 30, verified_at=now - timedelta(hours=2),
        configuration={
            "vcpus": 4, "memory_mib": 8192, "firmware": "uefi", "secure_boot": True,
            "nics": [{"model": "virtio", "mac": "52:54:00:12:34:56", "network": "default"}],
            "disks": [{"name": "vda", "bus": "virtio", "size": 80 << 30}],
        },
    )  # fmt: skip
    RecoveryPoint.objects.create(
        vault=vault, machine_name="old-server", hypervisor_name="esx-cluster", consistency="crash", state="broken",
        fault="1048576 bytes at 0 of disk vda are missing. The next run reads them anew.", size_bytes=10 << 30,
        taken_at=now - timedelta(days=40), committed_at=now - timedelta(days=40), new_bytes=10 << 30,
    )  # fmt: skip
    run = ReplicationRun.objects.create(
        kind="replicate", source=source, vault=vault, hypervisor=hypervisor, platform_id=alpha.platform_id,
        subject="ledger-01", state="running", attempt=1, step="Copies vda of ledger-01", total_bytes=80 << 30,
        done_bytes=31 << 30, read_bytes=12 << 30, new_bytes=4 << 30, started_at=now - timedelta(minutes=3),
        mover_expires_at=now + timedelta(seconds=30),
    )  # fmt: skip
    values = {"source": source, "vault": vault, "hypervisor": hypervisor, "subject": "ledger-01"}
    ReplicationRun.objects.create(
        kind="replicate", state="failed", attempt=6, error=source.fault, finished_at=now, started_at=now, **values
    )
    ReplicationRun.objects.create(
        kind="verify", state="done", attempt=1, point=point, requested_by=dana, finished_at=now, started_at=now,
        read_bytes=80 << 30, **values,
    )  # fmt: skip
    ReplicationRun.objects.create(
        kind="materialise", state="queued", attempt=1, point=point, requested_by=dana, subject="ledger-01-test",
        hypervisor=hypervisor, error="kvm-01 is busy.", not_before=now + timedelta(minutes=1),
        findings=["The disks hang on SATA: this system is not known to boot on VIRTIO here."],
    )  # fmt: skip
    ReplicationRun.objects.create(
        kind="replicate", state="done", source=other, vault=vault, hypervisor=hypervisor, subject=desktop.name,
        attempt=1, started_at=now - timedelta(seconds=95), finished_at=now, whole=other.whole,
    )  # fmt: skip
    RpoBreach.objects.create(source=source, since=now - timedelta(hours=1), reason=source.fault)
    RpoBreach.objects.create(
        source=source, since=now - timedelta(days=2), until=now - timedelta(days=2, minutes=-50),
        reason="The last run is not finished yet.",
    )  # fmt: skip
    for kind, level, words in (
        ("rpo.broken", "error", f"ledger-01 breaks the RPO of Accounting. {source.fault}"),
        ("vault.lost", "error", "Bucket: Cannot reach s3.example.net: no answer in 10 s. Check the address."),
        ("rpo.kept", "info", "office-001 keeps the RPO of Accounting again."),
    ):  # fmt: skip
        Event.objects.create(at=now, kind=kind, level=level, message=words)
    return Replication(vault, policy, choice, source, other, run, point)


@dataclass
class Elsewhere:
    """What failovers have come to."""

    hypervisor: Hypervisor
    pool: Pool
    moving: Failover
    moved: Failover
    left_behind: Machine
    tested: Failover
    group: UUID
    stranded: Desktop


def failed_over(house: Estate, made: Replication) -> Elsewhere:
    now = timezone.now()
    ours = str(Installation.objects.values_list("pk", flat=True).get())
    # Whatever the real kinds can do, something can be landed on.
    there = Hypervisor.objects.create(name="elsewhere-01", kind="instant", status="up", status_since=now)
    Storage.objects.create(
        hypervisor=there, platform_id="fast", name="fast", capacity_mib=900 * GIB, free_mib=640 * GIB, seen_at=now
    )
    ReplicationPolicy.objects.filter(pk=made.policy.pk).update(
        target=there, target_storage="fast", keeps_standby=True, verification="boot"
    )
    for source, used, point in ((made.source, True, made.point), (made.other, False, made.point)):
        Standby.objects.create(
            source=source, hypervisor=there, name=f"{source.name}-standby-2f61c0", machine_id=f"standby-{source.name}",
            machine_key=str(uuid4()), point=point, refreshed_at=now - timedelta(minutes=24), is_used=used,
        )  # fmt: skip
    ReplicationSource.objects.filter(pk=made.source.pk).update(
        tried_at=now - timedelta(hours=5), trial_fault="No sign of life within 900 s; it is on."
    )
    ReplicationSource.objects.filter(pk=made.other.pk).update(tried_at=now - timedelta(hours=5))
    for name, is_isolated in (("lan", False), ("quarantine", True)):
        Network.objects.create(hypervisor=there, platform_id=name, name=name, is_isolated=is_isolated, seen_at=now)
    pool = house.open_pool("Engineering", kind="dedicated", spare=0)
    copy = TemplateCopy.objects.create(
        version=house.copy.version, hypervisor=there, platform_id="golden", name="golden", vcpus=1, memory_mib=512
    )
    PoolMember.objects.create(pool=pool, hypervisor=there, copy=copy)
    kvm = house.hypervisor
    down = Hypervisor.objects.get(name="kvm-03")
    goes = house.give(house.bob, pool, name="engineering-001", is_moving=True, is_in_maintenance=True)
    gone = house.give(house.charlie, pool, name="engineering-002")
    waits = house.give(house.dana, pool, name="engineering-003")
    stranded = house.give(User.objects.create_user("erin"), pool, name="engineering-004")
    house.give(User.objects.create_user("frank"), pool, name="engineering-005")
    Desktop.objects.filter(pk=gone.pk).update(hypervisor=there)
    Desktop.objects.filter(pk=stranded.pk).update(hypervisor=down)
    left_behind = machine(kvm, "engineering-002", power="off", stamp_installation=ours, stamp_key=str(uuid4()))
    source = ReplicationSource.objects.create(
        policy=made.policy, hypervisor=down, platform_id=stranded.machine_id, name=stranded.name, is_chosen=False,
        newest_at=now - timedelta(minutes=40),
    )  # fmt: skip
    RecoveryPoint.objects.create(
        vault=made.vault, source=source, machine_name=stranded.name, hypervisor_name="kvm-03", consistency="crash",
        taken_at=now - timedelta(minutes=40), committed_at=now - timedelta(minutes=38), size_bytes=40 << 30,
        new_bytes=1 << 30,
        configuration={"nics": [{"model": "virtio", "mac": "52:54:00:12:34:57", "network": "default"}]},
    )  # fmt: skip
    run = ReplicationRun.objects.create(
        kind="replicate", vault=made.vault, hypervisor=kvm, platform_id=goes.machine_id, subject=goes.name,
        state="running", attempt=1, step=f"Copies vda of {goes.name}", total_bytes=40 << 30, done_bytes=30 << 30,
        read_bytes=1 << 30, started_at=now - timedelta(seconds=20), mover_expires_at=now + timedelta(seconds=30),
        rank=0,
    )  # fmt: skip
    group = uuid4()

    def failover(kind: str, subject: str, *lines: tuple[str, str], **fields: object) -> Failover:
        began = now - timedelta(minutes=12)
        report = [
            {
                "at": (began + timedelta(minutes=number)).isoformat(), "step": step, "words": words.lstrip("!"),
                "is_good": not words.startswith("!"),
            }
            for number, (step, words) in enumerate(lines)
        ]  # fmt: skip
        values: dict[str, object] = {
            "step_since": began, "vault": made.vault, "hypervisor": there, "storage": "fast", "name": subject,
            "requested_by": house.dana, "report": report,
        }  # fmt: skip
        row = Failover.objects.create(kind=kind, subject=subject, **(values | fields))
        Failover.objects.filter(pk=row.pk).update(created_at=began)
        row.refresh_from_db()
        return row

    over = {"step": "over", "finished_at": now, "digest": "5ac1" * 16}
    tested = failover(
        "test", "ledger-01", ("waiting", "ledger-01 goes to elsewhere-01."),
        ("landing", "Brought up as ledger-01-test-5ac15a."), ("starting", "Started."),
        ("probing", "The guest answers at 10.0.0.7."), ("cleaning", "The test's machine is gone."),
        state="done", point=made.point, answered_at=now - timedelta(minutes=9), **over,
    )  # fmt: skip
    failover(
        "test", "ledger-01", ("waiting", "ledger-01 goes to elsewhere-01."),
        ("landing", "Brought up as ledger-01-test-77aa01."), ("starting", "Started."),
        ("probing", "!No sign of life within 900 s; it is on."), ("cleaning", "The test's machine is gone."),
        state="failed", point=made.point, error="No sign of life within 900 s; it is on.", **over,
    )  # fmt: skip
    moved = failover(
        "move", "engineering-002", ("waiting", "engineering-002 goes to elsewhere-01."),
        ("copying", "Copied 9.4 GiB of 40 GiB. It is the first point."), ("stopping", "Shut down."),
        ("last_copy", "Copied 210 MiB of 40 GiB."), ("landing", "Brought up as engineering-002."),
        ("starting", "Started."), ("probing", "The guest answers at 10.0.0.12. Its user goes on there."),
        state="done", desktop=gone, old_hypervisor=kvm, old_machine_id=left_behind.platform_id,
        stopped_at=now - timedelta(minutes=10), answered_at=now - timedelta(minutes=5), **over,
    )  # fmt: skip
    moving = failover(
        "move", goes.name, ("waiting", f"{goes.name} goes to elsewhere-01."),
        ("copying", "Copied 12 GiB of 40 GiB. It is the first point."), ("stopping", "Shut down."),
        step="last_copy", step_since=now - timedelta(seconds=25), desktop=goes, epoch=2, run=run, old_hypervisor=kvm,
        old_machine_id=goes.machine_id, was_on=True, stopped_at=now - timedelta(seconds=70), group=group, place=1,
    )  # fmt: skip
    failover("move", waits.name, desktop=waits, epoch=2, old_hypervisor=kvm, group=group, place=2)
    failover(
        "move", "engineering-009", ("waiting", "engineering-009 goes to elsewhere-01."),
        ("copying", "!The vault Cellar has no room."), state="failed", error="The vault Cellar has no room.",
        old_hypervisor=kvm, group=group, place=3, **over,
    )  # fmt: skip
    for kind, level, words in (
        ("failover.done", "info", "The move of engineering-002 to elsewhere-01 went well."),
        ("failover.failed", "error", "The test of ledger-01 on elsewhere-01 failed. No sign of life within 900 s."),
    ):
        Event.objects.create(at=now, kind=kind, level=level, message=words)
    return Elsewhere(there, pool, moving, moved, left_behind, tested, group, stranded)


def published(house: Estate, made: Replication, there: Hypervisor) -> tuple[Publication, TemplateVersion]:
    """A second version: on its way to one place, failed at another, there at a third."""
    now = timezone.now()
    kvm = house.hypervisor
    version = TemplateVersion.objects.create(
        template=house.copy.version.template, number=2, note="Security updates of June"
    )
    copy = TemplateCopy.objects.create(
        version=version, hypervisor=kvm, platform_id="golden-2", name="debian-12-june", storage="fast", vcpus=2,
        memory_mib=2048, disk_mib=20 * GIB,
    )  # fmt: skip
    run = ReplicationRun.objects.create(
        kind="materialise", point=made.point, vault=made.vault, hypervisor=there, subject="Debian-12-v2",
        state="running", attempt=1, step="Writes vda of Debian-12-v2", total_bytes=20 << 30, done_bytes=13 << 30,
        read_bytes=6 << 30, started_at=now - timedelta(seconds=50), mover_expires_at=now + timedelta(seconds=30),
    )  # fmt: skip
    began = now - timedelta(minutes=4)
    copied = {
        "at": began.isoformat(), "step": "copying", "words": "Copied 6.2 GiB of 20 GiB. It is the first point.",
        "is_good": True,
    }  # fmt: skip
    values = {
        "version": version, "source": copy, "vault": made.vault, "name": "Debian-12-v2", "requested_by": house.dana,
        "group": uuid4(), "step_since": began,
    }  # fmt: skip
    going = Publication.objects.create(
        hypervisor=there, storage="fast", step="landing", landing=run, report=[copied], **values
    )
    error = "No room for disk vda on kvm-03. Make room in its storage or choose another one."
    lost = {"at": now.isoformat(), "step": "landing", "words": error, "is_good": False}
    full = Hypervisor.objects.get(name="kvm-03")
    Publication.objects.create(
        hypervisor=full, storage="slow", step="landing", state="failed", error=error, finished_at=now,
        report=[copied, lost], **values,
    )  # fmt: skip
    return going, version


def more_replication(hypervisor: Hypervisor, furniture: Furniture, number: int) -> None:
    """Another row of everything that replication's lists show."""
    now = timezone.now()
    vault = Vault.objects.create(name=f"Vault {number}", kind="folder", location={"path": f"/srv/{number}"})
    policy = ReplicationPolicy.objects.create(name=f"Policy {number}", vault=vault, interval_s=3600, rpo_s=7200)
    for owner in (policy, furniture.policy):
        source = ReplicationSource.objects.create(
            policy=owner, hypervisor=hypervisor, platform_id=f"machine-{number}", name=f"machine-{number}",
            newest_at=now, breaks_at=now - timedelta(minutes=1),
        )  # fmt: skip
        RpoBreach.objects.create(source=source, since=now - timedelta(hours=1))
        run = {"source": source, "vault": vault, "hypervisor": hypervisor, "subject": source.name}
        ReplicationRun.objects.create(kind="replicate", state="running", started_at=now, **run)
        ReplicationRun.objects.create(kind="replicate", state="done", started_at=now, **run)
        point = RecoveryPoint.objects.create(
            vault=vault, source=source, machine_name=source.name, consistency="off", taken_at=now, committed_at=now,
            size_bytes=1, new_bytes=1,
        )  # fmt: skip
        Failover.objects.create(
            kind="test", subject=source.name, vault=vault, point=point, hypervisor=furniture.elsewhere,
            step_since=now, group=furniture.group,
        )  # fmt: skip
    ReplicationChoice.objects.create(
        policy=furniture.policy, kind="machine", hypervisor=hypervisor, platform_id=f"machine-{number}"
    )


def pushed(house: Estate) -> Push:
    """Of the office's own version; what was before lies there too."""
    before = TemplateVersion.objects.create(template=house.copy.version.template, number=0)
    old = TemplateCopy.objects.create(
        version=before, hypervisor=house.hypervisor, platform_id="golden-0", name="golden-0", vcpus=1, memory_mib=512
    )
    now = timezone.now()
    failed = {"desktop": str(house.desktop.pk), "name": "office-009", "at": now.isoformat(), "words": "No answer."}
    row = Push.objects.create(
        pool=house.pool, version=house.copy.version, before=before, state="running", starts_at=now, created_at=now,
        started_at=now, failures=[failed], requested_by=house.dana,
    )  # fmt: skip
    PushPlace.objects.create(push=row, member=house.pool.members.get(), before=old)
    return row


def furnish(house: Estate) -> Furniture:
    now = timezone.now()
    kvm = house.hypervisor
    Hypervisor.objects.filter(pk=kvm.pk).update(
        product="libvirt 9.0.0, QEMU 7.2.22",
        complete_at=now - timedelta(seconds=40),
        settings={"transport": "tls", "address": "kvm-01.example.net", "user": "deskyard"},
        warnings=["The storage pool “default” is not started at boot."],
    )
    host = Host.objects.create(
        hypervisor=kvm, platform_id="kvm-01", name="kvm-01.example.net", vcpus=16, memory_mib=64 * GIB, used_vcpus=40,
        used_memory_mib=31 * GIB, reserved_vcpus=4, reserved_memory_mib=4 * GIB, seen_at=now,
    )  # fmt: skip
    Storage.objects.create(
        hypervisor=kvm, platform_id="default", name="default", capacity_mib=900 * GIB, free_mib=410 * GIB, seen_at=now
    )
    nat = Network.objects.create(hypervisor=kvm, platform_id="default", name="default", kind="nat", seen_at=now)
    network = LogicalNetwork.objects.create(name="Exams", description="No way out.", wants_isolation=True)
    NetworkMapping.objects.create(logical=network, hypervisor=kvm, network=nat)
    doubtful = Hypervisor.objects.create(
        name="esx-cluster", kind="kvm", status="doubt", status_since=now, doubt=["gone-1", "gone-2"],
        status_reason="2 of 9 machines are missing from two listings.", product="libvirt 9.0.0",
    )  # fmt: skip
    machine(doubtful, "lost-1", platform_id="gone-1")
    Hypervisor.objects.create(
        name="kvm-03", kind="kvm", status="down", status_since=now, retry_at=now + timedelta(seconds=30),
        status_reason="Cannot reach kvm-03.example.net: no answer in 10 s. Check the address and port 16514.",
    )  # fmt: skip
    ours = str(Installation.objects.values_list("pk", flat=True).get())
    image = machine(
        kvm, "golden-win11", power="off", is_template=True, template_disk_mib=40 * GIB, template_storage="default"
    )
    machine(kvm, "golden", platform_id="golden", power="off", is_template=True)
    machine(kvm, "golden-broken", power="off", is_template=True, template_cannot="It has a snapshot.")
    machine(kvm, house.desktop.name, platform_id=house.desktop.machine_id, stamp_installation=ours, host=host)
    Desktop.objects.filter(pk=house.desktop.pk).update(
        addresses=["192.168.122.41"], disks=["/var/lib/libvirt/images/office-001-a1b2.qcow2"], observed_at=now,
        why=[
            {"target": "kvm-01", "chosen": True, "score": 61.2,
             "reasons": ["Host kvm-01: weight 100, 61 % free after it, 4 desktops of this pool there: score 61.2."]},
            {"target": "kvm-03", "chosen": False, "score": 0, "reasons": ["kvm-03 is down."]},
        ],
    )  # fmt: skip
    ScreenSession.objects.create(
        desktop=house.desktop, user=house.alice, epoch=2, protocol="vnc", started_at=now, seen_at=now
    )
    session = DesktopSession.objects.create(
        desktop=house.desktop, user=house.alice, epoch=2, state="connected", state_since=now - timedelta(minutes=40),
        began_at=now - timedelta(hours=3), input_at=now, address="192.0.2.41", guest_user="alice", had_user=True,
    )  # fmt: skip
    DesktopSession.objects.create(
        desktop=house.desktop, user=house.alice, epoch=2, state="logged_off", state_since=now - timedelta(days=1),
        began_at=now - timedelta(days=2), input_at=now - timedelta(days=1), closed_at=now - timedelta(days=1),
        address="192.0.2.40", client="native", ended_at=now - timedelta(days=1),
        end_reason="Nobody came back to it in time.",
    )  # fmt: skip
    house.make(name="office-002")
    house.make(name="office-003", power="off", is_answering=False)
    house.make(name="office-004", is_answering=False)
    house.make(name="office-005", is_in_maintenance=True)
    building = house.make(name="office-006", state=State.BUILDING, machine_id="", clean_epoch=0, power="unknown")
    preparing = house.make(name="office-007", state=State.PREPARING, clean_epoch=0, is_answering=False)
    failed_desktop = house.make(
        name="office-008", state=State.FAILED, clean_epoch=0, failure="The storage default on kvm-01 is full."
    )
    missing = house.make(name="office-009", state=State.MISSING, clean_epoch=0)
    house.make(name="office-010", state=State.RETIRING, clean_epoch=0)
    house.make(name="office-011", state=State.GONE, clean_epoch=0)
    running = operation(kvm, building, kind="clone", state="running", step="Creating the disk", percent=40, sent_at=now)
    queued = operation(kvm, preparing, state="queued", parameters={"action": "on"}, requested_by=house.dana)
    failed = operation(
        kvm, failed_desktop, state="failed", parameters={"action": "reboot"}, requested_by=house.dana, attempt=3,
        error="office-008 did not restart: its guest did not react.",
        platform_words="internal error: guest agent is not connected",
        sent_at=now - timedelta(minutes=3), finished_at=now, epoch=failed_desktop.epoch,
    )  # fmt: skip
    operation(kvm, house.desktop, kind="clone", state="done", finished_at=now, created_at=now - timedelta(seconds=18))
    operation(kvm, house.desktop, kind="screen", state="cancelled", changes=False, finished_at=now)
    Event.objects.create(at=now, kind="desktop.claimed", message="Claimed by alice.", desktop=house.desktop)
    Event.objects.create(
        at=now, kind="operation.failed", message="Attempt 3 failed.", level="error", operation=failed, hypervisor=kvm
    )
    AuditEntry.objects.create(
        at=now, actor=house.dana, actor_name="dana", action="pool.change", noun="pool", object_id=str(house.pool.pk),
        object_name="Office", changes={"spare": [2, 4], "description": ["", "Word processing and mail"]},
    )  # fmt: skip
    held_pool = house.open_pool(
        "Classroom", network=network, spare=5, maximum=40, hold_reason="30 desktops were deleted in the last hour."
    )
    house.open_pool("Laboratory", spare=0, is_enabled=False)
    waiting = Request.objects.create(
        pool=held_pool, user=house.bob, state=Request.State.APPROVED, created_at=now, reason="No desktop is available."
    )
    to_decide = Request.objects.create(
        pool=held_pool, user=house.alice, state=Request.State.WAITING, created_at=now, why="Accounts of November.",
        asked_h=72, reason="Those who look after this pool decide on it.",
    )  # fmt: skip
    owner = PoolOwner.objects.create(pool=held_pool, group=house.staff)
    Pool.objects.filter(pk=house.pool.pk).update(
        approval="owners", trusted_group=house.staff, asks_why="required", asks_how_long=True, lease_h=168, renewals=2
    )
    Assignment.objects.filter(desktop=house.desktop).update(lease_until=now + timedelta(days=2), told_at=now)
    token = ApiToken.objects.create(
        user=house.dana, name="nightly report", hash="0" * 64, prefix="dy_abcde", scopes=["admin"],
        expires_at=now + timedelta(days=20),
    )  # fmt: skip
    calendar = HolidayCalendar.objects.create(name="Public holidays in Berlin")
    Holiday.objects.create(calendar=calendar, day=(now + timedelta(days=30)).date(), name="A feast")
    HolidayCalendar.objects.create(name="Last year")
    schedule = PowerSchedule.objects.create(
        pool=house.pool, name="Weekday mornings", action="on", reach="share", amount=80, at=time(8, 30),
        weekdays="12345", zone="Europe/Berlin", calendar=calendar, next_run_at=now + timedelta(hours=14),
    )  # fmt: skip
    PowerSchedule.objects.create(
        pool=house.pool, name="Evenings", action="off", at=time(20), weekdays="1234567", zone="Europe/Berlin",
        is_enabled=False,
    )  # fmt: skip
    made = replicated(kvm, house.dana, house.desktop)
    gone = failed_over(house, made)
    publishing, new_version = published(house, made, gone.hypervisor)
    return Furniture(
        host=host,
        network=network,
        image=image,
        left_over=machine(kvm, "office-099", stamp_installation=ours, stamp_key=str(uuid4()), host=host),
        others=machine(kvm, "theirs-001", stamp_installation=str(uuid4()), stamp_key=str(uuid4())),
        unknown=machine(kvm, "file-server", memory_mib=8 * GIB, vcpus=4, host=host),
        running=running,
        queued=queued,
        failed=failed,
        failed_desktop=failed_desktop,
        missing=missing,
        doubtful=doubtful,
        held_pool=held_pool,
        waiting=waiting,
        to_decide=to_decide,
        owner=owner,
        token=token,
        schedule=schedule,
        calendar=calendar,
        vault=made.vault,
        policy=made.policy,
        choice=made.choice,
        source=made.source,
        run=made.run,
        point=made.point,
        elsewhere=gone.hypervisor,
        own_pool=gone.pool,
        moving=gone.moving,
        moved=gone.moved,
        left_behind=gone.left_behind,
        tested=gone.tested,
        group=gone.group,
        stranded=gone.stranded,
        publishing=publishing,
        session=session,
        push=pushed(house),
        new_version=new_version,
        application=application_of(gone.pool, house),
        session_host=session_host_of(house),
    )
