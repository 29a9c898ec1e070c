"""A libvirt behind a connector's back: the world of the contract checks, on any driver."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt
from lxml import etree

from connectors.base import Connector, ResourceShare, Stamp, Surroundings
from connectors.kvm.connector import KvmConnector
from connectors.kvm.settings import KvmSettings
from tests.connectors.contract import OURS
from tests.support.kvm_hosts import KvmHost

NAMESPACE = "urn:deskyard:machine:1"
"""Written out here, not imported: machines stamped by an earlier release must still be known."""

TEST_URI = "test:///default"
TEST_TEMPLATE = """<domain type='test'><name>golden</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type arch='i686'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/default-pool/golden.qcow2'/>
<target dev='vda' bus='virtio'/></disk>
<interface type='network'><source network='default'/><model type='virtio'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/></devices></domain>"""


class LibvirtWorld:
    """All domains but the template's, all volumes but the template's."""

    def __init__(
        self, uri: str, settings: KvmSettings, workdir: Path, *, probe_image: Path | None = None, limit_s: float = 60
    ) -> None:
        self._uri = uri
        self.conn: Any = libvirt.open(uri)
        self.settings = settings
        self.template = ""
        self.limit_s = limit_s
        self.secrets: tuple[str, ...] = tuple(secret for secret in (settings.password, settings.client_key) if secret)
        self._workdir = workdir
        self._probe_image = probe_image
        self._connectors: list[Connector] = []
        self._mute = socket.create_server(("127.0.0.1", 0))
        self._kept = {"golden.qcow2"}

    def reconnect(self) -> None:
        """After the daemon was restarted."""
        self.conn = libvirt.open(self._uri)

    def connector(self, installation: str = OURS) -> KvmConnector:
        surroundings = Surroundings(installation=installation, workdir=self._workdir, probe_image=self._probe_image)
        connector = KvmConnector(self.settings, surroundings)
        self._connectors.append(connector)
        return connector

    def unreachable(self) -> KvmConnector:
        mute = dataclasses.replace(
            self.settings,
            uri="",
            acceleration="qemu",
            transport="tcp",
            address="127.0.0.1",
            port=self._mute.getsockname()[1],
        )
        connector = KvmConnector(mute, Surroundings(installation=OURS, workdir=self._workdir))
        self._connectors.append(connector)
        return connector

    def machines(self) -> Mapping[str, Stamp | None]:
        return {domain.UUIDString(): stamp_of(domain) for domain in self._domains()}

    def names(self) -> Mapping[str, str]:
        return {domain.UUIDString(): domain.name() for domain in self._domains()}

    def litter(self) -> set[str]:
        return {
            volume.path()
            for pool in self.conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
            for volume in pool.listAllVolumes()
            if volume.name().startswith("deskyard-")
        }

    def restamp(self, machine: str, stamp: Stamp) -> None:
        mark = f"<machine installation='{stamp.installation}' key='{stamp.key}' role='machine'/>"
        domain = self.conn.lookupByUUIDString(machine)
        flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark, "deskyard", NAMESPACE, flags)

    def remove(self, machine: str) -> None:
        self._undefine(self.conn.lookupByUUIDString(machine))
        self._drop_volumes(f"deskyard-{machine}-")

    def share(self, machine: str) -> ResourceShare:
        """As the definition has it, by the scale of cgroups v2."""
        tune = etree.fromstring(self.conn.lookupByUUIDString(machine).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        weight = int(tune.findtext("cputune/shares") or 100)
        quota = int(tune.findtext("cputune/quota") or -1)
        return ResourceShare(weight=weight, cpu_limit_percent=100 if quota < 0 else quota // 1000)

    def wipe(self) -> None:
        for domain in self._domains():
            self._undefine(domain)
        self._drop_volumes("deskyard-")
        for secret in self.conn.listAllSecrets() if self.settings.uri != TEST_URI else ():
            secret.undefine()

    def _undefine(self, domain: Any) -> None:
        is_persistent = domain.isPersistent()
        if domain.isActive():
            domain.destroy()
        if is_persistent:
            flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            if self.settings.uri != TEST_URI:
                flags |= libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            domain.undefineFlags(flags)

    def close(self) -> None:
        for connector in self._connectors:
            connector.close()
        self._mute.close()
        if self.conn.isAlive():
            self.wipe()
            self.conn.close()

    def _domains(self) -> list[Any]:
        kept = {self.template} | {
            domain.UUIDString() for domain in self.conn.listAllDomains() if domain.name() == "heavy"
        }
        return [domain for domain in self.conn.listAllDomains() if domain.UUIDString() not in kept]

    def _drop_volumes(self, prefix: str) -> None:
        for pool in self.conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
            for volume in pool.listAllVolumes():
                if volume.name().startswith(prefix):
                    volume.delete()


def stamp_of(domain: Any) -> Stamp | None:
    """The stamp as libvirt's own metadata call tells it."""
    try:
        xml = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    except libvirt.libvirtError:
        return None
    mark = etree.fromstring(xml)
    return Stamp(mark.get("installation", ""), mark.get("key", ""))


@contextmanager
def driver_world(workdir: Path) -> Iterator[LibvirtWorld]:
    """libvirt's own test driver: no daemon, no bytes, but all the calls; shared by all connections of the process."""
    world = LibvirtWorld(
        TEST_URI, KvmSettings(uri=TEST_URI, acceleration="test", password="hunter2-and-more"), workdir, limit_s=20
    )
    for domain in world.conn.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
    pool = world.conn.storagePoolLookupByName("default-pool")
    for volume in pool.listAllVolumes():
        volume.delete()
    pool.createXML(
        "<volume><name>golden.qcow2</name><capacity unit='MiB'>64</capacity>"
        "<target><format type='qcow2'/></target></volume>"
    )
    world.template = world.conn.defineXML(TEST_TEMPLATE).UUIDString()
    try:
        yield world
    finally:
        world.close()


def host_settings(host: KvmHost) -> KvmSettings:
    """As an administrator would register the host: TLS with certificates and a password."""
    pki = host.client_pki
    return KvmSettings(
        transport="tls",
        address=host.address,
        user=host.tls_user,
        password=host.tls_user_password,
        ca_certificate=(pki / "cacert.pem").read_text(),
        client_certificate=(pki / "clientcert.pem").read_text(),
        client_key=(pki / "clientkey.pem").read_text(),
        acceleration="qemu",
        screen_listen="0.0.0.0",  # noqa: S104 - the guest's screen, inside the laboratory's namespace
    )


def ssh_settings(host: KvmHost) -> KvmSettings:
    """By SSH, the way on which disks can be read."""
    return KvmSettings(
        transport="ssh",
        address=host.address,
        user="root",
        ssh_key=host.ssh_key.read_text(),
        known_hosts=host.known_hosts.read_text(),
        acceleration="qemu",
    )


def local_settings(host: KvmHost) -> KvmSettings:
    """By the host's socket, as if it were this machine's."""
    return KvmSettings(transport="local", socket=str(host.folder / "run" / "libvirt-sock"), acceleration="qemu")


@contextmanager
def host_world(host: KvmHost, workdir: Path, settings: KvmSettings | None = None) -> Iterator[LibvirtWorld]:
    """A laboratory host with real guests."""
    world = LibvirtWorld(host.uri, settings or host_settings(host), workdir, probe_image=host._tiny_image, limit_s=120)
    world.template = world.conn.lookupByName(host.template_name).UUIDString()
    world.wipe()
    try:
        yield world
    finally:
        world.close()
