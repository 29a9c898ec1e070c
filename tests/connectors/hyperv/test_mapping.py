"""Hyper-V's words and ours. Pure."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
from typing import Any

import pycdlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import (
    Agent,
    CloneMachine,
    GuestSeed,
    MachineRef,
    Network,
    Power,
    ResourceShare,
    SetPower,
    ShareResources,
    Stamp,
    Storage,
)
from connectors.errors import Busy, CapacityExhausted, Conflict, NotFound, PlatformFault, Unsupported
from connectors.hyperv import faults, mapping
from connectors.hyperv.seed import packed, seed_iso
from connectors.hyperv.settings import HypervSettings
from tests.connectors.contract import new_key

SETTINGS = HypervSettings()


@pytest.mark.parametrize(
    ("state", "power"),
    [
        ("Running", Power.ON),
        ("Off", Power.OFF),
        ("Saved", Power.SUSPENDED),
        ("FastSaved", Power.SUSPENDED),
        ("Paused", Power.SUSPENDED),
        ("Starting", Power.ON),
        ("Stopping", Power.ON),
        ("RunningCritical", Power.UNKNOWN),
        ("OffCritical", Power.UNKNOWN),
        ("Hibernated", Power.UNKNOWN),
        ("", Power.UNKNOWN),
    ],
)
def test_states_are_known_by_their_words(state: str, power: Power) -> None:
    assert mapping.power_of(state) is power


@pytest.mark.parametrize(
    ("heartbeat", "state", "agent"),
    [
        ("OkApplicationsHealthy", "Running", Agent.ANSWERING),
        ("OkApplicationsUnknown", "Running", Agent.ANSWERING),
        ("OkApplicationsUnknown", "Paused", Agent.SILENT),
        ("NoContact", "Running", Agent.SILENT),
        ("LostCommunication", "Running", Agent.SILENT),
        ("", "Off", Agent.SILENT),
        ("Disabled", "Running", Agent.ABSENT),
    ],
)
def test_the_heartbeat_tells_whether_the_guest_answers(heartbeat: str, state: str, agent: Agent) -> None:
    assert mapping.agent_of(heartbeat, state) is agent


def test_link_local_addresses_are_left_out_and_ipv4_comes_first() -> None:
    told = ["fe80::1", "fd00::7", "169.254.3.4", "10.0.0.9", "rubbish", "10.0.0.9", "0.0.0.0"]  # noqa: S104
    assert mapping.guest_addresses(told) == ("10.0.0.9", "fd00::7")


# --- marks -----------------------------------------------------------------------------------------------------------


def test_a_mark_is_a_line_among_peoples_notes() -> None:
    notes = 'Ask Maria first.\r\n{"deskyard":1,"installation":"a","key":"b","stage":"made"}\r\nRoom 4'
    assert mapping.read_mark(notes) == mapping.Mark(Stamp("a", "b"), "made")


@pytest.mark.parametrize("notes", ["", "Golden image", '{"deskyard"', '{"deskyard":1}', '{"other":1,"key":"b"}'])
def test_notes_without_a_whole_mark_are_no_stamp(notes: str) -> None:
    assert mapping.read_mark(notes).stamp is None


def test_a_template_is_marked_by_its_stage() -> None:
    assert mapping.read_mark('{"deskyard":1,"stage":"template"}') == mapping.Mark(None, "template")


@given(st.text())
def test_no_notes_break_the_reading(notes: str) -> None:
    mapping.read_mark(notes)


# --- what a host shows -----------------------------------------------------------------------------------------------


def told(**changed: object) -> dict[str, Any]:
    machine: dict[str, Any] = {
        "id": new_key(),
        "name": "golden",
        "state": "Off",
        "heartbeat": "",
        "vcpus": 2,
        "memory_mib": 2048,
        "notes": "",
        "checkpoints": False,
        "disks": ["D:\\Images\\golden.vhdx"],
        "disk_mib": [20480],
        "nics": [],
    }
    return {
        "rights": {"account": "corp\\svc", "admin": True, "hyperv_admin": False},
        "host": {"name": "HV1", "vcpus": 16, "memory_mib": 65536, "product": "Windows", "version": "10.0"},
        "cluster": None,
        "machines": [machine | changed],
        "switches": [],
        "volumes": [
            {"path": "C:\\", "label": "", "size_mib": 9, "free_mib": 1, "shared": False},
            {"path": "D:\\", "label": "Data", "size_mib": 99, "free_mib": 11, "shared": False},
        ],
        "faults": [],
    }


def test_a_machine_that_is_off_and_unstamped_is_machine_and_template() -> None:
    seen = mapping.read_host(told())
    assert [(it.name, it.storage, it.disk_mib, it.cannot) for it in seen.templates] == [("golden", "D:\\", 20480, "")]
    assert len(seen.machines) == 1


def test_a_marked_template_is_a_template_alone() -> None:
    seen = mapping.read_host(told(notes='{"deskyard":1,"stage":"template"}', state="Running"))
    assert not seen.machines
    assert seen.templates[0].cannot == "It is switched on or saved."


def test_a_stamped_machine_is_no_template() -> None:
    seen = mapping.read_host(told(notes='{"deskyard":1,"installation":"a","key":"b"}'))
    assert not seen.templates
    assert seen.machines[0].stamp == Stamp("a", "b")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"checkpoints": True}, "checkpoints"),
        ({"disks": []}, "no disk"),
        ({"disks": ["Disk 3 4.00 GB Bus 0 Lun 1 Target 2"]}, "no VHD"),
        ({"disks": ["D:\\golden_1.avhdx"]}, "no VHD"),
        ({"disks": ["E:\\golden.vhdx"]}, "no volume"),
    ],
)
def test_why_a_template_cannot_be_cloned_is_told(changed: dict[str, object], words: str) -> None:
    assert words in mapping.read_host(told(**changed)).templates[0].cannot


def test_addresses_are_those_of_a_running_guest() -> None:
    nics = [{"switch": "Office", "mac": "0", "addresses": ["10.0.0.5", "fe80::2"]}]
    assert mapping.read_host(told(nics=nics, state="Running")).machines[0].addresses == ("10.0.0.5",)
    assert mapping.read_host(told(nics=nics, state="Saved")).machines[0].addresses == ()


def test_of_a_cluster_only_shared_volumes_count() -> None:
    answer = told()
    shared = {"path": "C:\\ClusterStorage\\Volume1", "label": "CSV", "size_mib": 5, "free_mib": 2, "shared": True}
    answer |= {"cluster": {"name": "C", "nodes": [{"name": "HV1", "state": "Up"}]}}
    answer["volumes"] = [*answer["volumes"], shared]
    assert [it.id for it in mapping.read_host(answer).storages] == ["C:\\ClusterStorage\\Volume1"]


def test_a_file_lies_on_the_volume_with_the_longest_fitting_path() -> None:
    storages = [Storage("C:\\", "", 1, 1), Storage("C:\\ClusterStorage\\Volume1", "", 1, 1)]
    assert mapping.storage_of("c:\\clusterstorage\\volume1\\x.vhdx", storages) == "C:\\ClusterStorage\\Volume1"
    assert mapping.storage_of("C:\\ClusterStorage\\Volume10\\x.vhdx", storages) == "C:\\"
    assert mapping.storage_of("E:\\x.vhdx", storages) == ""


def test_networks_are_switches_and_the_vlans_that_the_settings_name() -> None:
    switches = [("Office", "External"), ("Lab", "Private"), ("Host", "Internal")]
    found = mapping.networks_of(switches, [("Office", 20), ("Gone", 7)])
    assert found == (
        Network("Office", "Office", "External switch"),
        Network("Lab", "Lab", "Private switch", is_isolated=True),
        Network("Host", "Host", "Internal switch"),
        Network("Office#20", "Office, VLAN 20", "VLAN 20"),
    )


# --- orders ----------------------------------------------------------------------------------------------------------


def test_a_network_with_a_vlan_goes_to_switch_and_tag() -> None:
    settings = dataclasses.replace(SETTINGS, vlans="Office: 20")
    order = CloneMachine(key=new_key(), name="d", template=new_key(), networks=("Office#20", "C#7"))
    request = mapping.request_of(order, settings)
    assert request["networks"] == [{"switch": "Office", "vlan": 20}, {"switch": "C#7", "vlan": 0}]


def test_the_settings_switch_counts_where_an_order_names_no_network() -> None:
    order = CloneMachine(key=new_key(), name="d", template=new_key())
    assert mapping.request_of(order, SETTINGS)["networks"] == []
    chosen = mapping.request_of(order, dataclasses.replace(SETTINGS, switch="Office"))
    assert chosen["networks"] == [{"switch": "Office", "vlan": 0}]


@pytest.mark.parametrize(
    ("weight", "priority"), [(1, 0), (50, 25), (100, 50), (150, 75), (200, 100), (300, 100), (10_000, 100)]
)
def test_a_weight_is_cpu_weight_and_memory_priority(weight: int, priority: int) -> None:
    share = ResourceShare(weight=weight, cpu_reservation_percent=10, cpu_limit_percent=80)
    order = ShareResources(key=new_key(), machine=MachineRef(new_key(), None), share=share)
    request = mapping.request_of(order, SETTINGS)
    assert (request["weight"], request["priority"]) == (weight, priority)
    assert (request["reserve"], request["maximum"]) == (10, 80)


def test_requests_are_ascii_json_whatever_the_names() -> None:
    order = CloneMachine(key=new_key(), name="Grüße-日本", template=new_key(), seed=GuestSeed("host"))
    text = json.dumps(mapping.request_of(order, SETTINGS), ensure_ascii=True)
    assert text.isascii()


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\0b", "x" * 101])
def test_names_that_hyperv_cannot_take_are_refused(name: str) -> None:
    with pytest.raises(Unsupported):
        mapping.request_of(CloneMachine(key=new_key(), name=name, template=new_key()), SETTINGS)


def test_every_power_action_has_words() -> None:
    from connectors.base import PowerAction

    for action in PowerAction:
        assert mapping.doing(SetPower(key=new_key(), machine=MachineRef("m", None), action=action)).endswith(
            "machine m"
        )


# --- seeds -----------------------------------------------------------------------------------------------------------


def _read(image: bytes, name: str) -> str:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    out = io.BytesIO()
    iso.get_file_from_iso_fp(out, joliet_path=f"/{name}")
    iso.close()
    return out.getvalue().decode()


def test_a_seed_holds_what_cloud_init_and_sysprep_read() -> None:
    seed = GuestSeed(hostname='desk-"7"', user_data="#cloud-config\nusers: []\n", answer_file="<unattend/>")
    image = seed_iso(seed, "key-1")
    assert json.loads(_read(image, "meta-data")) == {"instance-id": "key-1", "local-hostname": 'desk-"7"'}
    assert _read(image, "user-data") == seed.user_data
    assert _read(image, "Unattend.xml") == "<unattend/>"


def test_a_packed_seed_is_small_and_unpacks_to_itself() -> None:
    image = seed_iso(GuestSeed("desk"), "key")
    assert len(packed(image)) < len(image) / 10
    assert gzip.decompress(base64.b64decode(packed(image))) == image


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "hresult", "kind"),
    [
        ("AccessDenied,Microsoft.HyperV.PowerShell.Commands.StartVM", 0, Unsupported),
        ("InvalidState,Microsoft.HyperV.PowerShell.Commands.StartVM", 0, Conflict),
        ("ObjectNotFound,x", 0, NotFound),
        ("ObjectInUse,x", 0, Busy),
        ("OutOfMemory,x", 0, CapacityExhausted),
        ("OperationFailed,x", 0, PlatformFault),
        ("OperationFailed,x", 0x80070070 - (1 << 32), CapacityExhausted),
        ("OperationFailed,x", 0x8007000E - (1 << 32), CapacityExhausted),
        ("RemoveFileSystemItemIOError,Microsoft.PowerShell.Commands.RemoveItemCommand", 0x80070020 - (1 << 32), Busy),
        ("CommandNotFoundException", 0, Unsupported),
        ("Whatever", 0, PlatformFault),
        ("", None, PlatformFault),
        ("Deskyard.WrongStamp", 0, Conflict),
    ],
)
def test_errors_are_known_by_their_ids_and_codes(told: str, hresult: object, kind: type[Exception]) -> None:
    error = faults.of_answer({"id": told, "hresult": hresult, "msg": "Der Datenträger ist voll."}, "making 'd'", "HV1")
    assert type(error) is kind
    assert error.message.startswith("Host HV1: making 'd' failed")
    assert "Datenträger" not in error.message, "the vendor's words are for administrators alone"


def test_all_that_we_say_of_our_own_ends_as_a_sentence() -> None:
    for told in faults.OUR_OWN:
        message = faults.of_answer({"id": told}, "making 'd'", "HV1").message
        assert message.endswith(".")
        assert ".." not in message
