"""The contract between the broker and every hypervisor: orders, outcomes, inventory. Data only, no I/O.

A connector is handed *orders*, answers each with *outcomes*, and describes what the platform shows as an *inventory*.
No call waits for the platform to finish something, and none lasts longer than its deadline (a `time.monotonic()`
value): long work is answered with RUNNING and a receipt, and `poll` judges it later by what the platform shows, in
this process or in another one.

Every order is idempotent under its key. `attempt > 1` means that an earlier attempt may have reached the platform:
the connector looks for its traces (stamp, derived name or uuid) before it acts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from connectors.errors import ConnectorError

# --- words shared by all platforms -----------------------------------------------------------------------------------


class Power(StrEnum):
    """What the platform shows of a machine's power."""

    ON = "on"
    OFF = "off"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"


class PowerAction(StrEnum):
    """What can be asked of a machine's power."""

    ON = "on"
    OFF = "off"
    """Power cut at once."""
    SHUTDOWN = "shutdown"
    """The guest is asked; after `grace_s` the power is cut."""
    REBOOT = "reboot"
    """The guest is asked to restart."""
    RESET = "reset"
    """The hard reset button."""
    SUSPEND = "suspend"
    RESUME = "resume"


class Agent(StrEnum):
    """Whether the guest's own agent has answered. An open screen or the power being on proves nothing."""

    ANSWERING = "answering"
    SILENT = "silent"
    ABSENT = "absent"
    """The machine has no agent channel at all."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who made a machine: the installation and the key of the order that made it."""

    installation: str
    key: str


@dataclass(frozen=True, slots=True)
class MachineRef:
    """A machine the broker means. Orders that destroy or overwrite re-read both; `Conflict` on a difference."""

    id: str
    """Empty, in `DeleteMachine` alone: whatever the order of the stamp's key made, whole or in part."""
    stamp: Stamp | None = None
    """None only for adopted machines, which carry no stamp of ours."""


@dataclass(frozen=True, slots=True)
class GuestSeed:
    """What the guest is told at its first boot (cloud-init NoCloud or the platform's own way)."""

    hostname: str
    user_data: str = ""
    """A whole `#cloud-config` document, or empty."""
    answer_file: str = field(repr=False, default="")
    """A whole Sysprep answer file (unattend XML) for Windows guests, or empty. May hold a password."""


@dataclass(frozen=True, slots=True)
class ResourceShare:
    """What a machine may claim of a host that is short of something. Each platform has its own scale for it."""

    weight: int = 100
    """Relative to other machines, for CPU and memory: 100 is normal, 200 twice as much. 1 to 10,000."""
    cpu_reservation_percent: int = 0
    """Of the machine's own vCPUs, kept free for it: 0 to 100."""
    cpu_limit_percent: int = 100
    """Of the machine's own vCPUs, never exceeded: 1 to 100."""
    memory_reservation_percent: int = 0
    """Of the machine's own memory, kept for it: 0 to 100."""


