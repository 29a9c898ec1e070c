"""libvirt's XML <-> our data, without a hypervisor."""

from __future__ import annotations

import pytest
from lxml import etree

from connectors.base import Stamp
from connectors.errors import PlatformFault
from connectors.kvm import mapping
from connectors.kvm.mapping import Blueprint, NewDisk, Role

STAMP = Stamp("inst", "6d0f9a52-6f62-4d6e-9f5e-2f3a5a0f7c11")
NASTY = "a'b\"c<d>&e\n</name><evil/>"

TEMPLATE = """<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>golden</name><uuid>11111111-1111-4111-8111-111111111111</uuid><title>Golden</title><genid>x</genid>
<metadata><other:thing xmlns:other='urn:other'/>
<deskyard:machine xmlns:deskyard='urn:deskyard:machine:1' role='template'/></metadata>
<memory unit='GiB'>2</memory><currentMemory unit='GiB'>1</currentMemory><vcpu placement='static' current='1'>4</vcpu>
<vcpus><vcpu id='0' enabled='yes'/></vcpus><cputune><vcpupin vcpu='3' cpuset='0'/></cputune>
<resource><partition>/machine</partition></resource>
<sysinfo type='smbios'><system><entry name='uuid'>11111111-1111-4111-8111-111111111111</entry></system></sysinfo>
<os><type arch='x86_64' machine='q35'>hvm</type>
<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>
<nvram template='/usr/share/OVMF/OVMF_VARS.fd'>/var/lib/libvirt/qemu/nvram/golden_VARS.fd</nvram><boot dev='hd'/></os>
<features><acpi/></features>
<cpu mode='host-passthrough' migratable='on'><topology sockets='1' cores='4' threads='1'/>
<numa><cell id='0' cpus='0-3' memory='2' unit='GiB'/></numa></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/pool/golden.img' index='1'/>
<backingStore/><target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/pool/tools.iso'/>
<target dev='vdb' bus='virtio'/><readonly/></disk>
<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default' portid='x'/>
<target dev='vnet3'/><model type='e1000e'/><alias name='net0'/></interface>
<serial type='file'><source path='/var/log/golden.log'/><target port='0'/></serial>
<channel type='unix'><source mode='bind' path='/run/golden.agent'/>
<target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
<graphics type='vnc' port='5901' autoport='no' listen='127.0.0.1' passwd='known'>
<listen type='address' address='127.0.0.1'/></graphics></devices></domain>"""


def blueprint(**changes: object) -> Blueprint:
    values: dict[str, object] = {
        "name": "desk-1",
        "uuid": STAMP.key,
        "stamp": STAMP,
        "disks": (NewDisk("vda", "/pool/new.qcow2"),),
        "macs": ("52:00:00:00:00:01", "52:00:00:00:00:02"),
        "virt_type": "kvm",
        "screen_password": "sesame",
    }
    return Blueprint(**(values | changes))  # type: ignore[arg-type]


def cloned(**changes: object) -> etree._Element:
    return etree.fromstring(mapping.clone_xml(TEMPLATE, blueprint(**changes)))


def test_a_template_is_read_as_it_is() -> None:
    seen = mapping.read_domain(TEMPLATE)
    assert (seen.name, seen.vcpus, seen.memory_mib, seen.role) == ("golden", 4, 2048, Role.TEMPLATE)
    assert seen.stamp is None
    assert [disk.target for disk in seen.disks if disk.is_written] == ["vda"]
    assert seen.nics[0].mac == "52:54:00:00:00:01"
    assert seen.agent_channel == "connected"
    assert seen.graphics[0].listen == "127.0.0.1"


def test_a_clone_has_its_own_name_uuid_stamp_and_addresses() -> None:
    seen = mapping.read_domain(mapping.clone_xml(TEMPLATE, blueprint()))
    assert (seen.name, seen.uuid, seen.stamp, seen.role) == ("desk-1", STAMP.key, STAMP, Role.MACHINE)
    assert [nic.mac for nic in seen.nics] == ["52:00:00:00:00:01"]
    assert seen.disks[0].path == "/pool/new.qcow2"
    assert seen.disks[0].format == "qcow2"


def test_no_name_can_break_out_of_the_xml() -> None:
    root = cloned(name=NASTY, stamp=Stamp(NASTY, STAMP.key), seed_path=f"/pool/{NASTY}")
    assert root.findtext("name") == NASTY
    assert root.find("evil") is None
    seen = mapping.read_domain(etree.tostring(root, encoding="unicode"))
    assert seen.stamp == Stamp(NASTY, STAMP.key)
    assert etree.fromstring(mapping.snapshot_xml(NASTY, "key")).findtext("name") == NASTY
    assert etree.fromstring(mapping.overlay_xml("v", 1, NASTY, "qcow2")).findtext("backingStore/path") == NASTY


