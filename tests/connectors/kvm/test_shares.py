"""Shares of a host: as libvirt hands them to cgroups where there are any, refused in words where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import libvirt
import pytest

from connectors.base import MachineRef, ResourceShare, ShareResources, Stage, Stamp, Surroundings
from connectors.errors import Unsupported
from connectors.kvm.connector import KvmConnector
from connectors.kvm.settings import KvmSettings
from tests.connectors.contract import OURS, clone, do, made, new_key, ref, refuse, submit
from tests.connectors.kvm.worlds import NAMESPACE, LibvirtWorld

SMALL = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>2</vcpu>
<metadata><d:machine xmlns:d='{namespace}' installation='{installation}' key='{key}' role='machine'/></metadata>
<os><type arch='x86_64'>hvm</type></os></domain>"""


@pytest.fixture
def running(system_libvirt: str) -> Iterator[tuple[Any, MachineRef]]:
    """A machine of ours without disks that runs on the machine's own libvirt, which has cgroups."""
    connection: Any = libvirt.open(system_libvirt)
    key = new_key()
    xml = SMALL.format(name=f"share-{uuid4().hex[:8]}", namespace=NAMESPACE, installation=OURS, key=key)
    domain = connection.defineXML(xml)
    try:
        domain.create()
        yield domain, MachineRef(domain.UUIDString(), Stamp(OURS, key))
    finally:
        if domain.isActive():
            domain.destroy()
        domain.undefine()
        connection.close()


def test_a_running_machine_gets_its_weight_on_the_hosts_own_scale_now_and_for_good(
    running: tuple[Any, MachineRef], tmp_path: Path
) -> None:
    domain, machine = running
    plain = domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)["cpu_shares"]
    connector = KvmConnector(KvmSettings(transport="local"), Surroundings(installation=OURS, workdir=tmp_path))
    try:
        order = ShareResources(key=new_key(), machine=machine, share=ResourceShare(weight=200, cpu_limit_percent=40))
        outcome = submit(connector, [order])[order.key]
        assert outcome.stage is Stage.DONE, outcome.error
        for flag in (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG):
            seen = domain.schedulerParametersFlags(flag)
            assert seen["cpu_shares"] == 2 * plain
            assert seen["vcpu_quota"] / seen["vcpu_period"] == 0.4
        order = ShareResources(key=new_key(), machine=machine, share=ResourceShare())
        assert submit(connector, [order])[order.key].stage is Stage.DONE
        seen = domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE)
        assert seen["vcpu_quota"] < 0
    finally:
        connector.close()


def test_a_host_without_cgroups_refuses_in_words_and_its_machines_still_start(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real, power_on=True)))
    asleep = ref(real, made(real, connector, clone(real)))
    for one in (machine, asleep):
        order = ShareResources(key=new_key(), machine=one, share=ResourceShare(weight=200))
        error = refuse(real, connector, order)
        assert isinstance(error, Unsupported)
        assert "no CPU cgroup there" in error.message
    do(real, connector, clone(real, power_on=True))
    assert real.share(machine.id) == ResourceShare()