# --- orders ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Something the broker wants done. `key` is a UUID string, the same for every attempt."""

    key: str
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneMachine(Order):
    """Make a machine from a template and, if asked, switch it on. Result: `MachineMade`.

    The machine bears the stamp (installation, key). Nothing of the template is changed. On failure nothing is left.
    """

    name: str
    template: str
    linked: bool = True
    """Linked or fast clone if True, full copy otherwise."""
    host: str | None = None
    storage: str | None = None
    """None: where the template's disk lies."""
    vcpus: int | None = None
    memory_mib: int | None = None
    """None: as the template has it."""
    networks: tuple[str, ...] = ()
    """Platform ids of networks, one a NIC in order; empty: as the template has them."""
    seed: GuestSeed | None = None
    power_on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RecycleMachine(Order):
    """Give the machine a fresh disk of the template under the same machine or a new one. Result: `MachineMade`.

    A machine that stays keeps its stamp, a new one bears (installation, key of this order).
    Nothing that a user wrote is reachable afterwards. `MachineMade.disks` is the evidence: new ids.
    """

    machine: MachineRef
    name: str
    template: str
    linked: bool = True
    storage: str | None = None
    seed: GuestSeed | None = None
    power_on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteMachine(Order):
    """Delete a machine with the disks made for it, never the template's. A machine already gone is success.

    With a reference without an id: what is left of a clone order whose outcome nobody knows, if anything is.
    """

    machine: MachineRef


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPower(Order):
    """Bring about a power state. Already there is success (except REBOOT and RESET).

    REBOOT and RESET happen once: an attempt that finds that an earlier one may have acted fails in words.
    """

    machine: MachineRef
    action: PowerAction
    grace_s: int = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeSnapshot(Order):
    """Result: `SnapshotTaken`."""

    machine: MachineRef
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertSnapshot(Order):
    machine: MachineRef
    snapshot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSnapshot(Order):
    """A snapshot already gone is success."""

    machine: MachineRef
    snapshot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconfigure(Order):
    """Change vCPUs or memory; what needs the machine off is refused with `Unsupported` while it is on."""

    machine: MachineRef
    vcpus: int | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareResources(Order):
    """Set the machine's share of its host's CPU and memory; setting what is already set is success.

    A kind whose platform knows no weights does not take this order. What the platform has no word for (a memory
    weight, say) is left out, and the connector's README says so.
    """

    machine: MachineRef
    share: ResourceShare


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenScreen(Order):
    """Make the machine's screen reachable for one viewer for a short time. Result: `ScreenOpened`."""

    machine: MachineRef
    valid_s: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SetGuestPassword(Order):
    """Give an account that the guest knows this password, through the guest itself. Doing so again is success.

    A kind whose platform would need an account in the guest to do so does not take this order. RUNNING as long as the
    guest does not listen, `Conflict` while it is off, `Unsupported` where it never will; what it does not take fails.
    Neither the platform nor the connector keeps the password, and it stands in no receipt, no step and no error.
    """

    machine: MachineRef
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeAcceleration(Order):
    """Boot a tiny guest for at most `limit_s` to learn whether hardware acceleration works. Result: `Probed`.

    The guest is removed in every case.
    """

    limit_s: int = 10


# --- outcomes --------------------------------------------------------------------------------------------------------


class Stage(StrEnum):
    """How far an order is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a connector needs to go on with an order, in any process. Small JSON, opaque to the broker."""

    order: Order
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MachineMade:
    """A machine now stands (and is on, if that was asked)."""

    machine_id: str
    name: str
    disks: tuple[str, ...]
    """Platform ids of the disks that belong to this machine alone."""
    power: Power
    host: str | None = None
    stamp: Stamp | None = None
    """What the machine bears now: a recycled machine that keeps its id keeps its stamp."""


@dataclass(frozen=True, slots=True)
class PowerSet:
    power: Power


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    snapshot_id: str


@dataclass(frozen=True, slots=True)
class ScreenOpened:
    """Where the relay finds the screen. `password` is for this one viewing; store it encrypted or not at all."""

    protocol: str
    """"vnc" (others later)."""
    host: str
    port: int
    password: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class Probed:
    acceleration: str
    """The value the connector's own setting takes, such as "kvm" or "qemu"."""
    reason: str


Result = MachineMade | PowerSet | SnapshotTaken | ScreenOpened | Probed


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one order so far.

    RUNNING carries a receipt (saved as it comes) and, if the connector knows, when it is worth asking again.
    DONE carries the result of orders that have one. FAILED carries the error, as a value: one machine's failure is not
    the batch's.
    """

    key: str
    stage: Stage
    step: str = ""
    """In words for the administrator: "Creating the disk"."""
    percent: int | None = None
    receipt: Mapping[str, object] | None = None
    poll_after_s: float = 1.0
    result: Result | None = None
    error: ConnectorError | None = None


# --- what a platform shows -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Platform:
    """What stands at the other end and what this account may do there."""

    product: str
    version: str
    takes: frozenset[type[Order]]
    """The orders that work here with this account: a subset of the connector's `takes`."""
    warnings: tuple[str, ...] = ()
    """In words: missing rights, doubtful settings."""


@dataclass(frozen=True, slots=True)
class Host:
    id: str
    name: str
    vcpus: int
    memory_mib: int
    is_up: bool = True


@dataclass(frozen=True, slots=True)
class Network:
    id: str
    name: str
    kind: str = ""
    """In the platform's words: "nat", "VLAN 20", "distributed port group"."""
    is_isolated: bool = False
    """The platform itself keeps this network apart: nothing on it reaches anything beyond it."""