def test_what_two_machines_cannot_share_is_left_out() -> None:
    root = cloned()
    text = etree.tostring(root, encoding="unicode")
    for shared in ("golden", "/var/log", "/run/", "vnet3", "portid", "alias", "resource", "11111111"):
        assert shared not in text.replace("/usr/share", ""), shared
    assert root.get("id") is None
    assert root.findtext("os/nvram") == "", "a template for the variables, but not the golden machine's own"
    serial = root.find("devices/serial")
    assert serial is not None
    assert serial.get("type") == "pty"


def test_others_metadata_stays() -> None:
    assert cloned().find("metadata/{urn:other}thing") is not None


def test_a_clone_lets_nobody_look_at_its_screen_until_asked() -> None:
    graphics = cloned().find("devices/graphics")
    assert graphics is not None
    assert (graphics.get("port"), graphics.get("autoport"), graphics.get("passwd")) == ("-1", "yes", "sesame")
    assert graphics.get("passwdValidTo") == mapping.VNC_SHUT_UNTIL
    assert graphics.get("listen") == "127.0.0.1"


def test_screens_listen_where_they_are_told() -> None:
    seen = mapping.read_domain(mapping.clone_xml(TEMPLATE, blueprint(screen_listen="10.0.0.7")))
    assert [graphics.listen for graphics in seen.graphics] == ["10.0.0.7"]


def test_a_template_without_vnc_gets_a_screen() -> None:
    bare = TEMPLATE.replace("type='vnc'", "type='spice'")
    seen = mapping.read_domain(mapping.clone_xml(bare, blueprint()))
    assert [graphics.kind for graphics in seen.graphics] == ["spice", "vnc"]


def test_another_size_takes_pins_and_topology_along() -> None:
    root = cloned(vcpus=2, memory_mib=512)
    assert root.findtext("vcpu") == "2"
    assert root.find("vcpus") is None
    assert root.find("cputune") is None
    assert root.find("cpu/topology") is None
    assert root.find("cpu/numa") is None
    assert mapping.read_domain(etree.tostring(root, encoding="unicode")).memory_mib == 512
    assert root.findtext("currentMemory") == "512"


def test_the_templates_own_size_keeps_pins_and_topology() -> None:
    root = cloned(vcpus=4, memory_mib=2048)
    assert root.find("cputune") is not None
    assert root.find("cpu/topology") is not None


def test_emulation_does_not_pass_the_processor_through() -> None:
    root = cloned(virt_type="qemu")
    cpu = root.find("cpu")
    assert cpu is not None
    assert (root.get("type"), cpu.get("mode")) == ("qemu", "maximum")
    assert root.findtext("features/tcg/tb-cache") == "256"


def test_acceleration_knows_no_translation_cache() -> None:
    emulated = mapping.clone_xml(TEMPLATE, blueprint(virt_type="qemu"))
    root = etree.fromstring(mapping.clone_xml(emulated, blueprint(virt_type="kvm")))
    assert root.find("features/tcg") is None
    assert root.get("type") == "kvm"


@pytest.mark.parametrize(("networks", "count"), [(("a",), 1), (("a", "b"), 2)])
def test_networks_make_one_nic_each_in_order(networks: tuple[str, ...], count: int) -> None:
    seen = mapping.read_domain(mapping.clone_xml(TEMPLATE, blueprint(networks=networks)))
    assert [nic.network for nic in seen.nics] == list(networks)
    assert len({nic.mac for nic in seen.nics}) == count


def test_nics_beyond_the_named_networks_are_left_out() -> None:
    second = "<interface type='bridge'><source bridge='br0'/></interface></devices>"
    two = TEMPLATE.replace("</devices>", second)
    assert len(mapping.read_domain(mapping.clone_xml(two, blueprint())).nics) == 2
    assert len(mapping.read_domain(mapping.clone_xml(two, blueprint(networks=("a",)))).nics) == 1


def test_a_seed_is_a_read_only_virtio_disk_on_a_free_place() -> None:
    seen = mapping.read_domain(mapping.clone_xml(TEMPLATE, blueprint(seed_path="/pool/seed.iso")))
    seed = seen.disks[-1]
    assert (seed.target, seed.bus, seed.path, seed.is_readonly) == ("vdc", "virtio", "/pool/seed.iso", True)


def test_a_recycled_machine_keeps_all_but_its_disks() -> None:
    machine = mapping.clone_xml(TEMPLATE, blueprint(seed_path="/pool/old.iso", vcpus=2))
    other_template = TEMPLATE.replace("golden.img", "golden-2.img").replace("'vda'", "'vdq'")
    text = mapping.recycled_xml(machine, other_template, (NewDisk("vdq", "/pool/fresh.qcow2"),), "")
    seen = mapping.read_domain(text)
    assert [disk.path for disk in seen.disks if disk.is_written] == ["/pool/fresh.qcow2"]
    assert "/pool/old.iso" not in text
    assert "/pool/new.qcow2" not in text
    assert (seen.uuid, seen.stamp, seen.vcpus, seen.nics[0].mac) == (STAMP.key, STAMP, 2, "52:00:00:00:00:01")
    assert 'passwd="sesame"' in text


