"""What a landed machine is made of: decided without any host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Stamp
from connectors.errors import Unsupported
from connectors.kvm import hardware, mapping
from connectors.kvm.hardware import MODERN, OLD, Machine, Offer, choose_macs, decide, disk_name, usable_mac
from connectors.replication import neutral_bus
from disks.vault.points import Configuration, Drive, Nic

OFFERS = {
    MODERN: Offer(frozenset({"virtio", "scsi", "sata", "usb", "fdc"}), has_uefi=True, has_secure_boot=True),
    OLD: Offer(frozenset({"virtio", "scsi", "sata", "ide", "usb", "fdc"}), has_uefi=True, has_secure_boot=False),
}
MIB = 1 << 20
CAPABILITIES = """<domainCapabilities><os supported='yes'><enum name='firmware'>{firmware}</enum>
<loader supported='yes'><enum name='type'><value>rom</value></enum>
<enum name='secure'><value>no</value>{secure}</enum></loader></os>
<devices><disk supported='yes'><enum name='diskDevice'><value>disk</value></enum>
<enum name='bus'><value>scsi</value><value>virtio</value><value>sata</value></enum></disk></devices>
</domainCapabilities>"""


def wished(*buses: str, nics: tuple[Nic, ...] = (), firmware: str = "bios", secure: bool = False) -> Configuration:
    disks = tuple(Drive(f"Disk {number}", bus, 64 * MIB) for number, bus in enumerate(buses or ("virtio",), start=1))
    return Configuration(2, 512, firmware, secure, nics, disks)


def decided(*buses: str, booted_on: tuple[str, ...] = (), **more: object) -> Machine:
    return decide(wished(*buses, **more), OFFERS, (), booted_on)  # type: ignore[arg-type]


def defined(machine: Machine) -> mapping.Element:
    """As it is told to libvirt."""
    macs, _ = choose_macs(machine, "5e0dd0b1-5f0b-4d5f-9a6b-2f6f7c0b4d11", frozenset())
    plan = mapping.Blueprint(
        name="landed",
        uuid="5e0dd0b1-5f0b-4d5f-9a6b-2f6f7c0b4d11",
        stamp=Stamp("ours", "key"),
        disks=tuple(mapping.NewDisk(disk.target, f"/pool/{disk.target}") for disk in machine.disks),
        macs=macs,
        virt_type="kvm",
        screen_password="secret",
    )
    return mapping.parse(mapping.clone_xml(hardware.skeleton_xml(machine), plan))


def test_what_a_host_offers_is_read_from_its_capabilities() -> None:
    told = CAPABILITIES.format(firmware="<value>efi</value>", secure="<value>yes</value>")
    assert hardware.read_offer(told) == Offer(frozenset({"scsi", "virtio", "sata"}), True, True)
    told = CAPABILITIES.format(firmware="", secure="")
    assert hardware.read_offer(told) == Offer(frozenset({"scsi", "virtio", "sata"}), False, False)


# --- buses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "bus", "chipset"),
    [
        ("virtio", "virtio", MODERN),
        ("VIRTIO_DISK", "virtio", MODERN),
        ("SATA", "sata", MODERN),
        ("IDE", "ide", OLD),
        ("pvscsi", "scsi", MODERN),
        ("lsilogicsas", "scsi", MODERN),
        ("virtio-scsi", "scsi", MODERN),
    ],
)
def test_a_disk_hangs_where_it_hung(was: str, bus: str, chipset: str) -> None:
    machine = decided(was)
    assert (machine.disks[0].bus, machine.chipset, machine.warnings) == (bus, chipset, ())


@pytest.mark.parametrize("was", ["SCSI", "lsilogic", "buslogic", "nvme", "floppy", ""])
def test_what_may_be_other_hardware_here_is_no_bus_to_boot_from(was: str) -> None:
    machine = decided(was)
    assert machine.disks[0].bus == "sata"
    assert "not known to boot on virtio" in machine.warnings[0]


def test_a_system_that_has_booted_on_virtio_does_so_again() -> None:
    machine = decided("SCSI", booted_on=("virtio",))
    assert (machine.disks[0].bus, machine.warnings) == ("virtio", ())


def test_a_scsi_disk_gets_the_controller_it_had() -> None:
    controllers = defined(decided("pvscsi", "pvscsi")).findall("devices/controller[@type='scsi']")
    assert [controller.get("model") for controller in controllers] == ["vmpvscsi"]


def test_a_machine_has_one_kind_of_scsi() -> None:
    machine = decided("pvscsi", "lsilogicsas")
    assert [disk.bus for disk in machine.disks] == ["scsi", "sata"]


def test_a_fifth_ide_disk_hangs_on_sata() -> None:
    machine = decided(*["ide"] * 5)
    assert [disk.target for disk in machine.disks] == ["hda", "hdb", "hdc", "hdd", "sda"]


def test_a_uefi_system_that_had_ide_gets_the_chipset_with_secure_boot() -> None:
    assert decided("ide", firmware="uefi", secure=True).chipset == MODERN


words = st.sampled_from(
    ("virtio", "PCI", "SCSI", "pvscsi", "lsilogic", "lsilogicsas", "virtio-scsi", "IDE", "sata", "nvme", "?", "")
)


@given(st.lists(words, min_size=1, max_size=40), st.lists(st.sampled_from(("virtio", "sata", "ide", "scsi"))))
def test_every_disk_has_a_place_of_its_own_on_a_bus_that_the_host_has(buses: list[str], booted_on: list[str]) -> None:
    machine = decided(*buses, booted_on=tuple(booted_on))
    assert [disk.name for disk in machine.disks] == [f"Disk {number + 1}" for number in range(len(buses))]
    assert len({disk.target for disk in machine.disks}) == len(buses)
    for disk, was in zip(machine.disks, buses, strict=True):
        assert disk.bus in OFFERS[machine.chipset].buses
        assert disk.target.startswith(hardware.PREFIXES[disk.bus])
        if disk.bus == "scsi":
            assert hardware.SCSI_CONTROLLERS[was.replace("-", "")] == machine.scsi_controller
        elif neutral_bus(was) != disk.bus and disk.bus not in booted_on:
            assert machine.warnings
    root = defined(machine)
    assert [int(boot.get("order", "0")) for boot in root.iterfind("devices/disk/boot")] == [
        number + 1 for number in range(len(buses))
    ]
    assert {source.get("file") for source in root.iterfind("devices/disk/source")} == {
        f"/pool/{disk.target}" for disk in machine.disks
    }


@given(st.integers(0, 20_000))
def test_disks_are_counted_as_libvirt_counts_them(number: int) -> None:
    """libvirt: virDiskNameToIndex, base 26 without a zero."""
    letters = disk_name("sd", number).removeprefix("sd")
    value = 0
    for letter in letters:
        value = value * 26 + "abcdefghijklmnopqrstuvwxyz".index(letter) + 1
    assert value - 1 == number


# --- firmware --------------------------------------------------------------------------------------------------------


def test_bios_machines_have_no_word_of_firmware() -> None:
    system = defined(decided("virtio")).find("os")
    assert system is not None
    assert (system.get("firmware"), system.find("firmware")) == (None, None)


@pytest.mark.parametrize("secure", [True, False])
def test_uefi_is_asked_for_with_secure_boot_as_it_was(secure: bool) -> None:
    root = defined(decided("virtio", firmware="uefi", secure=secure))
    system = root.find("os")
    assert system is not None
    assert system.get("firmware") == "efi"
    told = {feature.get("name"): feature.get("enabled") for feature in system.iterfind("firmware/feature")}
    assert told == dict.fromkeys(("enrolled-keys", "secure-boot"), "yes" if secure else "no")
    assert (root.find("features/smm") is not None) == secure


def test_secure_boot_that_a_host_lacks_is_left_out_and_said() -> None:
    offers = {MODERN: Offer(frozenset({"virtio"}), has_uefi=True, has_secure_boot=False)}
    machine = decide(wished("virtio", firmware="uefi", secure=True), offers, (), ())
    assert not machine.has_secure_boot
    assert machine.warnings == ("Secure Boot is off: this host has no firmware for it.",)


def test_uefi_that_a_host_lacks_is_refused_in_words() -> None:
    offers = {MODERN: Offer(frozenset({"virtio"}), has_uefi=False, has_secure_boot=False)}
    with pytest.raises(Unsupported, match="no UEFI firmware"):
        decide(wished("virtio", firmware="uefi"), offers, (), ())


# --- the rest --------------------------------------------------------------------------------------------------------


def test_a_point_without_disks_and_a_host_without_machines_are_refused_in_words() -> None:
    with pytest.raises(Unsupported, match="no disk"):
        decide(Configuration(1, 128, "bios"), OFFERS, (), ())
    with pytest.raises(Unsupported, match="no machines of the kind"):
        decide(wished("virtio"), {OLD: OFFERS[OLD]}, (), ())
    with pytest.raises(Unsupported, match="0 network cards, and 1 networks"):
        decide(wished("virtio"), OFFERS, ("default",), ())


@pytest.mark.parametrize(
    ("was", "model"),
    [
        ("virtio", "virtio"), ("vmxnet3", "vmxnet3"), ("VMXNET3", "vmxnet3"), ("e1000", "e1000"), ("e1000e", "e1000e"),
        ("NORMAL_NIC", "virtio"), ("INTEL_E1000", "e1000"), ("RTL8139", "rtl8139"), ("vlance", "pcnet"),
    ],
)  # fmt: skip
def test_a_card_that_qemu_has_too_is_kept(was: str, model: str) -> None:
    machine = decided(nics=(Nic(was, "52:54:00:00:00:01", "LAN"),))
    assert (machine.nics[0].model, machine.warnings) == (model, ())


@pytest.mark.parametrize(("bus", "model"), [("virtio", "e1000e"), ("ide", "e1000")])
def test_a_card_that_qemu_lacks_becomes_one_that_every_system_knows(bus: str, model: str) -> None:
    machine = decided(bus, nics=(Nic("synthetic", "", "LAN"),))
    assert machine.nics[0].model == model
    assert f"Network card 1 is a new one for the system, {model}: it was synthetic." in machine.warnings[0]


def test_a_card_without_a_network_is_on_none() -> None:
    machine = decide(wished(nics=(Nic("virtio", "", "a"), Nic("virtio", "", "b"))), OFFERS, ("default",), ())
    first, second = defined(machine).findall("devices/interface")
    assert mapping.read_domain(mapping._written(defined(machine))).nics[0].network == "default"
    link = second.find("link")
    assert (first.find("link"), second.find("source")) == (None, None)
    assert link is not None
    assert link.get("state") == "down"


@pytest.mark.parametrize(
    ("told", "mac"),
    [
        ("52:54:00:AB:cd:01", "52:54:00:ab:cd:01"), ("00-50-56-11-22-33", "00:50:56:11:22:33"),
        ("0050.5611.2233", "00:50:56:11:22:33"), ("", ""), ("00:00:00:00:00:00", ""), ("01:00:5e:00:00:01", ""),
        ("ff:ff:ff:ff:ff:ff", ""), ("52:54:00:ab:cd", ""), ("52:54:00:ab:cd:zz", ""),
    ],
)  # fmt: skip
def test_addresses_of_cards_are_read_in_every_makers_spelling(told: str, mac: str) -> None:
    assert usable_mac(told) == mac


def test_an_address_is_kept_where_it_is_free_and_new_where_it_is_not() -> None:
    key, mac = "5e0dd0b1-5f0b-4d5f-9a6b-2f6f7c0b4d11", "52:54:00:00:00:01"
    machine = decided(nics=(Nic("virtio", mac, "a"), Nic("virtio", mac, "b"), Nic("virtio", "", "c")))
    (first, second, third), warnings = choose_macs(machine, key, frozenset())
    assert first == mac
    assert len({first, second, third}) == 3
    (warning,) = warnings
    assert f"Network card 2 has another address, {second}" in warning
    (moved, *_), warnings = choose_macs(machine, key, frozenset({mac}))
    assert moved != mac
    assert moved in warnings[0]
    assert choose_macs(machine, key, frozenset({mac})) == choose_macs(machine, key, frozenset({mac}))


def test_a_landed_machine_is_as_ours_are() -> None:
    """Screen shut, agent's channel, size, stamp."""
    xml = mapping._written(defined(decided("virtio")))
    seen = mapping.read_domain(xml)
    assert (seen.vcpus, seen.memory_mib, seen.stamp) == (2, 512, Stamp("ours", "key"))
    assert seen.agent_channel == "disconnected"
    assert [graphics.kind for graphics in seen.graphics] == ["vnc"]
    assert mapping.VNC_SHUT_UNTIL in xml
    topology = mapping.parse(xml).find("cpu/topology")
    assert topology is not None
    assert (topology.get("sockets"), topology.get("cores")) == ("1", "2")