@dataclass(frozen=True, slots=True)
class Storage:
    id: str
    name: str
    capacity_mib: int
    free_mib: int
    is_up: bool = True


@dataclass(frozen=True, slots=True)
class Template:
    """Something a machine can be cloned from."""

    id: str
    name: str
    storage: str
    vcpus: int
    memory_mib: int
    disk_mib: int
    cannot: str = ""
    """Why it can't serve as a template, in words; empty if it can."""
    stamp: Stamp | None = None
    """Of one that a landing of ours made, where the platform's convention lets a template bear it."""


@dataclass(frozen=True, slots=True)
class Machine:
    id: str
    name: str
    power: Power
    vcpus: int
    memory_mib: int
    host: str | None = None
    stamp: Stamp | None = None
    agent: Agent = Agent.ABSENT
    addresses: tuple[str, ...] = ()
    """Addresses of the guest itself, best first; no loopback, no link-local."""
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Order class name -> why this machine cannot take it."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reading ended. A hint, bound to the connector object that gave it."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What the platform shows: everything if `complete`, else only what changed since the cursor.

    `partial` names, in words, what could not be read; a partial listing is never complete.
    """

    began_at: datetime
    complete: bool
    cursor: Cursor | None = None
    hosts: tuple[Host, ...] = ()
    machines: tuple[Machine, ...] = ()
    gone: tuple[str, ...] = ()
    """Ids of machines that the platform said are gone (incremental readings only)."""
    templates: tuple[Template, ...] = ()
    networks: tuple[Network, ...] = ()
    storages: tuple[Storage, ...] = ()
    partial: str = ""


# --- the contract ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """Base of every connector's settings. Fields are declared with `setting(...)`, which makes form, help and vault."""

    def require_complete(self) -> None:
        """Raises `Unsupported` naming the first thing that is missing or contradicts another. Does no I/O."""


def setting(
    label: str,
    *,
    help: str = "",
    default: object = "",
    secret: bool = False,
    choices: tuple[tuple[str, str], ...] = (),
    multiline: bool = False,
    when: tuple[str, tuple[str, ...]] | None = None,
) -> Any:
    """Declare a field of a connector's settings. `secret` fields are encrypted at rest and never shown again.

    `when`: another setting and the values of it for which this one matters; forms ask for it only then.
    """
    return field(
        default=default,
        repr=not secret,
        metadata={
            "label": label,
            "help": help,
            "secret": secret,
            "choices": choices,
            "multiline": multiline,
            "when": when,
        },
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the broker gives every connector beside its settings."""

    installation: str
    """Id of this installation: half of every stamp."""
    workdir: Path
    """A private directory (mode 0700) for files that an SDK wants on disk, such as certificates."""
    probe_image: Path | None = None
    """Directory with the tiny guest (`vmlinuz`, `initrd.gz`), if it has been built."""


@runtime_checkable
class Connector(Protocol):
    """One registered hypervisor endpoint. No call waits for the platform to finish; none outlasts its deadline.

    Made with `(settings, surroundings)`, which does no I/O. `submit` and `poll` may be called from one thread,
    `inventory` from another one on a connector object of its own.
    """

    kind: ClassVar[str]
    version: ClassVar[str]
    label: ClassVar[str]
    """What people call it: "KVM (libvirt)"."""
    takes: ClassVar[frozenset[type[Order]]]
    settings: ClassVar[type[Settings]]

    def check(self, deadline: float) -> Platform:
        """Sign in and look. Raises Unreachable, CertificateRejected, CredentialsRejected; Unsupported for settings that
        are incomplete or contradict each other."""
        ...

    def inventory(self, since: Cursor | None, deadline: float) -> Inventory:
        """All there is, or what changed since the cursor if it can be honoured; else a complete listing, marked so."""
        ...

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        """Start orders; one outcome each as it comes. Raises only when the endpoint is lost: orders without an outcome
        are then unknown and come again with a higher attempt."""
        ...

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        """Ask after running orders; may take an order's next step, checking first whether it is already done."""
        ...

    def close(self) -> None:
        """Let go of connections and files. Idempotent; never raises."""
        ...
