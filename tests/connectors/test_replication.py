"""What all connectors share when machines move between makers: words for buses, and the choice of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.replication import BUSES, SAFE_BUSES, choose_bus, neutral_bus


@pytest.mark.parametrize(
    ("word", "bus"),
    [
        ("virtio", "virtio"), ("VIRTIO_DISK", "virtio"), ("PCI", "virtio"),
        ("scsi", "scsi"), ("SCSI", "scsi"), ("virtio-scsi", "scsi"), ("pvscsi", "scsi"), ("vmpvscsi", "scsi"),
        ("lsilogic", "scsi"), ("lsilogicsas", "scsi"), ("lsisas1068", "scsi"), ("buslogic", "scsi"),
        ("SCSI_DISK", "scsi"), ("ParaVirtualSCSIController", "scsi"),
        ("sata", "sata"), ("SATA", "sata"), ("ahci", "sata"), ("ide", "ide"), ("IDE_DISK", "ide"), ("nvme", "nvme"),
        ("", ""), ("fdc", ""), ("usb", ""), ("xen", ""),
    ],
)  # fmt: skip
def test_makers_words_for_a_bus_are_understood(word: str, bus: str) -> None:
    assert neutral_bus(word) == bus


@given(st.text())
def test_any_word_is_one_of_the_neutral_ones_or_unknown(word: str) -> None:
    assert neutral_bus(word) in (*BUSES, "")


@pytest.mark.parametrize("bus", BUSES)
def test_a_neutral_word_stays_as_it_is(bus: str) -> None:
    assert neutral_bus(bus) == bus


offers = st.lists(st.sampled_from(BUSES), min_size=1, unique=True)


@given(offers, st.sampled_from((*BUSES, "")), st.lists(st.sampled_from(BUSES)))
def test_the_chosen_bus_is_offered_and_without_a_warning_only_if_the_system_has_booted_on_it(
    offered: list[str], was: str, booted_on: list[str]
) -> None:
    bus, warning = choose_bus(offered, was, booted_on)
    assert bus in offered
    assert (bus in (was, *booted_on)) == (warning == "")
    if was in offered:
        assert bus == was
    if warning and set(SAFE_BUSES) & set(offered):
        assert bus in SAFE_BUSES
