"""Whether machines that go somewhere together find room there, in order. Plain rules.

An estimate: disks count as large as they may grow, and platforms place machines by rules of their own. So what does
not fit is said and not forbidden: in an emergency one would rather try.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.domain.sizes import size_in_words

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Need:
    """What one machine takes there."""

    disk_mib: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Room:
    """What is free there now."""

    storage: str
    storage_mib: int
    hosts: Sequence[int]
    """Free memory of each host that takes machines, in MiB; none: nothing is known of hosts."""


def shortages(needs: Sequence[Need], room: Room) -> list[str]:
    """One for each need, in order: what it lacks, in a sentence; empty if it fits. What fits takes its room from those
    that follow, each on the host with most free memory."""
    left_mib, hosts = room.storage_mib, list(room.hosts)
    found = []
    for need in needs:
        lacks = []
        if need.disk_mib > left_mib:
            has, wants = size_in_words(max(left_mib, 0) * MIB), size_in_words(need.disk_mib * MIB)
            lacks.append(f"{room.storage} has {has} left for it, and its disks may take {wants}.")
        if hosts and need.memory_mib > max(hosts):
            has, wants = size_in_words(max(*hosts, 0) * MIB), size_in_words(need.memory_mib * MIB)
            lacks.append(f"No host has more than {has} of memory left for it, and it needs {wants}.")
        if not lacks:
            left_mib -= need.disk_mib
            if hosts:
                hosts[hosts.index(max(hosts))] -= need.memory_mib
        found.append(" ".join(lacks))
    return found
