"""ShareResources: CPU shares and a CPU limit, by libvirt's scheduler parameters.

libvirt hands both to the host's cgroups: `cpu_shares` as they are, and `vcpu_quota` in each `vcpu_period` for every
vCPU (https://libvirt.org/formatdomain.html#cpu-tuning; seen on libvirt 9.0). What a machine has of which nothing was
said is 1024 on cgroups v1 and 100 on v2, so a weight is a part of that. QEMU's driver knows no reservation of CPU and
neither a weight nor a guarantee of memory: those are left out.
"""

from __future__ import annotations

import libvirt

from connectors.base import Outcome, ShareResources
from connectors.errors import Unsupported
from connectors.kvm import mapping
from connectors.kvm.work import Domain, Work

PLAIN_V2 = 100
"""What a machine weighs by itself on cgroups v2: assumed where no machine runs that tells."""
PERIOD_US = 100_000
NO_LIMIT = -1
NEIGHBOURS = 20
"""Running machines that are asked for what they weigh by themselves."""


def share(work: Work[ShareResources]) -> Outcome:
    """Set it for the machine as it is defined and, if it is on, as it runs. Raises `Unsupported` without cgroups:
    a definition with shares could not even be switched on there."""
    work.begin("Looking at the machine")
    domain, seen = work.ours(work.order.machine)
    plain = _plain_shares(work, domain)
    wish = work.order.share
    values = {
        "cpu_shares": max(1, wish.weight * plain // 100),
        "vcpu_period": PERIOD_US,
        "vcpu_quota": NO_LIMIT if wish.cpu_limit_percent >= 100 else PERIOD_US * wish.cpu_limit_percent // 100,
    }
    work.begin("Setting its share of the host")
    try:
        # As it runs first: where that cannot be done, the definition stays as it was. Not both in one call, since
        # libvirt's Python binding asks for the parameters' types with the same flags, which then exclude each other.
        if domain.isActive():
            domain.setSchedulerParametersFlags(dict(values), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        domain.setSchedulerParametersFlags(values, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    except libvirt.libvirtError as error:
        if _tells_no_cgroups(error):
            raise _refusal(error, seen.name) from error
        raise
    return work.done()


def _plain_shares(work: Work[ShareResources], domain: Domain) -> int:
    """What a machine weighs of which nothing was said, as one that runs shows it."""
    running = work.connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)[:NEIGHBOURS]
    for other in (domain, *running):
        work.begin("Looking at what machines weigh there")
        try:
            if other.isActive() and not mapping.has_shares(other.XMLDesc()):
                return int(other.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)["cpu_shares"])
        except libvirt.libvirtError as error:
            if _tells_no_cgroups(error):
                raise _refusal(error, domain.name()) from error
            if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                raise
    return PLAIN_V2


def _tells_no_cgroups(error: libvirt.libvirtError) -> bool:
    return "cgroup" in str(error) or "session mode" in str(error)


def _refusal(error: libvirt.libvirtError, name: str) -> Unsupported:
    return Unsupported(
        f"The host of {name!r} shares its CPU by no weights: libvirt has no CPU cgroup there. Nothing was changed.",
        platform_words=str(error),
    )
