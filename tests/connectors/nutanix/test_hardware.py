"""Machines of recovery points and AHV's: what real servers leave out, and what other makers call things."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.errors import Unsupported
from connectors.nutanix.hardware import (
    Machine,
    can_quiesce,
    decide,
    macs_of,
    read_configuration,
    read_disks,
    usable_mac,
)
from disks.vault.points import Configuration, Drive, Nic

MIB = 1 << 20


def vm_disk(bus: str | None, index: int | None, **backing: Any) -> dict[str, Any]:
    address = {name: value for name, value in (("busType", bus), ("index", index)) if value is not None}
    told = {"$objectType": "vmm.v4.ahv.config.VmDisk", "diskExtId": f"{bus}{index}", "diskSizeBytes": MIB, **backing}
    return {"diskAddress": address, "backingInfo": told}


def test_a_machine_is_read_however_little_is_told_of_it() -> None:
    assert read_disks({}) == []
    assert read_disks({"disks": None}) == []
    (disk,) = read_disks({"disks": [{}]})
    assert (disk.name, disk.size, disk.is_volume_group) == ("scsi-0", 0, False)
    found = read_configuration({"numSockets": 2}, [], {})
    assert (found.vcpus, found.firmware, found.secure_boot, found.nics) == (2, "bios", False, ())


def test_disks_are_called_by_their_places_and_their_buses_by_what_they_are() -> None:
    seen = {"disks": [vm_disk("SCSI", 1), vm_disk("PCI", 0), vm_disk("SATA", 2), vm_disk("SPAPR", 0)]}
    disks = read_disks(seen)
    assert [disk.name for disk in disks] == ["scsi-1", "pci-0", "sata-2", "spapr-0"]
    told = read_configuration(seen, disks, {}).disks
    assert [drive.bus for drive in told] == ["virtio-scsi", "virtio", "sata", "spapr"]


@pytest.mark.parametrize("names", [("backingInfo", "networkInfo"), ("nicBackingInfo", "nicNetworkInfo")])
def test_cards_are_read_in_both_spellings(names: tuple[str, str]) -> None:
    backing, info = names
    nic = {backing: {"macAddress": "50:6B:8D:00:00:01"}, info: {"subnet": {"extId": "net"}}}
    assert read_configuration({"nics": [nic]}, [], {"net": "desktops"}).nics == (
        Nic("virtio", "50:6B:8D:00:00:01", "desktops"),
    )
    assert macs_of({"nics": [nic]}) == ["50:6b:8d:00:00:01"]


def test_secure_boot_counts_with_uefi_alone() -> None:
    for kind, expected in (("UefiBoot", ("uefi", True)), ("LegacyBoot", ("bios", False))):
        boot = {"$objectType": f"vmm.v4.ahv.config.{kind}", "isSecureBootEnabled": True}
        found = read_configuration({"bootConfig": boot}, [], {})
        assert (found.firmware, found.secure_boot) == expected


def test_only_tools_that_answer_and_can_bring_a_guest_to_rest_are_asked_to() -> None:
    able = {"isInstalled": True, "isReachable": True, "capabilities": ["VSS_SNAPSHOT"]}
    assert can_quiesce({"guestTools": able})
    for wrong in ({"isReachable": False}, {"isInstalled": None}, {"capabilities": None}, {"capabilities": ["OTHER"]}):
        assert not can_quiesce({"guestTools": able | wrong})
    assert not can_quiesce({})


@pytest.mark.parametrize(
    ("told", "mac"),
    [
        ("52:54:00:AB:CD:EF", "52:54:00:ab:cd:ef"),
        ("52-54-00-ab-cd-ef", "52:54:00:ab:cd:ef"),
        ("525400abcdef", "52:54:00:ab:cd:ef"),
        ("53:54:00:ab:cd:ef", ""),  # of a group
        ("00:00:00:00:00:00", ""),
        ("", ""),
        ("none of these", ""),
    ],
)
def test_an_address_is_kept_if_it_can_be_a_cards_own(told: str, mac: str) -> None:
    assert usable_mac(told) == mac


def decided(*drives: Drive, nics: tuple[Nic, ...] = (), spare: str = "spare", **more: Any) -> Machine:
    wished = Configuration(vcpus=1, memory_mib=1, firmware="bios", disks=drives, nics=nics)
    return decide(wished, more.get("networks", ()), spare, more.get("booted_on", ()), frozenset())


def test_a_card_without_network_is_filed_somewhere_or_left_out_and_said() -> None:
    machine = decided(Drive("a", "sata", MIB), nics=(Nic("virtio", "", "LAN"),))
    assert [(nic.subnet, nic.is_connected) for nic in machine.nics] == [("spare", False)]
    machine = decided(Drive("a", "sata", MIB), nics=(Nic("virtio", "", "LAN"),), spare="")
    assert machine.nics == ()
    assert "Network card 1 is left out" in machine.warnings[0]


def test_more_disks_than_there_are_safe_places_go_on_scsi_and_too_many_are_refused() -> None:
    machine = decided(*(Drive(f"d{number}", "nvme", MIB) for number in range(20)))
    places = [(disk.bus, disk.index) for disk in machine.disks]
    assert len(set(places)) == 20
    assert places[0] == ("SATA", 0)
    assert {bus for bus, _ in places} == {"SATA", "IDE", "PCI", "SCSI"}
    with pytest.raises(Unsupported, match="more disks than AHV takes: 300"):
        decided(*(Drive(f"d{number}", "nvme", MIB) for number in range(300)))
