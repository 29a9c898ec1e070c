"""What a landed machine is made of, decided without a wire."""

from __future__ import annotations

import pytest

from connectors.errors import Unsupported
from connectors.esxi.hardware import Hardware, decide, usable_mac
from disks.vault.points import Configuration, Drive, Nic

GIB = 1 << 30


def of(
    *buses: str, nics: tuple[Nic, ...] = (), booted_on: tuple[str, ...] = (), taken: frozenset[str] = frozenset()
) -> Hardware:
    drives = tuple(Drive(f"d{number}", bus, GIB) for number, bus in enumerate(buses))
    return decide(Configuration(2, 2050, "bios", nics=nics, disks=drives), (), booted_on, taken)


@pytest.mark.parametrize(
    ("was", "device"),
    [
        ("pvscsi", "ParaVirtualSCSIController0:0"),
        ("vmpvscsi", "ParaVirtualSCSIController0:0"),
        ("lsilogic", "VirtualLsiLogicController0:0"),
        ("lsisas1068", "VirtualLsiLogicSASController0:0"),
        ("SATA_DISK", "VirtualAHCIController0:0"),
        ("NVMe", "VirtualNVMEController0:0"),
        ("ide", "VirtualIDEController0:0"),
        ("virtio", "VirtualAHCIController0:0"),
        ("virtio-scsi", "VirtualAHCIController0:0"),
        ("SCSI", "VirtualAHCIController0:0"),
        ("", "VirtualAHCIController0:0"),
    ],
)
def test_a_disk_hangs_on_what_its_system_knows(was: str, device: str) -> None:
    found = of(was)
    assert found.disks[0].device == device
    is_known = device != "VirtualAHCIController0:0" or was == "SATA_DISK"
    assert any("not known to boot" in warning for warning in found.warnings) != is_known


def test_a_system_that_has_booted_on_another_bus_gets_that() -> None:
    found = of("virtio", booted_on=("nvme",))
    assert found.disks[0].device == "VirtualNVMEController0:0"
    assert not any("not known to boot" in warning for warning in found.warnings)


def test_places_are_those_that_vsphere_has() -> None:
    scsi = of(*["pvscsi"] * 16)
    assert "ParaVirtualSCSIController0:7" not in {disk.device for disk in scsi.disks}, "the controller's own"
    assert scsi.disks[15].device == "ParaVirtualSCSIController1:0"
    mixed = of("pvscsi", "lsilogic", "pvscsi")
    assert [disk.device for disk in mixed.disks] == [
        "ParaVirtualSCSIController0:0", "VirtualLsiLogicController1:0", "ParaVirtualSCSIController0:1",
    ]  # fmt: skip
    ide = of(*["ide"] * 5)
    assert [disk.device for disk in ide.disks[2:]] == [
        "VirtualIDEController1:0", "VirtualIDEController1:1", "VirtualAHCIController0:0",
    ]  # fmt: skip
    with pytest.raises(Unsupported, match="no place for disk d60"):
        of(*["pvscsi"] * 61)


def test_memory_is_in_steps_that_vsphere_takes_and_secure_boot_needs_uefi() -> None:
    assert of("sata").memory_mib == 2052
    assert not decide(
        Configuration(1, 4, "bios", True, disks=(Drive("a", "ide", GIB),)), (), (), frozenset()
    ).has_secure_boot


@pytest.mark.parametrize(
    ("mac", "usable"),
    [
        ("52:54:00:AB:CD:EF", "52:54:00:ab:cd:ef"),
        ("00-15-5D-00-01-02", "00:15:5d:00:01:02"),
        ("00:50:56:3f:00:01", "00:50:56:3f:00:01"),
        ("00:50:56:40:00:01", ""),
        ("00:50:56:a1:00:01", ""),
        ("00:0c:29:00:00:01", ""),
        ("01:00:5e:00:00:01", ""),
        ("00:00:00:00:00:00", ""),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_a_hardware_address_is_kept_if_vsphere_lets_one_set_it(mac: str, usable: str) -> None:
    assert usable_mac(mac) == usable
    found = of("sata", nics=(Nic("vmxnet3", mac, "net"),))
    assert found.nics[0].mac == usable
    assert any("another hardware address" in warning for warning in found.warnings) == bool(mac and not usable)


def test_an_address_is_given_once() -> None:
    twice = (Nic("e1000e", "52:54:00:00:00:01", ""), Nic("rtl8139", "52:54:00:00:00:01", ""))
    assert [nic.mac for nic in of("sata", nics=twice).nics] == ["52:54:00:00:00:01", ""]
    assert [nic.mac for nic in of("sata", nics=twice, taken=frozenset({"52:54:00:00:00:01"})).nics] == ["", ""]
    assert [nic.kind for nic in of("sata", nics=twice).nics] == ["VirtualE1000e", "VirtualE1000e"]
