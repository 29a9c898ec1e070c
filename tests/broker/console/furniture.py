"""A house in which something of everything has happened, so that every page of the console has something to show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time, timedelta
from uuid import uuid4

from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import (
    ApiToken,
    AuditEntry,
    Desktop,
    Event,
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
    PowerSchedule,
    Request,
    ScreenSession,
    Storage,
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
    token: ApiToken
    schedule: PowerSchedule
    calendar: HolidayCalendar


def machine(hypervisor: Hypervisor, name: str, **fields: object) -> Machine:
    values: dict[str, object] = {"power": "on", "vcpus": 1, "memory_mib": 512, "platform_id": str(uuid4())}
    return Machine.objects.create(hypervisor=hypervisor, name=name, seen_at=timezone.now(), **(values | fields))


def operation(hypervisor: Hypervisor, desktop: Desktop | None = None, **fields: object) -> Operation:
    now = timezone.now()
    values: dict[str, object] = {"kind": "power", "created_at": now, "deadline_at": now + timedelta(minutes=15)}
    return Operation.objects.create(hypervisor=hypervisor, desktop=desktop, **(values | fields))


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
        token=token,
        schedule=schedule,
        calendar=calendar,
    )
