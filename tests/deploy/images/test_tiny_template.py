from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

from deploy.images.tiny_template import TemplateInUse, define_tiny_template, remove_tiny_template
from tests.support.guests import clone_tiny, remove_clone
from tests.support.kvm_hosts import KvmHosts

NAME = "golden one"


@pytest.fixture
def conn(kvm_hosts: KvmHosts) -> Iterator[libvirt.virConnect]:
    (host,) = kvm_hosts.take(1)
    conn = host.connect()
    yield conn
    remove_tiny_template(conn, "default", NAME)
    conn.close()


@pytest.fixture
def newer_build(tiny_image: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "newer"
    shutil.copytree(tiny_image, folder)
    (folder / "versions").write_text("a newer kernel")
    return folder


def _volumes(conn: libvirt.virConnect) -> dict[str, Any]:
    pool = conn.storagePoolLookupByName("default")
    return {volume.name(): volume for volume in pool.listAllVolumes() if volume.name().startswith(NAME)}


def _definition(conn: libvirt.virConnect) -> etree._Element:
    return etree.fromstring(conn.lookupByName(NAME).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def test_the_template_is_off_and_made_of_volumes_of_the_pool(conn: libvirt.virConnect, tiny_image: Path) -> None:
    uuid = define_tiny_template(conn, tiny_image, "default", "qemu", NAME)

    assert conn.lookupByUUIDString(uuid).name() == NAME
    assert not conn.lookupByName(NAME).isActive()
    paths = {volume.path() for volume in _volumes(conn).values()}
    definition = _definition(conn)
    used = {definition.findtext("os/kernel"), definition.findtext("os/initrd")}
    used |= {source.get("file") for source in definition.iterfind("devices/disk/source")}
    assert used == paths
    assert len(paths) == 3


def test_the_golden_disk_can_hold_dirty_bitmaps(conn: libvirt.virConnect, tiny_image: Path) -> None:
    define_tiny_template(conn, tiny_image, "default", "qemu", NAME)
    (golden,) = (volume for name, volume in _volumes(conn).items() if name.endswith(".qcow2"))
    described = etree.fromstring(golden.XMLDesc())
    assert described.findtext("target/compat") == "1.1"
    assert described.findtext("target/permissions/mode") == "0644"
    assert golden.info()[1] == 64 << 20


def test_defining_it_again_changes_nothing(conn: libvirt.virConnect, tiny_image: Path) -> None:
    first = define_tiny_template(conn, tiny_image, "default", "qemu", NAME)
    before = conn.lookupByName(NAME).XMLDesc()
    assert define_tiny_template(conn, tiny_image, "default", "qemu", NAME) == first
    assert conn.lookupByName(NAME).XMLDesc() == before


def test_the_domain_type_can_be_changed_later(conn: libvirt.virConnect, tiny_image: Path) -> None:
    first = define_tiny_template(conn, tiny_image, "default", "kvm", NAME)
    assert (_definition(conn).get("type"), _definition(conn).find("features/tcg")) == ("kvm", None)
    assert define_tiny_template(conn, tiny_image, "default", "qemu", NAME) == first
    assert _definition(conn).get("type") == "qemu"
    assert _definition(conn).findtext("features/tcg/tb-cache") == "32768"


def test_a_newer_build_keeps_the_uuid_and_what_clones_hang_from(
    conn: libvirt.virConnect, tiny_image: Path, newer_build: Path
) -> None:
    first = define_tiny_template(conn, tiny_image, "default", "qemu", NAME)
    old = set(_volumes(conn))
    assert define_tiny_template(conn, newer_build, "default", "qemu", NAME) == first
    assert old < set(_volumes(conn))


def test_a_half_uploaded_template_is_repaired(conn: libvirt.virConnect, tiny_image: Path, kvm_hosts: KvmHosts) -> None:
    define_tiny_template(conn, tiny_image, "default", "qemu", NAME)
    conn.lookupByName(NAME).undefine()
    (kernel_file,) = kvm_hosts.take(1)[0].images.glob(f"{NAME}-*-vmlinuz")
    os.truncate(kernel_file, 5)

    define_tiny_template(conn, tiny_image, "default", "qemu", NAME)
    (kernel,) = (volume for name, volume in _volumes(conn).items() if name.endswith("-vmlinuz"))
    assert kernel.info()[1] == (tiny_image / "vmlinuz").stat().st_size


def test_a_template_with_clones_is_not_removed(conn: libvirt.virConnect, tiny_image: Path) -> None:
    define_tiny_template(conn, tiny_image, "default", "qemu", NAME)
    clone = clone_tiny(conn, "hangs from it", template=NAME)
    with pytest.raises(TemplateInUse, match=r"hangs from it\.qcow2"):
        remove_tiny_template(conn, "default", NAME)
    assert len(_volumes(conn)) == 3
    remove_clone(clone)


def test_removing_leaves_nothing_of_it_and_everything_else(conn: libvirt.virConnect, tiny_image: Path) -> None:
    pool = conn.storagePoolLookupByName("default")
    others = {volume.name() for volume in pool.listAllVolumes()}
    define_tiny_template(conn, tiny_image, "default", "qemu", NAME)
    neighbour = f"{NAME}-2-0a0a0a0a.qcow2"
    pool.createXML(f"<volume><name>{neighbour}</name><capacity>1</capacity></volume>")

    remove_tiny_template(conn, "default", NAME)
    remove_tiny_template(conn, "default", NAME)

    pool.refresh()
    assert {volume.name() for volume in pool.listAllVolumes()} == others | {neighbour}
    assert NAME not in {domain.name() for domain in conn.listAllDomains()}
    pool.storageVolLookupByName(neighbour).delete()