def test_overlays_are_qcow2_version_3() -> None:
    """libvirt's default is version 2, which cannot store the dirty bitmaps that replication needs."""
    volume = etree.fromstring(mapping.overlay_xml("v.qcow2", 64 * 2**20, "/pool/golden.img", "raw"))
    assert volume.findtext("target/compat") == "1.1"
    assert volume.findtext("capacity") == str(64 * 2**20)
    backing = volume.find("backingStore/format")
    assert backing is not None
    assert backing.get("type") == "raw"
    assert etree.fromstring(mapping.copy_xml("v.qcow2", 1)).findtext("target/compat") == "1.1"


def test_addresses_of_a_guest_are_those_a_person_could_use() -> None:
    told = [
        "127.0.0.1",
        "fe80::1",
        "2001:db8::7",
        "169.254.3.4",
        "10.0.0.7",
        "::1",
        "nonsense",
        "10.0.0.7",
        "224.0.0.1",
    ]
    assert mapping.guest_addresses(told) == ("10.0.0.7", "2001:db8::7")


@pytest.mark.parametrize("text", ["", "not xml", "<open>", "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a"])
def test_xml_that_cannot_be_read_is_the_platforms_fault(text: str) -> None:
    with pytest.raises(PlatformFault):
        mapping.read_domain(text)


def test_no_entity_of_a_document_is_followed() -> None:
    text = "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><domain><name>&x;</name><vcpu>1</vcpu></domain>"
    assert mapping.read_domain(text).name == ""


def test_a_snapshot_of_somebody_else_bears_no_key() -> None:
    assert mapping.snapshot_key(mapping.snapshot_xml("a", "key-1")) == "key-1"
    assert mapping.snapshot_key("<domainsnapshot><name>a</name></domainsnapshot>") == ""


def test_the_screens_password_is_set_on_the_vnc_device_alone() -> None:
    spice = "<graphics type='spice' port='5999'/><graphics type='vnc'"
    device = mapping.screen_password_xml(
        TEMPLATE.replace("<graphics type='vnc'", spice), "secret12", "2030-01-01T00:00:00"
    )
    assert device is not None
    root = etree.fromstring(device)
    assert (root.get("type"), root.get("passwd"), root.get("passwdValidTo")) == (
        "vnc",
        "secret12",
        "2030-01-01T00:00:00",
    )
    assert mapping.screen_password_xml("<domain/>", "x", "y") is None


def test_the_throw_away_password_is_not_shown() -> None:
    assert "sesame" not in repr(blueprint())


def test_the_controllers_of_scsi_disks_are_told_apart() -> None:
    xml = """<domain><devices>
<disk><target dev='sda' bus='scsi'/><address type='drive' controller='0' target='0'/></disk>
<disk><target dev='sdb' bus='scsi'/><address type='drive' controller='1' target='0'/></disk>
<disk><target dev='sdc' bus='sata'/><address type='drive' controller='0' target='0'/></disk>
<disk><target dev='vda' bus='virtio'/><address type='pci'/></disk>
<controller type='sata' index='0'/><controller type='scsi' index='0' model='virtio-scsi'/>
<controller type='scsi' index='1'/></devices></domain>"""
    assert mapping.scsi_controllers(xml) == {"sda": "virtio-scsi", "sdb": ""}


@pytest.mark.parametrize(
    ("system", "has_variables"),
    [
        ("<os><nvram>/x</nvram></os>", True),
        ("<os firmware='efi'/>", True),  # libvirt 9.0 says nothing of the store in the definition, and has one
        ("<os firmware='bios'/>", False),
        ("<os/>", False),
    ],
)
def test_uefi_variables_are_known_however_the_firmware_was_chosen(system: str, has_variables: bool) -> None:
    assert mapping.has_uefi_variables(f"<domain>{system}</domain>") == has_variables


def test_a_clone_of_a_machine_that_is_being_read_bears_no_mark_of_that() -> None:
    mark = "<metadata><held:held xmlns:held='urn:deskyard:held:1'/>"
    template = TEMPLATE.replace("<metadata>", mark)
    assert mapping.read_domain(template).is_marked_held
    assert not mapping.read_domain(mapping.clone_xml(template, blueprint())).is_marked_held
    assert not mapping.read_domain(TEMPLATE).is_marked_held


def test_a_storage_pool_says_what_it_is() -> None:
    assert mapping.pool_type("<pool type='netfs'><name>x</name></pool>") == "netfs"
