"""Of what a landed machine is made, decided without a host."""

from __future__ import annotations

import dataclasses

import pytest

from connectors.errors import Unsupported
from connectors.hyperv.hardware import Adapter, decide
from disks.vault.points import Configuration, Drive, Nic

MACHINE = Configuration(
    vcpus=1, memory_mib=1024, firmware="bios", nics=(), disks=(Drive("disk-0", "sata", 1 << 30),)
)  # fmt: skip


def test_bios_is_generation_1_and_uefi_generation_2() -> None:
    bios = decide(MACHINE, [], [], [])
    assert (bios.generation, bios.places[0].controller, bios.warnings) == (1, "IDE", ())
    uefi = decide(dataclasses.replace(MACHINE, firmware="uefi"), [], ["scsi"], [])
    assert (uefi.generation, uefi.places[0].controller, uefi.warnings) == (2, "SCSI", ())


@pytest.mark.parametrize("word", ["scsi", "SCSI", "pvscsi", "lsilogic"])
def test_where_the_disks_hung_counts_as_booted_in_every_makers_words(word: str) -> None:
    disks = (Drive("disk-0", word, 1 << 30),)
    assert decide(dataclasses.replace(MACHINE, firmware="uefi", disks=disks), [], [], []).warnings == ()


def test_a_system_that_is_not_known_to_boot_on_scsi_is_told_of() -> None:
    (warning,) = decide(dataclasses.replace(MACHINE, firmware="uefi"), [], [], []).warnings
    assert "not known to boot" in warning


def test_the_dvd_drives_place_stays_free() -> None:
    disks = tuple(Drive(f"disk-{number}", "ide", 1 << 30) for number in range(67))
    places = decide(dataclasses.replace(MACHINE, disks=disks), [], [], []).places
    found = [(it.controller, it.controller_number, it.location) for it in places]
    assert found[:4] == [("IDE", 0, 0), ("IDE", 0, 1), ("IDE", 1, 1), ("SCSI", 0, 0)]
    assert len(set(found)) == 67
    with pytest.raises(Unsupported, match="68 disks, and Hyper-V takes 67"):
        decide(dataclasses.replace(MACHINE, disks=(*disks, disks[0])), [], [], [])


def test_addresses_are_kept_unless_they_are_taken_or_none() -> None:
    nics = tuple(
        Nic("synthetic", mac, "") for mac in ("52:54:00:00:00:0a", "52-54-00-00-00-0B", "01:00:5e:00:00:01", "x")
    )
    build = decide(dataclasses.replace(MACHINE, nics=nics), [("Office", 5)], [], ["52540000000b"])
    assert build.adapters == (
        Adapter("Office", 5, "52540000000A"),
        Adapter("", 0, ""),
        Adapter("", 0, ""),
        Adapter("", 0, ""),
    )
    assert [warning.split()[2] for warning in build.warnings] == ["2", "3", "4"]


def test_a_card_that_the_system_did_not_have_before_is_told_of() -> None:
    """Fixed addresses stay with the old card inside the guest: it comes up without a network."""
    nics = tuple(Nic(model, "", "") for model in ("synthetic", "e1000e", ""))
    first, second = decide(dataclasses.replace(MACHINE, nics=nics), [("Office", 0)] * 4, [], []).warnings
    assert first.startswith("Network adapter 2 is a new one for the system, Hyper-V's own: it was e1000e.")
    assert second.startswith("Network adapter 3 is a new one for the system, Hyper-V's own: it was of no known kind.")


def test_two_adapters_never_share_an_address() -> None:
    nics = (Nic("e1000", "52:54:00:00:00:0a", ""),) * 2
    assert [it.mac for it in decide(dataclasses.replace(MACHINE, nics=nics), [], [], []).adapters] == [
        "52540000000A",
        "",
    ]


def test_more_networks_than_adapters_make_more_adapters() -> None:
    assert len(decide(MACHINE, [("Office", 0), ("Lab", 0)], [], []).adapters) == 2
