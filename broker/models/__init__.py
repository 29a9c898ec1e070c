"""Tables, constraints, querysets: nothing here decides or acts. One file a noun; each model is importable from here."""

from broker.models.assignments import Assignment
from broker.models.audit import AuditEntry, Event
from broker.models.desktops import Desktop
from broker.models.entitlements import Entitlement
from broker.models.failovers import Failover
from broker.models.hypervisors import Host, Hypervisor, Lease, Machine, Network, Storage
from broker.models.installation import Installation
from broker.models.networks import LogicalNetwork, NetworkMapping
from broker.models.operations import Operation
from broker.models.people import ApiToken
from broker.models.pools import Pool, PoolMember
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
from broker.models.schedules import Holiday, HolidayCalendar, PowerSchedule
from broker.models.sessions import ScreenSession, Ticket
from broker.models.templates import Template, TemplateCopy, TemplateVersion

__all__ = [
    "ApiToken",
    "Assignment",
    "AuditEntry",
    "Desktop",
    "Entitlement",
    "Event",
    "Failover",
    "Holiday",
    "HolidayCalendar",
    "Host",
    "Hypervisor",
    "Installation",
    "Lease",
    "LogicalNetwork",
    "Machine",
    "Network",
    "NetworkMapping",
    "Operation",
    "Pool",
    "PoolMember",
    "PowerSchedule",
    "RecoveryPoint",
    "ReplicationChoice",
    "ReplicationPolicy",
    "ReplicationRun",
    "ReplicationSource",
    "Request",
    "RpoBreach",
    "ScreenSession",
    "Storage",
    "Template",
    "TemplateCopy",
    "TemplateVersion",
    "Ticket",
    "Vault",
]
