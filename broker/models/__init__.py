"""Tables, constraints, querysets: nothing here decides or acts. One file a noun; each model is importable from here."""

from broker.models.applications import Application
from broker.models.assignments import Assignment
from broker.models.audit import AuditEntry, Event
from broker.models.desktops import Desktop
from broker.models.entitlements import Entitlement
from broker.models.failovers import Failover
from broker.models.hypervisors import Host, Hypervisor, Lease, Machine, MachineTag, Network, Storage
from broker.models.installation import FileSigner, Installation
from broker.models.networks import LogicalNetwork, NetworkMapping
from broker.models.notices import Favourite, Mail, Notice, Preferences
from broker.models.operations import Operation
from broker.models.owners import PoolOwner
from broker.models.people import ApiToken, StaffRole
from broker.models.pools import Pool, PoolMember
from broker.models.publications import Publication
from broker.models.pushes import Push, PushPlace, PushTold
from broker.models.replication import (
    RecoveryPoint,
    ReplicationChoice,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    RpoBreach,
    Vault,
)
from broker.models.requests import Request
from broker.models.samples import Sample
from broker.models.schedules import Holiday, HolidayCalendar, PowerSchedule
from broker.models.sessions import Client, DesktopSession, Device, GuestCertificate, ScreenSession, Ticket
from broker.models.standbys import Standby
from broker.models.submissions import Submission
from broker.models.templates import Template, TemplateCopy, TemplateVersion

__all__ = [
    "ApiToken",
    "Application",
    "Assignment",
    "AuditEntry",
    "Client",
    "Desktop",
    "DesktopSession",
    "Device",
    "Entitlement",
    "Event",
    "Failover",
    "Favourite",
    "FileSigner",
    "GuestCertificate",
    "Holiday",
    "HolidayCalendar",
    "Host",
    "Hypervisor",
    "Installation",
    "Lease",
    "LogicalNetwork",
    "Machine",
    "MachineTag",
    "Mail",
    "Network",
    "NetworkMapping",
    "Notice",
    "Operation",
    "Pool",
    "PoolMember",
    "PoolOwner",
    "PowerSchedule",
    "Preferences",
    "Publication",
    "Push",
    "PushPlace",
    "PushTold",
    "RecoveryPoint",
    "ReplicationChoice",
    "ReplicationPolicy",
    "ReplicationRun",
    "ReplicationSource",
    "Request",
    "RpoBreach",
    "Sample",
    "ScreenSession",
    "StaffRole",
    "Standby",
    "Storage",
    "Submission",
    "Template",
    "TemplateCopy",
    "TemplateVersion",
    "Ticket",
    "Vault",
]
